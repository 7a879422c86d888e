"""API keys: who may do what. A key is shown once, when it is made; what is kept is its digest."""

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from hashlib import sha256
from typing import Any, Final, Self

import msgspec

from metering.errors import ForbiddenError, InputIssue, InvalidInputError, UnauthenticatedError
from metering.limits import LIMITS, Limits
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


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is held to besides what everyone is; None means nothing more. A rate comes with its burst."""

    events_per_second_max: int | None = None
    burst_events_max: int | None = None
    request_events_max: int | None = None
    # Decompressed.
    request_bytes_max: int | None = None

    def within(self, limits: Limits) -> Limits:
        """The limits that hold for a request of this key: the narrower ones."""
        if self.request_events_max is None and self.request_bytes_max is None:
            return limits
        return msgspec.structs.replace(
            limits,
            body_events_max=min(self.request_events_max or limits.body_events_max, limits.body_events_max),
            body_bytes_max=min(self.request_bytes_max or limits.body_bytes_max, limits.body_bytes_max),
        )


NO_LIMITS: Final = KeyLimits()


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
    # Stands where an event of this key names no source.
    default_source: str | None = None
    limits: KeyLimits = NO_LIMITS

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
        *,
        default_source: str | None = None,
        limits: KeyLimits = NO_LIMITS,
    ) -> tuple[ApiKey, str]:
        """Make a key and return it with its secret, which is not kept.

        A rate without a burst gets one of a second. Raises InvalidInputError, with every fault.
        """
        issues = list(_issues(name, default_source, limits))
        if issues:
            raise InvalidInputError(issues)
        if limits.burst_events_max is None:
            limits = msgspec.structs.replace(limits, burst_events_max=limits.events_per_second_max)
        prefix = f"mk_{secrets.token_hex(4)}"
        secret = f"{prefix}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        key = await self._insert(prefix, name, secret, scopes, accounts, expires_at, default_source, limits)
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
        default_source: str | None = None,
        limits: KeyLimits = NO_LIMITS,
    ) -> ApiKey | None:
        values = sorted(scope.value for scope in scopes)
        bound = None if accounts is None else sorted(accounts)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                sql("keys.insert_key"),
                prefix,
                name,
                _digest(secret),
                values,
                bound,
                expires_at,
                default_source,
                *msgspec.structs.astuple(limits),
            )
        return None if row is None else _key(row)


def _digest(secret: str) -> bytes:
    # The secrets are 256 random bits, so one round of a fast hash is as good as many of a slow one.
    return sha256(secret.encode()).digest()


def _issues(name: str, default_source: str | None, limits: KeyLimits) -> Iterator[InputIssue]:
    if not name.strip():
        yield InputIssue(("name",), "A key needs a name that says who uses it.")
    if default_source is not None and (not 0 < len(default_source) <= LIMITS.name_chars_max or "\0" in default_source):
        yield InputIssue(
            ("default_source",), f"A source has 1 to {LIMITS.name_chars_max} characters, none of them NUL."
        )
    for field, (unit, highest) in _KEY_LIMITS.items():
        value = getattr(limits, field)
        if value is not None and not 1 <= value <= highest:
            yield InputIssue((field,), f"This must be 1 to {highest:,} {unit}; {value:,} is not.")
    if limits.burst_events_max is not None and limits.events_per_second_max is None:
        yield InputIssue(("burst_events_max",), "A burst belongs to a rate; give events_per_second_max too.")


# The unit of each limit of a key, and what it may be at most.
_KEY_LIMITS: Final[Mapping[str, tuple[str, int]]] = {
    "events_per_second_max": ("events a second", LIMITS.key_rate_events_max),
    "burst_events_max": ("events", LIMITS.key_rate_events_max),
    "request_events_max": ("events", LIMITS.body_events_max),
    "request_bytes_max": ("bytes", LIMITS.body_bytes_max),
}


def _key(row: Any) -> ApiKey:
    return ApiKey(
        prefix=row["prefix"],
        name=row["name"],
        scopes=frozenset(map(Scope, row["scopes"])),
        accounts=None if row["accounts"] is None else frozenset(row["accounts"]),
        created_at=row["created_at"].astimezone(UTC),
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        default_source=row["default_source"],
        limits=KeyLimits(**{field: row[field] for field in KeyLimits.__struct_fields__}),
    )
