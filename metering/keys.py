"""API keys: who may do what. A key is shown once, when it is made; what is kept is its digest."""

import secrets
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import Enum
from hashlib import sha256
from typing import Any, Final, Self

import msgspec

from metering.errors import ForbiddenError, InputIssue, InvalidInputError, UnauthenticatedError
from metering.limits import LIMITS
from metering.store.pool import Database
from metering.store.queries import sql

_CACHE_SECONDS: Final = 3.0
_CACHE_KEYS_MAX: Final = 10_000
_SECRET_BYTES: Final = 32


class Scope(Enum):
    """What a key allows; ADMIN holds every scope."""

    USAGE_READ = "USAGE_READ"
    USAGE_WRITE = "USAGE_WRITE"
    CHARGES_READ = "CHARGES_READ"
    CHARGES_WRITE = "CHARGES_WRITE"
    CATALOG_READ = "CATALOG_READ"
    CATALOG_WRITE = "CATALOG_WRITE"
    HEALTH_READ = "HEALTH_READ"
    HEALTH_WRITE = "HEALTH_WRITE"
    ADMIN = "ADMIN"


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is kept. `prefix` names it to people; the secret is not in it."""

    prefix: str
    name: str
    scopes: frozenset[Scope]
    # Bound to these accounts; None means all.
    accounts: frozenset[str] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def holds(self, scope: Scope) -> bool:
        """Whether the key allows this."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def require(self, scope: Scope) -> Self:
        """The key itself. Raises ForbiddenError without the scope."""
        if not self.holds(scope):
            raise ForbiddenError(f"The key {self.prefix} does not have the scope {scope.value}.")
        return self


class KeyRing:
    """Knows the keys. A revoked key is refused within a few seconds in every process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cache: dict[bytes, tuple[float, ApiKey | None]] = {}

    async def authenticate(self, authorization: str | None) -> ApiKey:
        """The key that an Authorization header carries. Raises UnauthenticatedError, saying what is missing."""
        if not authorization:
            raise UnauthenticatedError("Send a key: `Authorization: Bearer <key>`; `metering keys create` makes one.")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthenticatedError("The Authorization header must read `Bearer <key>`.")
        key = await self._find(_digest(token.strip()))
        if key is None:
            raise UnauthenticatedError("This key is not known, or it is revoked or expired.")
        return key

    async def _find(self, digest: bytes) -> ApiKey | None:
        now = time.monotonic()
        cached = self._cache.get(digest)
        if cached is not None and now < cached[0]:
            return cached[1]
        async with self._database.connection() as connection:
            row = await connection.fetchrow(sql("keys.find_key"), digest, timeout=LIMITS.database_connect_seconds_max)
        key = None if row is None else _key(row)
        if len(self._cache) >= _CACHE_KEYS_MAX:
            self._cache.clear()
        self._cache[digest] = (now + _CACHE_SECONDS, key)
        return key

    async def create(
        self,
        name: str,
        scopes: Iterable[Scope],
        accounts: Iterable[str] | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key and return it with its secret, which is not kept. Raises InvalidInputError."""
        if not name.strip():
            raise InvalidInputError([InputIssue(("name",), "A key needs a name that says who uses it.")])
        prefix = f"mk_{secrets.token_hex(4)}"
        secret = f"{prefix}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        key = await self._insert(prefix, name, secret, scopes, accounts, expires_at)
        assert key is not None, "a fresh 256-bit secret is new"
        return key, secret

    async def bootstrap(self, secret: str) -> None:
        """Make the ADMIN key of this secret, where it is not there yet. A revoked one stays revoked."""
        await self._insert(f"bootstrap_{_digest(secret).hex()[:8]}", "bootstrap", secret, [Scope.ADMIN], None, None)

    async def list(self) -> "Sequence[ApiKey]":
        """All keys, the newest first."""
        async with self._database.connection() as connection:
            return [_key(row) for row in await connection.fetch(sql("keys.list_keys"))]

    async def revoke(self, prefix: str) -> ApiKey | None:
        """Revoke the key of this prefix; None when there is none."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(sql("keys.revoke_key"), prefix)
        self._cache.clear()
        return None if row is None else _key(row)

    async def _insert(
        self,
        prefix: str,
        name: str,
        secret: str,
        scopes: Iterable[Scope],
        accounts: Iterable[str] | None,
        expires_at: datetime | None,
    ) -> ApiKey | None:
        values = sorted(scope.value for scope in scopes)
        bound = None if accounts is None else sorted(accounts)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                sql("keys.insert_key"), prefix, name, _digest(secret), values, bound, expires_at
            )
        return None if row is None else _key(row)


def _digest(secret: str) -> bytes:
    # The secrets are 256 random bits, so one round of a fast hash is as good as many of a slow one.
    return sha256(secret.encode()).digest()


def _key(row: Any) -> ApiKey:
    return ApiKey(
        prefix=row["prefix"],
        name=row["name"],
        scopes=frozenset(map(Scope, row["scopes"])),
        accounts=None if row["accounts"] is None else frozenset(row["accounts"]),
        created_at=row["created_at"].astimezone(UTC),
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
    )
