"""`metering keys`."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.table import Table

from metering.cli.console import OUT, say
from metering.cli.running import with_database
from metering.config import Settings, read_settings
from metering.errors import NotFoundError
from metering.keys import ApiKey, KeyLimits, KeyRing, Scope
from metering.limits import LIMITS
from metering.store import migrate
from metering.store.pool import Database

keys = App(
    name="keys", help="Make, list and revoke API keys. Example: `metering keys create --name ci --scope USAGE_WRITE`"
)
Answer = TypeVar("Answer")


@keys.command
def create(
    *,
    name: str,
    scope: Annotated[list[Scope], Parameter(negative="", name_transform=lambda text: text)],
    account: Annotated[list[str] | None, Parameter(negative="")] = None,
    expires_at: datetime | None = None,
    default_source: str | None = None,
    events_per_second_max: int | None = None,
    burst_events_max: int | None = None,
    request_events_max: int | None = None,
    request_bytes_max: int | None = None,
) -> None:
    """Make a key and show its secret, this once. Nothing is limited unless it is said.

    Example: `metering keys create --name billing --scope USAGE_READ --scope CHARGES_READ`

    Parameters
    ----------
    name
        Who uses it.
    scope
        What it allows; give it several times for several. ADMIN allows everything.
    account
        Bind it to this account; give it several times for several. All accounts when left out.
    expires_at
        When it stops working, for example 2027-01-01T00:00:00+00:00.
    default_source
        The source of its events that name none.
    events_per_second_max
        How many events it may send a second in the long run; more is answered with 429.
    burst_events_max
        How many events it may send at once after it sent less; as many as in a second when left out.
    request_events_max
        How many events one request may have; more is answered with 413.
    request_bytes_max
        How many bytes the body of one request may have, decompressed; more is answered with 413.
    """
    limits = KeyLimits(
        events_per_second_max=events_per_second_max,
        burst_events_max=burst_events_max,
        request_events_max=request_events_max,
        request_bytes_max=request_bytes_max,
    )

    async def make(ring: KeyRing) -> tuple[ApiKey, str]:
        until = expires_at and expires_at.astimezone()
        return await ring.create(name, scope, account, until, default_source=default_source, limits=limits)

    key, secret = _with_ring(make)
    say(secret)
    OUT.print(f"Keep it: it is not shown again. It is listed as {key.prefix}.", style="dim")


@keys.command(name="list")
def list_keys() -> None:
    """List all keys, the newest first; secrets are not kept, so none are shown.

    Example: `metering keys list`
    """
    times = ("created", "expires", "last used", "revoked")
    table = Table("prefix", "name", "scopes", "accounts", "source", "limits", *times)
    for key in _with_ring(lambda ring: ring.list()):
        table.add_row(
            key.prefix,
            key.name,
            " ".join(sorted(scope.value for scope in key.scopes)),
            "all" if key.accounts is None else " ".join(sorted(key.accounts)),
            key.default_source or "",
            _shown(key.limits),
            *map(_time, (key.created_at, key.expires_at, key.last_used_at, key.revoked_at)),
        )
    OUT.print(table)


def _time(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"


def _shown(limits: KeyLimits) -> str:
    """The limits of a key, as far as it has any."""
    named = {
        "{:,} events/s": limits.events_per_second_max,
        "burst {:,} events": limits.burst_events_max,
        "{:,} events/request": limits.request_events_max,
        "{:,} bytes/request": limits.request_bytes_max,
    }
    return ", ".join(form.format(value) for form, value in named.items() if value is not None)


@keys.command
def rotate(
    prefix: str,
    *,
    overlap_hours: Annotated[int, Parameter(validator=Number(gte=0, lte=LIMITS.key_overlap_days_max * 24))] = 24,
) -> None:
    """Make a key in the place of another one and show its secret, this once. It may do the same; the old one goes on for a while.

    Example: `metering keys rotate mk_1a2b3c4d --overlap-hours 48`

    Parameters
    ----------
    prefix
        How `metering keys list` names the old one.
    overlap_hours
        How long the old one goes on, if it does not end before.
    """
    overlap = timedelta(hours=overlap_hours)
    made = _with_ring(lambda ring: ring.rotate(prefix, overlap))
    if made is None:
        raise NotFoundError(f"There is no key {prefix!r}; `metering keys list` shows them.")
    key, secret = made
    say(secret)
    OUT.print(f"Keep it: it is not shown again. It is listed as {key.prefix}, and replaces {prefix}.", style="dim")


@keys.command
def revoke(prefix: str) -> None:
    """Revoke a key: within seconds no process takes it any more.

    Example: `metering keys revoke mk_1a2b3c4d`

    Parameters
    ----------
    prefix
        How `metering keys list` names it.
    """
    key = _with_ring(lambda ring: ring.revoke(prefix))
    if key is None:
        raise NotFoundError(f"There is no key {prefix!r}; `metering keys list` shows them.")
    say(f"{key.prefix} ({key.name}) is revoked.")


def _with_ring(ask: Callable[[KeyRing], Awaitable[Answer]]) -> Answer:
    async def answer(settings: Settings) -> Answer:
        database = await Database.connect(settings, LIMITS)
        try:
            return await ask(KeyRing(database, settings.key_secret))
        finally:
            await database.close()

    with with_database(read_settings()) as settings:
        assert settings.database_url is not None, "with_database gives an address"
        migrate.upgrade(settings.database_url)
        return asyncio.run(answer(settings))
