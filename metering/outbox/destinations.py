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

from metering.audit import sign
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
# As RFC 6750 has it: so it ends no header, and needs no quotes.
_BEARER_FORM: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_TYPE_FORM: Final = re.compile(r"[a-z][a-z_]*(\.[a-z][a-z_]*)*")


class DestinationKind(Enum):
    """How what is sent there is written."""

    WEBHOOK = "WEBHOOK"
    SLACK = "SLACK"


class DestinationOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A destination as it is put. Without an address, or a bearer, a known one keeps its own; an empty bearer is none."""

    key: str
    kind: DestinationKind
    url: str | None
    # Which types it takes: `alert.raised`, or `alert` for all whose names begin so; none means all.
    types: tuple[str, ...] = ()
    enabled: bool = True
    # What a webhook asks for besides the signature: sent as `Authorization: Bearer`.
    bearer: str | None = None


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """A destination as it is shown."""

    id: int
    key: str
    kind: DestinationKind
    address: str
    types: tuple[str, ...]
    has_bearer: bool
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


class Deleted(msgspec.Struct, frozen=True):
    """A destination that is gone, and how many notifications were waiting for it."""

    destination: Destination
    waiting: int


class Destinations:
    """Puts, rotates, deletes and lists."""

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
            again = await self._vault.encrypted(name, msgspec.structs.replace(known, secrets=(made, *kept)))
            changed = await connection.fetchrow(
                sql("destinations.encrypt_destination"), row["id"], again, key.signature
            )
        return Made(_destination(changed), secret_text(made.secret))

    async def delete(self, name: str, key: Caller) -> Deleted:
        """Forget a destination, with the log of its deliveries: what waits there is not sent any more.

        Raises NotFoundError.
        """
        key.require(Scope.ADMIN)
        async with self._database.transaction() as connection:
            await sign(connection, key.signature)
            # Whoever notes an attempt, or publishes something for it, holds the row: so they are through, or find none.
            row = None if "\0" in name else await connection.fetchrow(sql("destinations.lock_destination"), name)
            if row is None:
                raise NotFoundError(f"There is no destination {name!r:.60}.")
            waiting: int = await connection.fetchval(sql("deliveries.forget_all"), row["id"])
            await connection.execute(sql("destinations.delete_destination"), row["id"])
        return Deleted(_destination(row), waiting)

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
        bearer = order.bearer or None
        row = await connection.fetchrow(
            sql("destinations.insert_destination"),
            order.key,
            order.kind.value,
            target_of(order.url).shown,
            await self._vault.encrypted(order.key, Contents(order.url, made, bearer)),
            list(order.types),
            order.enabled,
            by,
            bearer is not None,
        )
        if row is None:
            raise ConflictError(f"The destination {order.key!r:.60} was made just now by somebody else.")
        return Made(_destination(row), secret_text(made[0].secret) if made else None)

    async def _changed(self, connection: Connection, row: Any, order: DestinationOrder, by: str) -> Made:
        if row["kind"] != order.kind.value:
            raise ConflictError(
                f"The destination {order.key!r:.60} is there and of the kind {row['kind']}; put one with another key."
            )
        address, encrypted, has_bearer = row["address"], row["encrypted"], row["has_bearer"]
        made: tuple[SigningSecret, ...] = ()
        if order.url is not None or order.bearer is not None:
            contents, made = await self._contents(row, order)
            encrypted = await self._vault.encrypted(order.key, contents)
            address, has_bearer = target_of(contents.url).shown, contents.bearer is not None
        changed = await connection.fetchrow(
            sql("destinations.change_destination"),
            row["id"],
            address,
            encrypted,
            list(order.types),
            order.enabled,
            by,
            has_bearer,
        )
        await connection.execute(sql("deliveries.make_due"), row["id"], self._clock())
        return Made(_destination(changed), secret_text(made[0].secret) if made else None)

    async def _contents(self, row: Any, order: DestinationOrder) -> tuple[Contents, tuple[SigningSecret, ...]]:
        """What is to be kept of a known destination, and the secrets that had to be made for it.

        Raises InvalidInputError for a bearer that would go to another host than it was given for; ConflictError where what
        is kept cannot be opened, and is not given anew.
        """
        bearer = order.bearer or None
        try:
            known = await self._vault.decrypted(order.key, row["encrypted"])
        except VaultError as error:
            if order.url is None or (row["has_bearer"] and order.bearer is None):
                raise ConflictError(f"{error} Its bearer, too, where it has one.") from error
            # What was signed with is lost with the secret of the service; so there is a new one, which is told.
            made = _new_secrets(order.kind)
            return Contents(order.url, made, bearer), made
        url = known.url if order.url is None else order.url
        if order.bearer is None:
            bearer = known.bearer
            # The start of an address is whom it is sent to: what shows of it.
            if bearer is not None and target_of(url).shown != target_of(known.url).shown:
                message = "This is another host, which is not sent the bearer of the one before: give its own, or an empty one."
                raise InvalidInputError([InputIssue(("input", "bearer"), message)])
        return Contents(url, known.secrets, bearer), ()

    def _issues(self, order: DestinationOrder) -> Iterator[InputIssue]:
        if not _KEY_FORM.fullmatch(order.key) or len(order.key) > self._limits.name_chars_max:
            message = (
                f"A destination's key has 1 to {self._limits.name_chars_max} letters, digits and the signs _ . : - "
                "and begins with a letter or a digit; letters are those of ASCII."
            )
            yield InputIssue(("input", "key"), message)
        if order.url is not None:
            yield from (InputIssue(("input", "url"), fault) for fault in url_faults(order.url, self._allowed))
        if order.bearer:
            yield from (InputIssue(("input", "bearer"), fault) for fault in self._bearer_faults(order))
        if len(order.types) > self._limits.destination_types_max:
            message = f"{len(order.types):,} types; {self._limits.destination_types_max:,} are taken."
            yield InputIssue(("input", "types"), message)
        for place, type_name in enumerate(order.types):
            if not _TYPE_FORM.fullmatch(type_name) or len(type_name) > self._limits.name_chars_max:
                message = "This is no type such as alert.raised, or the beginning of some such as alert."
                yield InputIssue(("input", "types", str(place)), message)

    def _bearer_faults(self, order: DestinationOrder) -> Iterator[str]:
        """What is wrong with a bearer; none of it is told."""
        if order.kind is not DestinationKind.WEBHOOK:
            yield f"Only webhooks are sent a bearer; the address of a destination of the kind {order.kind.value} is the secret."
        chars_max = self._limits.destination_bearer_chars_max
        if len(order.bearer or "") > chars_max or not _BEARER_FORM.fullmatch(order.bearer or ""):
            yield f"A bearer has 1 to {chars_max:,} letters, digits and the signs . _ ~ + / - and = at its end; without `Bearer`."


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
        has_bearer=row["has_bearer"],
        enabled=row["enabled"],
        failing_since=None if failing_since is None else in_utc(failing_since),
        disabled_at=None if disabled_at is None else in_utc(disabled_at),
        disabled_reason=row["disabled_reason"],
        created_at=in_utc(row["created_at"]),
        changed_at=in_utc(row["changed_at"]),
        waiting=row.get("waiting", 0),
    )
