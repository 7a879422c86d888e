"""Destinations: where notifications are sent, a webhook or a channel of Slack. Put as facts; secrets are made by us.

The address of a Slack webhook is a secret in itself, and that of many another has a token in its path; so addresses are kept
encrypted, and shown without their paths. Only who reaches everything manages destinations: they are told of all accounts.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final

import msgspec

from metering.errors import ConflictError, InputIssue, InvalidInputError, NotFoundError, VaultError
from metering.events import in_utc
from metering.keys import Caller, Scope
from metering.limits import Limits
from metering.outbox.addresses import Allowed, target_of, url_faults
from metering.outbox.signature import secret_text
from metering.outbox.vault import Contents, SigningSecret, Vault
from metering.store.pool import Connection, Database
from metering.store.queries import sql

_SECRET_BYTES: Final = 32
_KEY_FORM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")
_TYPE_FORM: Final = re.compile(r"[a-z][a-z_]*(\.[a-z][a-z_]*)*")


class DestinationKind(Enum):
    """How what is sent there is written."""

    WEBHOOK = "WEBHOOK"
    SLACK = "SLACK"


class DestinationOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A destination as it is put. Without an address a known one keeps its own."""

    key: str
    kind: DestinationKind
    url: str | None
    # Which types it takes: `alert.raised`, or `alert` for all whose names begin so; none means all.
    types: tuple[str, ...] = ()
    enabled: bool = True


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """A destination as it is shown."""

    id: int
    key: str
    kind: DestinationKind
    address: str
    types: tuple[str, ...]
    enabled: bool
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None
    created_at: datetime
    changed_at: datetime
    waiting: int = 0


class Made(msgspec.Struct, frozen=True):
    """A destination, and a secret that was made for it just now, as whoever verifies takes it."""

    destination: Destination
    secret: str | None


