"""Sending what lies in the outbox: one process at a time, many requests at once, each subject in its order.

Who sends holds an advisory lock in the session on which it notes what became of each delivery. Nothing else says that a
delivery is being sent: when the process dies its session ends, the next one finds all that was under way still pending, and
sends it again, by the same id. And who lost the session can note nothing any more.

Of one subject at a destination only the first notification that is not finished is ever sent; so a later one never
overtakes it, and one that fails holds back its own subject only, there only.
"""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from metering.errors import VaultError
from metering.events import in_utc
from metering.limits import Limits
from metering.loops import NOTED_EVERY, this_process, traced_run
from metering.outbox import event as events
from metering.outbox import slack
from metering.outbox.courier import Courier
from metering.outbox.destinations import DestinationKind
from metering.outbox.event import OutboxEvent, Published, cloud_event
from metering.outbox.publish import publish
from metering.outbox.schedule import Again, Answer, Delivered, GivenUp, Gone, Verdict, asked_seconds, verdict
from metering.outbox.signature import signed_headers
from metering.outbox.vault import Vault
from metering.spans import Kind, Span, begin, here
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.turns import alone
from metering.telemetry import logger

DISPATCHER_LOCK: Final = 0x6D65_7472_6F75_7462  # "metroutb"
DISABLED_TYPE: Final = "destination.disabled"
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_FORGOTTEN_AT_ONCE: Final = 1_000


