"""Erasing a user of an account: what was used stays, and nobody can say any more that it was this user. See docs/adr/0027.

The user's usage is given to somebody who never was, named by chance, in events and in rollups alike: so every figure stays what
it was, distinct users too, but for what is asked by user. What is said of the user besides is deleted. It is one transaction:
who is killed in the middle has erased nothing, and whoever erases again finds nothing left.
"""

import asyncio
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from json import dumps
from typing import Final

import msgspec

from metering.alerts.evaluate import EVALUATOR_LOCK
from metering.attribute_facts import mark_dirty
from metering.audit import AuditAction, AuditKind, note
from metering.errors import ConflictError, InvalidInputError
from metering.health.scorer import SCORER_LOCK
from metering.input_faults import name_issues
from metering.keys import Caller, Scope
from metering.limits import LIMITS, Limits
from metering.rollups.refresh import REFRESHER_LOCK
from metering.store.event_log import writers_at_work
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.renaming import rename_in_rollups
from metering.store.turns import alone, ended

_BY_COMMAND: Final = "metering erase-user"
_NAME_BYTES: Final = 12
# The refresher has its turn for as long as there is something to do, and a moment before and after.
_LOOK_SECONDS: Final = 0.1
# Years of a user's events.
_STATEMENT_SECONDS_MAX: Final = 3_600
# A sign that regular expressions of PostgreSQL do not take for itself.
_SIGN: Final = re.compile(r"([^\w\s])")


async def erase_user(database: Database, account: str, user: str, key: Caller, limits: Limits) -> int:
    """Erase a user, and say how many events were its; none where there is no such user, or no more.

    Raises InvalidInputError, ForbiddenError; ConflictError where rollups, scores or alerts are being made for longer than is
    waited.
    """
    key.require(Scope.ADMIN)
    return await _erase(database, account, user, limits, by=key.signature)


async def erase_user_by_command(database: Database, account: str, user: str, limits: Limits = LIMITS) -> int:
    """The same, by who has the command line."""
    return await _erase(database, account, user, limits, by=_BY_COMMAND)


async def _erase(database: Database, account: str, user: str, limits: Limits, *, by: str) -> int:
    issues = [*name_issues(account, ("input", "account"), limits), *name_issues(user, ("input", "key"), limits)]
    if issues:
        raise InvalidInputError(issues)
    for _ in range(round(limits.erasure_wait_seconds_max / _LOOK_SECONDS)):
        # While nobody makes rollups of events, or scores or alerts of what there was before: they would be kept afterwards.
        async with (
            alone(database, REFRESHER_LOCK) as connection,
            alone(database, SCORER_LOCK) as scorer,
            alone(database, EVALUATOR_LOCK) as evaluator,
        ):
            if connection is not None and scorer is not None and evaluator is not None:
                return await _erase_alone(database, connection, account, user, by)
        await asyncio.sleep(_LOOK_SECONDS)
    raise ConflictError(
        "Rollups, scores or alerts are being made at this moment, which takes long; nothing was erased. Try again later."
    )


async def _erase_alone(database: Database, connection: Connection, account: str, user: str, by: str) -> int:
    begun: datetime = await connection.fetchval(sql("subscriptions.read_clock"))
    nobody, erased, left = _nobody(), 0, True
    # A device has one name from now on, however often it is looked for.
    devices: dict[str, str] = {}
    while left:
        # Once again for what was being written when we began; who comes back afterwards is somebody new.
        async with connection.transaction():
            found = await _own_devices(connection, account, user)
            devices |= {device: devices.get(device) or _nobody() for device in found}
            renamed = {device: devices[device] for device in found}
            erased += await _rename(database, connection, account, {"user": {user: nobody}, "device": renamed})
            await _forget(connection, account, user, list(devices))
            told = {"events": erased}
            await note(connection, by, AuditKind.USER, AuditAction.ERASED, None, told, account=account)
        # Who corrects an event writes back what it read before us, and what was taken in may not be committed yet.
        await ended(partial(writers_at_work, connection))
        left = await connection.fetchval(
            sql("erasure.has_events"), account, user, begun, timeout=_STATEMENT_SECONDS_MAX
        )
    return erased


async def _own_devices(connection: Connection, account: str, user: str) -> list[str]:
    """The devices that are the user's alone."""
    await connection.execute(sql("erasure.take_out_any"))
    rows = await connection.fetch(sql("erasure.list_devices"), account, user, timeout=_STATEMENT_SECONDS_MAX)
    return [row["device"] for row in rows]


async def _rename(
    database: Database, connection: Connection, account: str, names: Mapping[str, Mapping[str, str]]
) -> int:
    """Give the user's usage to nobody; say how many events there were. Names are by dimension, old by new."""
    ((user, nobody),) = names["user"].items()
    given = [account, user, nobody, msgspec.json.encode(names["device"]).decode()]
    await connection.execute(sql("erasure.forget_corrected_attributes"), account, user, timeout=_STATEMENT_SECONDS_MAX)
    count: int = await connection.fetchval(sql("erasure.rename_events"), *given, timeout=_STATEMENT_SECONDS_MAX)
    await connection.execute(sql("erasure.forget_earlier_attributes"), account, user, timeout=_STATEMENT_SECONDS_MAX)
    await connection.execute(sql("erasure.rename_corrections"), *given, timeout=_STATEMENT_SECONDS_MAX)
    await connection.execute(sql("erasure.rename_levels"), *given, timeout=_STATEMENT_SECONDS_MAX)
    await rename_in_rollups(connection, database, account, names)
    return count


async def _forget(connection: Connection, account: str, user: str, devices: Sequence[str]) -> None:
    """Delete what is said of the user besides usage."""
    # Whoever changes the quarantine has its turn first.
    await connection.execute(sql("quarantine.enter"), 0, 0)
    of_account = _named("account", account)
    for field, names in (("user", [user]), ("device", devices)):
        for name in names:
            await connection.execute(sql("erasure.forget_rejected"), _named(field, name), of_account)
    for statement in (
        sql("erasure.forget_signals"),
        sql("erasure.forget_attributes"),
        sql("erasure.forget_overrides"),
        sql("erasure.forget_measured"),
        sql("erasure.forget_scores"),
        sql("erasure.forget_warnings"),
        sql("erasure.forget_in_measured"),
        sql("erasure.forget_audience"),
    ):
        await connection.execute(statement, account, user)
    for statement in (sql("erasure.forget_alerts"), sql("erasure.forget_notifications")):
        await connection.execute(statement, account, user, devices)
    await mark_dirty(connection, account)


def _nobody() -> str:
    """A name that nobody has, and that is made of nothing."""
    return f"erased-{secrets.token_hex(_NAME_BYTES)}"


def _named(field: str, value: str) -> str:
    """What finds a field of this value in JSON, as a regular expression: written plainly, or with escapes."""
    written = sorted({dumps(value, ensure_ascii=ascii_only) for ascii_only in (True, False)})
    either = "|".join(_SIGN.sub(r"\\\1", each) for each in written)
    return rf'"{field}"\s*:\s*({either})'
