"""API keys: who may do what. A key is shown once, when it is made; what is kept is its keyed digest."""

import hmac
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, Self

import msgspec

from metering.audit import sign
from metering.errors import ConflictError, ForbiddenError, InputIssue, InvalidInputError
from metering.input_faults import name_issues
from metering.key_digests import Digests
from metering.limits import LIMITS, Limits
from metering.reach import Reach
from metering.store.pool import Connection, Database
from metering.store.queries import sql

_SECRET_BYTES: Final = 32
# Who changes keys without a key.
BY_COMMAND: Final = "metering keys"
_BY_SETTING: Final = "METERING_BOOTSTRAP_KEY"


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


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, by a key or by a token: what it may do, and whose rows it reaches. `prefix` names it to people."""

    prefix: str
    name: str
    scopes: frozenset[Scope]
    # Bound to these accounts; None means all.
    accounts: frozenset[str] | None
    # Within these accounts bound to these subscriptions, or to one user; None means all.
    subscriptions: frozenset[str] | None = None
    user: str | None = None
    # Stands where an event of this caller names no source.
    default_source: str | None = None
    limits: KeyLimits = NO_LIMITS
    # In whose line its events wait, of whose allowance they are, and who sees what is refused of them; None: `prefix`.
    line: str | None = None

    @property
    def reach(self) -> Reach:
        """Whose rows it sees."""
        return Reach(self.accounts, self.subscriptions, self.user)

    @property
    def sender(self) -> str:
        """Who sends its events: a key that was rotated and the one after it are one sender."""
        return self.line or self.prefix

    @property
    def signature(self) -> str:
        """How what it does is signed on record."""
        return f"{self.name} ({self.prefix})"

    def holds(self, scope: Scope) -> bool:
        """Whether it allows this: who is bound manages no keys, and who is bound to less than accounts only reads."""
        if not (scope in self.scopes or Scope.ADMIN in self.scopes):
            return False
        if self.user is not None:
            return scope in _OF_A_USER
        if self.subscriptions is not None:
            return scope in _OF_SUBSCRIPTIONS
        return self.accounts is None or scope is not Scope.ADMIN

    def require(self, scope: Scope) -> Self:
        """The caller itself. Raises ForbiddenError without the scope."""
        if not self.holds(scope):
            raise ForbiddenError(f"The key {self.prefix} does not have the scope {scope.value}.")
        return self


# A statement is of a whole subscription, and of no single user in it.
_OF_A_USER: Final = frozenset({Scope.USAGE_READ, Scope.CATALOG_READ})
_OF_SUBSCRIPTIONS: Final = frozenset({*_OF_A_USER, Scope.CHARGES_READ})


class ApiKey(Caller, frozen=True, kw_only=True):
    """A key as it is kept; the secret is not in it."""

    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    # To about a minute.
    last_used_at: datetime | None = None
    # The prefix of the key that it was made in the place of.
    replaces: str | None = None


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is asked for."""

    name: str
    scopes: Collection[Scope]
    accounts: Collection[str] | None = None
    expires_at: datetime | None = None
    default_source: str | None = None
    limits: KeyLimits = NO_LIMITS
    replaces: str | None = None
    line: str | None = None