class _Due(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that is to be sent."""

    destination_id: int
    destination: str
    kind: DestinationKind
    encrypted: bytes
    attempts: int
    first_attempt_at: datetime | None
    event: Published

    @property
    def name(self) -> tuple[int, int]:
        """What names it."""
        return self.destination_id, self.event.sequence


class _Attempted(msgspec.Struct, frozen=True):
    """An attempt that was made."""

    due: _Due
    at: datetime
    milliseconds: int
    answer: Answer


class Dispatcher:
    """Sends what is due, as long as it is the only one who does."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        courier: Courier,
        limits: Limits,
        clock: Callable[[], datetime],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._vault = vault
        self._courier = courier
        self._limits = limits
        self._clock = clock
        self._chance = chance
        self._process = this_process()
        self._noted_at = _NEVER
        self._sending: dict[tuple[int, int], asyncio.Task[_Attempted]] = {}

    async def run(self, woken: asyncio.Event | None = None, seconds: float = 0.0) -> bool:
        """Send what is due until nothing is; False where another process does.

        With `woken` it stays, and looks again when that is set, or after so many seconds; until it is cancelled.
        """
        async with alone(self._database, DISPATCHER_LOCK) as connection:
            if connection is None:
                return False
            # That it goes on is noted at once.
            self._noted_at = _NEVER
            try:
                while True:
                    with traced_run("deliveries"):
                        await self._turn(connection)
                    if self._sending:
                        await self._wait(woken, seconds)
                    elif woken is None:
                        return True
                    else:
                        await self._rest(woken, seconds)
            finally:
                await self._give_up()

    async def _turn(self, connection: Connection) -> None:
        """Note what has ended, begin what is due, and note that it was done."""
        now = self._clock()
        ended = [name for name, task in self._sending.items() if task.done()]
        for name in ended:
            await self._record(connection, self._sending.pop(name).result())
        room = self._limits.deliveries_max - len(self._sending)
        if room > 0:
            await self._begin(connection, now, room)
        if now >= self._noted_at + NOTED_EVERY:
            await connection.execute(sql("loops.note_run"), "deliveries", self._clock(), now, self._process)
            self._noted_at = now

    async def _begin(self, connection: Connection, now: datetime, room: int) -> None:
        """Begin to send what is due, so much at most."""
        sending = list(self._sending)
        rows = await connection.fetch(
            sql("deliveries.find_due"),
            now,
            self._limits.destination_deliveries_max,
            room,
            [destination for destination, _ in sending],
            [sequence for _, sequence in sending],
        )
        for row in rows:
            due = _due(row)
            self._sending[due.name] = asyncio.create_task(self._attempt(due), name="delivery")

    async def _wait(self, woken: asyncio.Event | None, seconds: float) -> None:
        """Until a request ends; or until it is time to look for what else is due."""
        waiting: set[asyncio.Task[Any]] = set(self._sending.values())
        if woken is None:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return
        waking = asyncio.create_task(woken.wait(), name="woken")
        try:
            await asyncio.wait({*waiting, waking}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()
        woken.clear()

    async def _rest(self, woken: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await woken.wait()
        except TimeoutError:
            return
        woken.clear()

    async def _give_up(self) -> None:
        """Break off what is being sent: it is pending still."""
        for task in self._sending.values():
            task.cancel()
        await asyncio.gather(*self._sending.values(), return_exceptions=True)
        self._sending.clear()

    # ---------------------------------------------------------------- one attempt

    async def _attempt(self, due: _Due) -> _Attempted:
        """Send once. Whatever goes wrong is an attempt that failed: else one delivery would hold up all others for ever."""
        at = self._clock()
        started = asyncio.get_running_loop().time()
        try:
            with begin("delivery", {"metering.attempt": due.attempts + 1}, Kind.CLIENT) as span:
                answer = await self._sent(due, at)
                if span is not None:
                    _tell(span, answer)
        except Exception as error:  # noqa: BLE001 - it is logged, and stands in the log of deliveries
            logger().error("delivery_broken", destination=due.destination, exc_info=error)
            answer = Answer(fault=type(error).__name__)
        return _Attempted(due, at, round((asyncio.get_running_loop().time() - started) * 1_000), answer)

    async def _sent(self, due: _Due, at: datetime) -> Answer:
        try:
            opened = await self._vault.decrypted(due.destination, due.encrypted)
        except VaultError as error:
            return Answer(fault=str(error))
        if due.kind is DestinationKind.SLACK:
            headers, body = {"Content-Type": slack.CONTENT_TYPE}, slack.slack_message(due.event)
        else:
            body = cloud_event(due.event)
            timestamp = int(at.timestamp())
            signed = signed_headers(opened.in_use(timestamp), str(due.event.id), timestamp, body)
            headers = {"Content-Type": events.CONTENT_TYPE, **signed}
            if opened.bearer is not None:
                headers["Authorization"] = f"Bearer {opened.bearer}"
            if (span := here()) is not None:
                headers["traceparent"] = span.traceparent
        return await self._courier.send(opened.url, headers, body)

    async def _record(self, connection: Connection, made: _Attempted) -> None:
        """Note an attempt, and what follows from it, in one transaction."""
        due, answer = made.due, made.answer
        follows = verdict(due.attempts + 1, answer, self._chance())
        # The schedule goes on from where an attempt ended; one that took long is not tried again the sooner for it.
        now = self._clock()
        async with connection.transaction():
            held = await connection.fetchval(sql("destinations.hold_destination"), due.destination_id)
            if held is None:
                # It was deleted meanwhile, and the log of it with that.
                return
            attempts = await connection.fetchval(sql("deliveries.hold_pending"), *due.name)
            if attempts is None:
                # Its notification was forgotten meanwhile, and the same of that.
                return
            await connection.execute(
                sql("deliveries.record_attempt"), *due.name, made.at, made.milliseconds, answer.status, answer.fault
            )
            if await self._is_of_before(due, follows, held, attempts):
                return
            await connection.execute(
                sql("deliveries.finish"),
                *due.name,
                _STATES.get(type(follows), "PENDING"),
                due.attempts + 1,
                made.at,
                now + timedelta(seconds=follows.seconds) if isinstance(follows, Again) else None,
            )
            if isinstance(follows, Delivered):
                await connection.execute(sql("destinations.note_success"), due.destination_id)
                return
            asked = asked_seconds(answer)
            not_before = now + timedelta(seconds=asked) if asked else None
            since = await connection.fetchval(sql("destinations.note_failure"), due.destination_id, made.at, not_before)
            reason = _reason_to_stop(follows, in_utc(since), due.first_attempt_at)
            if reason is not None:
                await self._disable(connection, due, reason, now)
        logger().warning(
            "delivery_failed",
            destination=due.destination,
            notification=str(due.event.id),
            attempts=due.attempts + 1,
            status=answer.status,
            fault=answer.fault,
        )

    async def _is_of_before(self, due: _Due, follows: Verdict, held: bytes, attempts: int) -> bool:
        """Whether an answer says nothing of the destination as it is put now, or of a delivery that began anew meanwhile.

        What was taken was taken, unless by another address.
        """
        if not isinstance(follows, Delivered):
            return held != due.encrypted or attempts != due.attempts
        return held != due.encrypted and await self._url(due, held) != await self._url(due, due.encrypted)

    async def _url(self, due: _Due, encrypted: bytes) -> str | None:
        """An address of the destination; None where it cannot be opened."""
        try:
            return (await self._vault.decrypted(due.destination, encrypted)).url
        except VaultError:
            return None

    async def _disable(self, connection: Connection, due: _Due, reason: str, now: datetime) -> None:
        """Send nothing there any more, and say so: in the log, in the list of destinations, and to all others."""
        given_up = await connection.fetchval(sql("destinations.give_up"), due.destination_id, now, reason)
        if given_up is None:
            return
        data = {"destination": due.destination, "kind": due.kind.value, "reason": reason}
        told = OutboxEvent(type=DISABLED_TYPE, subject=f"destination/{due.destination}", data=data)
        await publish(connection, told, now)
        logger().error("destination_disabled", destination=due.destination, reason=reason)


def _tell(span: Span, answer: Answer) -> None:
    """How an attempt ended; what was answered besides its status is nobody's concern."""
    if answer.status is None:
        span.fail("unanswered")
        return
    span.tell({"http.response.status_code": answer.status})
    if not isinstance(verdict(1, answer, 0.0), Delivered):
        span.fail(str(answer.status))


# A receiver that is gone leaves what waits waiting: the destination is given up, and may be put again.
_STATES: Final[dict[type, str]] = {Delivered: "DELIVERED", GivenUp: "FAILED"}


def _reason_to_stop(
    follows: Again | GivenUp | Gone, failing_since: datetime, first_attempt_at: datetime | None
) -> str | None:
    """Why nothing is sent to a destination any more; None where it is tried further."""
    if isinstance(follows, Gone):
        return "It answered 410: it wants nothing any more."
    if isinstance(follows, GivenUp) and first_attempt_at is not None and failing_since <= first_attempt_at:
        return f"It has taken nothing since {failing_since:%FT%TZ}."
    return None


def _due(row: Any) -> _Due:
    return _Due(
        destination_id=row["destination_id"],
        destination=row["key"],
        kind=DestinationKind(row["kind"]),
        encrypted=row["encrypted"],
        attempts=row["attempts"],
        first_attempt_at=None if row["first_attempt_at"] is None else in_utc(row["first_attempt_at"]),
        event=Published(
            id=row["id"],
            sequence=row["sequence"],
            type=row["type"],
            subject=row["subject"],
            data=row["data"],
            published_at=in_utc(row["published_at"]),
        ),
    )


async def forget_older(database: Database, notifications_before: datetime, alerts_before: datetime) -> int:
    """Forget notifications, with the log of their deliveries, and closed alerts that are older; say how many."""
    forgotten = 0
    async with database.connection() as connection:
        for statement, before in (
            (sql("outbox.forget_older"), notifications_before),
            (sql("alerts.forget_older"), alerts_before),
        ):
            while True:
                count = await connection.fetchval(statement, before, _FORGOTTEN_AT_ONCE)
                forgotten += count
                if count < _FORGOTTEN_AT_ONCE:
                    break
    return forgotten