class Destinations:
    """Puts, rotates and lists."""

    def __init__(
        self, database: Database, vault: Vault, allowed: Allowed, limits: Limits, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._vault = vault
        self._allowed = allowed
        self._limits = limits
        self._clock = clock

    async def put(self, order: DestinationOrder, key: Caller) -> Made:
        """Make a destination, or change it; what waits there is tried at once. A webhook's secret is made with it.

        Raises InvalidInputError with every fault; ConflictError where it is there and of another kind.
        """
        key.require(Scope.ADMIN)
        issues = list(self._issues(order))
        if issues:
            raise InvalidInputError(issues)
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(sql("destinations.lock_destination"), order.key)
            if row is None:
                return await self._made(connection, order, key.signature)
            return await self._changed(connection, row, order, key.signature)

    async def rotate(self, name: str, overlap: timedelta, key: Caller) -> Made:
        """Sign with a new secret from now on, and for `overlap` with the ones before as well.

        Raises NotFoundError; ConflictError for a destination that has no secret, or too many.
        """
        key.require(Scope.ADMIN)
        async with self._database.transaction() as connection:
            row = None if "\0" in name else await connection.fetchrow(sql("destinations.lock_destination"), name)
            if row is None:
                raise NotFoundError(f"There is no destination {name!r:.60}.")
            if row["kind"] != DestinationKind.WEBHOOK.value:
                raise ConflictError(
                    f"The destination {name!r:.60} is of the kind {row['kind']}; nothing is signed there."
                )
            try:
                known = await self._vault.decrypted(name, row["encrypted"])
            except VaultError as error:
                raise ConflictError(str(error)) from error
            now = self._clock()
            kept = _ended(known.secrets, int(now.timestamp()), int((now + overlap).timestamp()))
            if len(kept) >= self._limits.destination_secrets_max:
                raise ConflictError(
                    f"{len(kept)} secrets of {name!r:.60} are in use; wait until one has ended, or rotate with an overlap of 0."
                )
            made = SigningSecret(secrets.token_bytes(_SECRET_BYTES))
            again = await self._vault.encrypted(name, Contents(known.url, (made, *kept)))
            changed = await connection.fetchrow(
                sql("destinations.encrypt_destination"), row["id"], again, key.signature
            )
        return Made(_destination(changed), secret_text(made.secret))

    async def page(self, first: int, after: str | None) -> tuple[list[Destination], bool]:
        """The `first` destinations by key, from behind the key `after` on; and whether there are more."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(sql("destinations.list_destinations"), after, first + 1)
        return [_destination(row) for row in rows[:first]], len(rows) > first

    async def _made(self, connection: Connection, order: DestinationOrder, by: str) -> Made:
        if order.url is None:
            raise InvalidInputError([InputIssue(("input", "url"), "A new destination needs its address.")])
        if await connection.fetchval(sql("destinations.count_destinations")) >= self._limits.destinations_max:
            message = f"There are {self._limits.destinations_max:,} destinations, and there may be no more."
            raise ConflictError(message)
        made = _new_secrets(order.kind)
        row = await connection.fetchrow(
            sql("destinations.insert_destination"),
            order.key,
            order.kind.value,
            target_of(order.url).shown,
            await self._vault.encrypted(order.key, Contents(order.url, made)),
            list(order.types),
            order.enabled,
            by,
        )
        if row is None:
            raise ConflictError(f"The destination {order.key!r:.60} was made just now by somebody else.")
        return Made(_destination(row), secret_text(made[0].secret) if made else None)

    async def _changed(self, connection: Connection, row: Any, order: DestinationOrder, by: str) -> Made:
        if row["kind"] != order.kind.value:
            raise ConflictError(
                f"The destination {order.key!r:.60} is there and of the kind {row['kind']}; put one with another key."
            )
        address, encrypted = row["address"], row["encrypted"]
        made: tuple[SigningSecret, ...] = ()
        if order.url is not None:
            try:
                known = (await self._vault.decrypted(order.key, encrypted)).secrets
            except VaultError:
                # What was signed with is lost with the secret of the service; so there is a new one, which is told.
                known = made = _new_secrets(order.kind)
            encrypted = await self._vault.encrypted(order.key, Contents(order.url, known))
            address = target_of(order.url).shown
        changed = await connection.fetchrow(
            sql("destinations.change_destination"), row["id"], address, encrypted, list(order.types), order.enabled, by
        )
        await connection.execute(sql("deliveries.make_due"), row["id"], self._clock())
        return Made(_destination(changed), secret_text(made[0].secret) if made else None)

    def _issues(self, order: DestinationOrder) -> Iterator[InputIssue]:
        if not _KEY_FORM.fullmatch(order.key) or len(order.key) > self._limits.name_chars_max:
            message = (
                f"A destination's key has 1 to {self._limits.name_chars_max} letters, digits and the signs _ . : - "
                "and begins with a letter or a digit; letters are those of ASCII."
            )
            yield InputIssue(("input", "key"), message)
        if order.url is not None:
            yield from (InputIssue(("input", "url"), fault) for fault in url_faults(order.url, self._allowed))
        if len(order.types) > self._limits.destination_types_max:
            message = f"{len(order.types):,} types; {self._limits.destination_types_max:,} are taken."
            yield InputIssue(("input", "types"), message)
        for place, type_name in enumerate(order.types):
            if not _TYPE_FORM.fullmatch(type_name) or len(type_name) > self._limits.name_chars_max:
                message = "This is no type such as alert.raised, or the beginning of some such as alert."
                yield InputIssue(("input", "types", str(place)), message)


def _new_secrets(kind: DestinationKind) -> tuple[SigningSecret, ...]:
    """What is signed with first; nothing is signed for Slack, whose address is the secret."""
    return (SigningSecret(secrets.token_bytes(_SECRET_BYTES)),) if kind is DestinationKind.WEBHOOK else ()


def _ended(known: Sequence[SigningSecret], now: int, until: int) -> list[SigningSecret]:
    """The secrets that go on until then at the latest, of those that are in use."""
    ends = [SigningSecret(each.secret, until if each.until is None else min(each.until, until)) for each in known]
    return [each for each in ends if each.until is not None and each.until > now]


def _destination(row: Any) -> Destination:
    failing_since, disabled_at = row["failing_since"], row["disabled_at"]
    return Destination(
        id=row["id"],
        key=row["key"],
        kind=DestinationKind(row["kind"]),
        address=row["address"],
        types=tuple(row["types"]),
        enabled=row["enabled"],
        failing_since=None if failing_since is None else in_utc(failing_since),
        disabled_at=None if disabled_at is None else in_utc(disabled_at),
        disabled_reason=row["disabled_reason"],
        created_at=in_utc(row["created_at"]),
        changed_at=in_utc(row["changed_at"]),
        waiting=row.get("waiting", 0),
    )
