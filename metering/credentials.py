"""What callers send to say who they are: a key of ours, or a token of an identity provider."""

import time
from hashlib import sha256
from typing import Final

from metering.errors import UnauthenticatedError
from metering.key_uses import KeyUses
from metering.keys import Caller, KeyRing
from metering.limits import LIMITS
from metering.telemetry import note
from metering.tokens import Tokens

# Its three parts: a header, claims and a signature; the header is a JSON object, as base64.
_TOKEN_DOTS: Final = 2
_HEADER_BEGINS: Final = "ey"


class Credentials:
    """Knows who somebody is by what an Authorization header carries."""

    def __init__(self, keys: KeyRing, uses: KeyUses, tokens: Tokens | None) -> None:
        self._keys = keys
        self._uses = uses
        self._tokens = tokens
        # Verified tokens by their digests, until when that holds, and the revision of the keys that they were verified with.
        self._verified: dict[bytes, tuple[float, int, Caller]] = {}

    async def authenticate(self, authorization: str | None) -> Caller:
        """Who asks. Raises UnauthenticatedError, saying what is missing, or KeySetUnavailableError."""
        if not authorization:
            raise UnauthenticatedError("Send a key: `Authorization: Bearer <key>`; `metering keys create` makes one.")
        scheme, _, credential = authorization.partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential:
            raise UnauthenticatedError("The Authorization header must read `Bearer <key>`.")
        if self._tokens is not None and _looks_like_token(credential):
            caller = await self._by_token(credential, self._tokens)
            note(key=caller.prefix)
            return caller
        key = await self._keys.find(credential)
        if key is None:
            raise UnauthenticatedError("This key is not known, or it is revoked or expired.")
        self._uses.note(key.prefix)
        note(key=key.prefix)
        return key

    async def _by_token(self, token: str, tokens: Tokens) -> Caller:
        """The same as for a key: what was found a moment ago holds for a moment."""
        digest = sha256(token.encode()).digest()
        now = time.monotonic()
        verified = self._verified.get(digest)
        if verified is not None and now < verified[0] and tokens.revision == verified[1]:
            return verified[2]
        caller = await tokens.caller(token)
        if len(self._verified) >= LIMITS.key_cache_keys_max:
            self._verified.clear()
        self._verified[digest] = (now + LIMITS.key_cache_seconds, tokens.revision, caller)
        return caller


def _looks_like_token(credential: str) -> bool:
    return credential.count(".") == _TOKEN_DOTS and credential.startswith(_HEADER_BEGINS)
