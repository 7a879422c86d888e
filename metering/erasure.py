"""Erasing a user of an account: what was used stays, and nobody can say any more that it was this user. See docs/adr/0027.

The user's usage is given to somebody who never was, named by chance, in events and in rollups alike: so every figure stays what
it was, distinct users too, but for what is asked by user. What is said of the user besides is deleted. It is one transaction:
who is killed in the middle has erased nothing, and whoever erases again finds nothing left.
"""

import asyncio
import re
import secrets
from datetime import datetime
from json import dumps
from typing import Final

import msgspec

from metering.attribute_facts import mark_dirty
from metering.audit import AuditAction, AuditKind, note
from metering.errors import ConflictError, InvalidInputError
from metering.health.scorer import SCORER_LOCK
from metering.input_faults import name_issues
from metering.keys import Caller, Scope
from metering.limits import LIMITS, Limits
from metering.rollups.refresh import REFRESHER_LOCK
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.renaming import rename_in_rollups
from metering.store.turns import alone

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

    Raises InvalidInputError; ConflictError where rollups or scores are being made for longer than is waited; ForbiddenError.
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
        # While nobody makes rollups of events, or scores of what was measured before: they would be kept afterwards.
        async with alone(database, REFRESHER_LOCK) as connection, alone(database, SCORER_LOCK) as scorer:
            if connection is not None and scorer is not None:
                return await _erase_alone(database, connection, account, user, by)
        await asyncio.sleep(_LOOK_SECONDS)
    raise ConflictError(
        "Rollups or scores are being made at this moment, which takes long; nothing was erased. Try again later."
    )


async def _erase_alone(database: Database, connection: Connection, account: str, user: str, by: str) -> int:
    begun: datetime = await connection.fetchval(sql("subscriptions.read_clock"))
    nobody, erased, left = _nobody(), 0, True
    while left:
        # Once again for what was being written when we began; who comes back afterwards is somebody new.
        async with connection.transaction():
            erased += await _rename(database, connection, account, user, nobody)
            await _forget(connection, account, user)
            told = {"events": erased}
            await note(connection, by, AuditKind.USER, AuditAction.ERASED, None, told, account=account)
        left = await connection.fetchval(
            sql("erasure.has_events"), account, user, begun, timeout=_STATEMENT_SECONDS_MAX
        )
    return erased


async def _rename(database: Database, connection: Connection, account: str, user: str, nobody: str) -> int:
    """Give the user's usage to nobody; say how many events there were."""
    await connection.execute(sql("erasure.take_out_any"))
    rows = await connection.fetch(sql("erasure.list_devices"), account, user, timeout=_STATEMENT_SECONDS_MAX)
    devices = {row["device"]: _nobody() for row in rows}
    names = [account, user, nobody, msgspec.json.encode(devices).decode()]
    count: int = await connection.fetchval(sql("erasure.rename_events"), *names, timeout=_STATEMENT_SECONDS_MAX)
    await connection.execute(sql("erasure.forget_earlier_attributes"), account, user, timeout=_STATEMENT_SECONDS_MAX)
    await connection.execute(sql("erasure.rename_corrections"), *names, timeout=_STATEMENT_SECONDS_MAX)
    await rename_in_rollups(connection, database, account, {"user": {user: nobody}, "device": devices})
    return count


async def _forget(connection: Connection, account: str, user: str) -> None:
    """Delete what is said of the user besides usage."""
    # Whoever changes the quarantine has its turn first.
    await connection.execute(sql("quarantine.enter"), 0, 0)
    await connection.execute(sql("erasure.forget_rejected"), _named("user", user), _named("account", account))
    for statement in (
        sql("erasure.forget_signals"),
        sql("erasure.forget_attributes"),
        sql("erasure.forget_overrides"),
        sql("erasure.forget_measured"),
        sql("erasure.forget_scores"),
        sql("erasure.forget_alerts"),
        sql("erasure.forget_warnings"),
        sql("erasure.forget_in_measured"),
        sql("erasure.forget_audience"),
        sql("erasure.forget_notifications"),
    ):
        await connection.execute(statement, account, user)
    await mark_dirty(connection, account)


def _nobody() -> str:
    """A name that nobody has, and that is made of nothing."""
    return f"erased-{secrets.token_hex(_NAME_BYTES)}"


def _named(field: str, value: str) -> str:
    """What finds a field of this value in JSON, as a regular expression: written plainly, or with escapes."""
    written = sorted({dumps(value, ensure_ascii=ascii_only) for ascii_only in (True, False)})
    either = "|".join(_SIGN.sub(r"\\\1", each) for each in written)
    return rf'"{field}"\s*:\s*({either})'
