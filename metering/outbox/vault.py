"""How addresses and secrets of destinations are kept: encrypted with the service's own secret, so that a table tells neither.

That secret is METERING_KEY_SECRET, or else one that is kept in the same database: then a copy of the whole database tells
all of it, and only a look at this table does not. What was encrypted before METERING_KEY_SECRET was set can be opened still.
"""

import hmac
import secrets
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from metering.errors import VaultError
from metering.key_digests import Digests

_NONCE_BYTES: Final = 12
_PURPOSE: Final = b"metering: destinations"


class SigningSecret(msgspec.Struct, frozen=True):
    """A secret that a destination's requests are signed with; `until` is the Unix time at which it is not any more."""

    secret: bytes
    until: int | None = None


class Contents(msgspec.Struct, frozen=True):
    """What is kept encrypted of a destination: its address in full, what is signed with, the newest first, and what is sent
    there as `Authorization: Bearer`, if anything is.
    """

    url: str
    secrets: tuple[SigningSecret, ...]
    bearer: str | None = None

    def in_use(self, timestamp: int) -> list[bytes]:
        """The secrets that are signed with at a time."""
        return [each.secret for each in self.secrets if each.until is None or timestamp < each.until]


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Contents)


class Vault:
    """Encrypts what is kept of destinations, and decrypts it."""

    def __init__(self, digests: Digests) -> None:
        self._digests = digests

    async def encrypted(self, key: str, contents: Contents) -> bytes:
        """What is kept of the destination of this key."""
        newest, *_ = await self._keys()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        # Bound to the key: what is encrypted for one destination opens nothing in the row of another.
        return nonce + AESGCM(newest).encrypt(nonce, _ENCODER.encode(contents), key.encode())

    async def decrypted(self, key: str, encrypted: bytes) -> Contents:
        """What was encrypted. Raises VaultError where it was encrypted with a secret that is not known any more."""
        for each in await self._keys():
            try:
                opened = AESGCM(each).decrypt(encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:], key.encode())
            except InvalidTag:
                continue
            return _DECODER.decode(opened)
        raise VaultError(
            f"What is kept of the destination {key!r:.60} was encrypted with another METERING_KEY_SECRET; set that one again, or "
            "put the destination's address anew."
        )

    async def _keys(self) -> list[bytes]:
        return [hmac.digest(secret, _PURPOSE, "sha256") for secret in await self._digests.secrets()]