class KeyRing:
    """Knows the keys. A revoked key is refused within `key_cache_seconds` in every process."""

    def __init__(
        self, database: Database, key_secret: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._clock = clock
        self._digests = Digests(database, key_secret)
        self._cache: dict[bytes, tuple[float, ApiKey | None]] = {}

    async def find(self, secret: str) -> ApiKey | None:
        """The key of this secret, when it may be used now."""
        digests = await self._digests.of(secret)
        now = self._clock()
        cached = self._cache.get(digests[0])
        if cached is not None and now < cached[0]:
            return cached[1]
        key, seconds = await self._look_up(digests)
        if len(self._cache) >= LIMITS.key_cache_keys_max:
            self._cache.clear()
        self._cache[digests[0]] = (now + seconds, key)
        return key

    async def _look_up(self, digests: Sequence[bytes]) -> tuple[ApiKey | None, float]:
        """A key, and for how many seconds that may be relied on: no longer than it lasts."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(sql("keys.find_key"), digests, timeout=LIMITS.database_connect_seconds_max)
        if row is None or not any(hmac.compare_digest(row["digest"], digest) for digest in digests):
            return None, LIMITS.key_cache_seconds
        lasts = row["lasts_seconds"]
        return _key(row), LIMITS.key_cache_seconds if lasts is None else min(lasts, LIMITS.key_cache_seconds)

    async def create(
        self,
        name: str,
        scopes: Collection[Scope],
        accounts: Collection[str] | None = None,
        expires_at: datetime | None = None,
        *,
        default_source: str | None = None,
        limits: KeyLimits = NO_LIMITS,
        by: str = BY_COMMAND,
    ) -> tuple[ApiKey, str]:
        """Make a key and return it with its secret, which is not kept. `by` is who does it, as the audit log tells.

        A rate without a burst gets one of a second. Raises InvalidInputError, with every fault.
        """
        asked = NewKey(
            name=name,
            scopes=scopes,
            accounts=accounts,
            expires_at=expires_at,
            default_source=default_source,
            limits=limits,
        )
        issues = list(_issues(asked))
        if issues:
            raise InvalidInputError(issues)
        if limits.burst_events_max is None:
            limits = msgspec.structs.replace(limits, burst_events_max=limits.events_per_second_max)
        async with self._database.transaction() as connection:
            await sign(connection, by)
            return await self._made(connection, msgspec.structs.replace(asked, limits=limits))

    async def rotate(self, prefix: str, overlap: timedelta, by: str = BY_COMMAND) -> tuple[ApiKey, str] | None:
        """Make a key in the place of another one, which goes on for `overlap`, if it does not end before; None without one.

        The new one may do the same, for the same accounts, with the same limits, and for as long as the old one was to
        last. Both are one sender. Raises ConflictError for a key that is revoked or has expired.
        """
        async with self._database.transaction() as connection:
            await sign(connection, by)
            row = await connection.fetchrow(sql("keys.lock_key"), prefix)
            if row is None:
                return None
            old = _key(row)
            if row["is_over"]:
                raise ConflictError(f"The key {prefix} is revoked or has expired; make a new one.")
            made = await self._made(connection, _successor(old))
            await connection.execute(sql("keys.end_key"), prefix, overlap)
        self._cache.clear()
        return made

    async def _made(self, connection: Connection, asked: NewKey) -> tuple[ApiKey, str]:
        while True:
            prefix = f"mk_{secrets.token_hex(4)}"
            secret = f"{prefix}_{secrets.token_urlsafe(_SECRET_BYTES)}"
            # None where another key has the prefix, which is short.
            if (key := await self._insert(connection, prefix, secret, asked)) is not None:
                break
        if key.expires_at is not None and key.expires_at <= key.created_at:
            raise InvalidInputError([InputIssue(("expires_at",), "A key expires in the future.")])
        return key, secret

    async def bootstrap(self, secret: str) -> None:
        """Make the ADMIN key of this secret, unless somebody did, or does meanwhile. A revoked one stays revoked."""
        digests = await self._digests.of(secret)
        async with self._database.transaction() as connection:
            if not await connection.fetchval(sql("keys.is_known"), digests):
                asked = NewKey(name="bootstrap", scopes=[Scope.ADMIN])
                await sign(connection, _BY_SETTING)
                made = await self._insert(connection, f"bootstrap_{digests[0].hex()[:8]}", secret, asked)
                if made is None and not await connection.fetchval(sql("keys.is_known"), digests):
                    raise ConflictError("Another key begins as METERING_BOOTSTRAP_KEY would: choose another one.")

    async def page(self, first: int, after: str | None = None) -> tuple[Sequence[ApiKey], bool]:
        """The `first` keys, the newest first, from behind the key of prefix `after` on; and whether there are more."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(sql("keys.list_keys"), after, first + 1)
        return [_key(row) for row in rows[:first]], len(rows) > first

    async def list(self) -> "Sequence[ApiKey]":
        """All keys, the newest first."""
        async with self._database.connection() as connection:
            return [_key(row) for row in await connection.fetch(sql("keys.list_keys"), None, None)]

    async def revoke(self, prefix: str, by: str = BY_COMMAND) -> ApiKey | None:
        """Revoke the key of this prefix; None when there is none."""
        async with self._database.transaction() as connection:
            await sign(connection, by)
            row = await connection.fetchrow(sql("keys.revoke_key"), prefix)
        self._cache.clear()
        return None if row is None else _key(row)

    async def _insert(self, connection: Connection, prefix: str, secret: str, asked: NewKey) -> ApiKey | None:
        row = await connection.fetchrow(
            sql("keys.insert_key"),
            prefix,
            asked.name,
            (await self._digests.of(secret))[0],
            sorted(scope.value for scope in asked.scopes),
            None if asked.accounts is None else sorted(asked.accounts),
            asked.expires_at,
            asked.default_source,
            *msgspec.structs.astuple(asked.limits),
            asked.replaces,
            asked.line,
        )
        return None if row is None else _key(row)


def _successor(old: ApiKey) -> NewKey:
    """What is to be made in a key's place."""
    return NewKey(
        name=old.name,
        scopes=old.scopes,
        accounts=old.accounts,
        expires_at=old.expires_at,
        default_source=old.default_source,
        limits=old.limits,
        replaces=old.prefix,
        line=old.sender,
    )


def _issues(asked: NewKey) -> Iterator[InputIssue]:
    default_source, limits = asked.default_source, asked.limits
    if not asked.name.strip():
        yield InputIssue(("name",), "A key needs a name that says who uses it.")
    else:
        yield from name_issues(asked.name, ("name",), LIMITS)
    yield from _binding_issues(asked)
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


def _binding_issues(asked: NewKey) -> Iterator[InputIssue]:
    """What is wrong with what it may do, and for whom."""
    if not asked.scopes:
        yield InputIssue(("scopes",), "A key without a scope may do nothing; name at least one.")
    if asked.accounts is None:
        return
    if not 0 < len(asked.accounts) <= LIMITS.filter_values_max:
        message = f"A key is bound to 1 to {LIMITS.filter_values_max:,} accounts; leave them out for all."
        yield InputIssue(("accounts",), message)
    if Scope.ADMIN in asked.scopes:
        yield InputIssue(
            ("scopes",), "Who manages keys is not bound to accounts; name the scopes that it needs instead."
        )
    for place, account in enumerate(asked.accounts):
        yield from name_issues(account, ("accounts", str(place)), LIMITS)


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
        line=row["line"],
        last_used_at=row["last_used_at"],
        replaces=row["replaces"],
    )
