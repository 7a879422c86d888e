"""Tokens of an identity provider: signed JWTs that say who somebody is, what it may do and whose rows it reaches.

The algorithm is the key's and never the token's: a public key verifies by its own kind of signature, and the shared secret
by HS256 alone. Issuer, audience and expiry are required, and so are the accounts: a token that names none reaches nothing
by mistake, so it is refused.
"""

from collections.abc import Sequence
from datetime import timedelta
from hashlib import blake2b
from typing import Any, Final, Literal

import jwt
import msgspec
from jwt import PyJWK
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    MissingRequiredClaimError,
    PyJWTError,
)

from metering.config import Settings
from metering.errors import UnauthenticatedError
from metering.input_faults import name_issues
from metering.key_sets import KeySet
from metering.keys import Caller, Scope
from metering.limits import Limits

_SHARED: Final = "HS256"
_EVERY_ACCOUNT: Final = "*"
_REQUIRED: Final = ("exp", "iss", "aud")
_DIGEST_BYTES: Final = 8
_NAMELESS: Final = "a token"


class _Claims(msgspec.Struct):
    """What a token says that we look at, besides what makes it good; other claims are passed over."""

    accounts: list[str] | Literal["*"]
    sub: str | None = None
    # As OAuth has it, with spaces between; or as a list.
    scope: str | list[str] | None = None
    subscriptions: list[str] | None = None
    user: str | None = None


class Tokens:
    """Verifies tokens."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        limits: Limits,
        *,
        keys: KeySet | None,
        secret: str | None,
        leeway: timedelta,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._limits = limits
        self._keys = keys
        self._secret = secret
        self._leeway = leeway

    @property
    def revision(self) -> int:
        """Of the keys that tokens are verified with."""
        return 0 if self._keys is None else self._keys.revision

    async def close(self) -> None:
        """Give up what is under way."""
        if self._keys is not None:
            await self._keys.close()

    async def caller(self, token: str) -> Caller:
        """Whose token it is. Raises UnauthenticatedError, saying why it is not good, or KeySetUnavailableError."""
        if len(token) > self._limits.token_bytes_max:
            raise UnauthenticatedError(f"A token may have {self._limits.token_bytes_max:,} bytes; this is longer.")
        try:
            header = jwt.get_unverified_header(token)
        except PyJWTError as error:
            raise UnauthenticatedError("This is not a JSON Web Token.") from error
        key, algorithm = await self._key(header)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": list(_REQUIRED)},
            )
        except PyJWTError as error:
            raise UnauthenticatedError(self._reason(error)) from error
        return self._caller(claims)

    async def _key(self, header: dict[str, Any]) -> tuple[PyJWK | str, str]:
        """What verifies a token of this header, and by which algorithm."""
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm == _SHARED and self._secret is not None:
            return self._secret, _SHARED
        if self._keys is None:
            raise UnauthenticatedError(f"A token must be signed with {_SHARED}; this says {algorithm!r:.60}.")
        key = await self._keys.find(kid if isinstance(kid, str) else None)
        if key is None:
            raise UnauthenticatedError(f"No key of the issuer has the id of this token's, {kid!r:.60}.")
        if algorithm != key.algorithm_name:
            message = f"This token's key signs with {key.algorithm_name}; the token says {algorithm!r:.60}."
            raise UnauthenticatedError(message)
        return key, key.algorithm_name

    def _reason(self, error: PyJWTError) -> str:
        match error:
            case ExpiredSignatureError():
                return "This token has expired."
            case ImmatureSignatureError():
                return "This token is not valid yet."
            case InvalidAudienceError():
                return f"This token is for another audience than {self._audience!r}."
            case InvalidIssuerError():
                return f"This token is of another issuer than {self._issuer!r}."
            case MissingRequiredClaimError():
                return f"This token does not say {error.claim!r}; it must say {', '.join(_REQUIRED)}."
            case _:
                return "This token's signature is not good, or it is no token at all."

    def _caller(self, claims: dict[str, Any]) -> Caller:
        try:
            told = msgspec.convert(claims, _Claims)
        except msgspec.ValidationError as error:
            message = (
                f'{error}: `accounts` is a list of accounts, or "*" for all; `subscriptions` a list, `user` a text.'
            )
            raise UnauthenticatedError(f"This token's claims are not understood: {message}") from error
        self._check(told)
        names = told.scope.split() if isinstance(told.scope, str) else told.scope or []
        prefix = f"jwt_{self._digest(told)}"
        return Caller(
            prefix=prefix,
            name=told.sub or _NAMELESS,
            scopes=frozenset(Scope[name] for name in names if name in Scope.__members__),
            accounts=None if told.accounts == _EVERY_ACCOUNT else frozenset(told.accounts),
            subscriptions=None if told.subscriptions is None else frozenset(told.subscriptions),
            user=told.user,
        )

    def _check(self, told: _Claims) -> None:
        accounts: Sequence[str] = [] if told.accounts == _EVERY_ACCOUNT else told.accounts
        if told.accounts == _EVERY_ACCOUNT and not (told.subscriptions is None and told.user is None):
            raise UnauthenticatedError("A token for subscriptions, or for a user, must name their accounts.")
        named = {"accounts": accounts, "subscriptions": told.subscriptions or []}
        named |= {name: [] if text is None else [text] for name, text in (("user", told.user), ("sub", told.sub))}
        for claim, texts in named.items():
            issue = next((issue for text in texts for issue in name_issues(text, (claim,), self._limits)), None)
            if issue is not None:
                raise UnauthenticatedError(f"This token's claim `{claim}`: {issue.message}")
            if len(texts) > self._limits.filter_values_max:
                message = f"{len(texts):,} values; {self._limits.filter_values_max:,} are taken."
                raise UnauthenticatedError(f"This token's claim `{claim}`: {message}")

    def _digest(self, told: _Claims) -> str:
        """Names who asks and what it reaches: tokens of one subject for different accounts are different senders."""
        reach = [_EVERY_ACCOUNT] if told.accounts == _EVERY_ACCOUNT else sorted(told.accounts)
        whole = msgspec.json.encode([self._issuer, told.sub, reach, told.subscriptions, told.user])
        return blake2b(whole, digest_size=_DIGEST_BYTES).hexdigest()


def tokens_of(settings: Settings, limits: Limits) -> Tokens | None:
    """What verifies tokens by these settings; None where none are taken."""
    if settings.jwt_issuer is None or settings.jwt_audience is None:
        return None
    return Tokens(
        settings.jwt_issuer,
        settings.jwt_audience,
        limits,
        keys=None if settings.jwt_jwks is None else KeySet(settings.jwt_jwks, limits),
        secret=settings.jwt_secret,
        leeway=timedelta(seconds=settings.jwt_leeway_seconds),
    )
