"""Rollups are always exact: whatever was recorded, rolled up, broken off and started anew, every answer is the naive one.

The machine below does what a service lives through, in any order, and compares each answer with a few lines of Python
over the events that were acknowledged. The races that it cannot meet by itself are staged one by one underneath.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from functools import partial
from itertools import pairwise
from typing import Any, Final, TypeVar

import asyncpg
import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from metering.config import Settings
from metering.corrections import CorrectionOrder, correct_event
from metering.errors import ConflictError, DatabaseUnavailableError
from metering.events import AdmittedEvent, Dimension, UsageEvent
from metering.ingest.admit import Admission, admit
from metering.ingest.batch import Writer
from metering.ingest.bodies import PlainEvents
from metering.ingest.receipts import Receipt
from metering.ingest.refusals import Refusals
from metering.ingest.write import Submission
from metering.keys import ApiKey, Scope
from metering.limits import LIMITS
from metering.periods import Bucket, Period, bucket_bounds, zone_of
from metering.questions import GroupOrder, Question, ValueFilter, ask
from metering.reach import NOTHING, Reach
from metering.rollups.read import (
    After,
    Course,
    Key,
    Total,
    read_distinct,
    read_groups,
    read_series,
    read_totals,
)
from metering.rollups.refresh import Refreshed, Refresher
from metering.store.event_log import EventLog
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from rating.exact import plain
from tests.conftest import Server
from tests.machines import play_machine
from tests.metering.catalog import play

START: Final = datetime(2026, 3, 27, 9, 30, tzinfo=UTC)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EVERYTHING: Final = Period(datetime(2024, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC))
MICROSECOND: Final = timedelta.resolution
DAY_SECONDS: Final = 86_400
# Offsets of half and three quarters of an hour, and clocks that change, one of them by half an hour.
ZONES: Final = ("UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/New_York", "America/St_Johns", "Australia/Lord_Howe")
# How long a period may be for its buckets to stay few.
LONGEST: Final = {
    Bucket.MINUTE: timedelta(hours=3),
    Bucket.HOUR: timedelta(days=6),
    Bucket.DAY: timedelta(days=100),
    Bucket.WEEK: timedelta(days=800),
    Bucket.MONTH: timedelta(days=800),
}
# Longer than anything here takes: reached only by a test that fails.
PATIENCE_SECONDS: Final = 60

Result = TypeVar("Result")


# ---------------------------------------------------------------- what is recorded and asked


class Moment(msgspec.Struct, frozen=True):
    """An instant, told from a clock: so long before it, then down to an edge, then so many microseconds on."""

    age_seconds: int
    edge_seconds: int
    microseconds: int

    def at(self, clock: datetime) -> datetime:
        """The instant."""
        at = clock - timedelta(seconds=self.age_seconds)
        if self.edge_seconds:
            at -= (at - EPOCH) % timedelta(seconds=self.edge_seconds)
        return at + self.microseconds * MICROSECOND


class Draft(msgspec.Struct, frozen=True):
    """An event before its time is known."""

    values: dict[str, str | None]
    quantity: Decimal
    moment: Moment
    # Instead of a moment of its own: when this one of the recorded events happened, so that hours are met again.
    beside: int | None


VALUES: Final[Mapping[Dimension, tuple[str | None, ...]]] = {
    Dimension.ACCOUNT: ("a", "b"),
    Dimension.SUBSCRIPTION: (None, "s"),
    Dimension.USER: (None, "x", "y"),
    Dimension.DEVICE: (None, "d"),
    Dimension.PRODUCT: ("p", "q"),
    Dimension.FEATURE: (None, "f"),
    Dimension.CLASSIFICATION: (None, "c"),
    Dimension.UNIT: ("call", "byte"),
}
_MINUTES: Final = 60
ages = st.one_of(
    st.integers(-50 * _MINUTES, 200 * _MINUTES),
    # Where the tail is, and where it ends.
    st.integers(0, 20 * _MINUTES),
    st.integers(-5, 2 * _MINUTES),
    st.integers(0, 4 * DAY_SECONDS),
    st.builds(
        lambda days, seconds: days * DAY_SECONDS + seconds,
        st.sampled_from([8, 45, 399, 400]),
        st.integers(0, DAY_SECONDS),
    ),
)
moments = st.builds(
    Moment, ages, st.sampled_from([0, 0, 60, 900, 3600, DAY_SECONDS]), st.sampled_from([0, 0, -1, 1, 123_456])
)
quantities = st.sampled_from(
    [Decimal(text) for text in ("1", "1", "0.1", "0", "-2.5", "1E-18", "99999999999999999999.999999999999999999")]
)
drafts = st.builds(
    Draft,
    st.fixed_dictionaries({dimension.value: st.sampled_from(values) for dimension, values in VALUES.items()}),
    quantities,
    moments,
    st.one_of(st.none(), st.integers(0, 99)),
)
corrections = st.dictionaries(
    st.sampled_from(sorted({dimension.value for dimension in VALUES} - {"account"} | {"quantity"})),
    st.none(),
    min_size=1,
).flatmap(
    lambda names: st.fixed_dictionaries(
        {name: quantities if name == "quantity" else st.sampled_from(VALUES[Dimension(name)]) for name in names}
    )
)
filters = st.sampled_from(Dimension).flatmap(
    lambda dimension: st.tuples(
        st.just(dimension),
        st.builds(
            ValueFilter,
            st.lists(st.sampled_from([*VALUES[dimension], None, "nobody"]), max_size=3).map(tuple),
            st.booleans(),
        ),
    )
)
orders = st.builds(
    GroupOrder, st.sampled_from(["KEY", "QUANTITY", "EVENTS"]), st.booleans(), st.sampled_from([None, "call", "byte"])
)


@st.composite
def questions(draw: st.DrawFn, clock: datetime) -> tuple[Question, Bucket]:
    """A question, and a bucket in which its series stays short."""
    bounds = sorted({draw(moments).at(clock), draw(moments).at(clock)})
    period = Period(bounds[0], bounds[-1] + MICROSECOND)
    short_enough = [bucket for bucket in Bucket if period.end - period.start <= LONGEST[bucket]]
    question = ask(
        period=period,
        zone_name=draw(st.sampled_from(ZONES)),
        group_by=draw(st.lists(st.sampled_from(Dimension), max_size=3, unique=True)),
        filters=dict(draw(st.lists(filters, max_size=2))),
        limits=LIMITS,
    )
    question = msgspec.structs.replace(question, extremes=draw(st.booleans()))
    return question, draw(st.sampled_from(short_enough))


ALL_ROWS: Final = Reach(None)
# What a caller may see; mostly everything.
reaches = st.sampled_from(
    [
        *[ALL_ROWS] * 4,
        NOTHING,
        *(Reach(frozenset(accounts)) for accounts in ("a", "b", "ab")),
        Reach(frozenset("a"), frozenset("s")),
        Reach(frozenset("ab"), user="x"),
        Reach(frozenset("b"), frozenset("s"), "y"),
    ]
)


def within(events: Sequence[AdmittedEvent], reach: Reach) -> list[AdmittedEvent]:
    """The events that a caller may see."""
    return [each for each in events if reach.shows(each.event.account, each.event.subscription, each.event.user)]


# ---------------------------------------------------------------- the naive answers


def exact_sum(numbers: Sequence[Decimal]) -> Decimal:
    """The sum, with every digit."""
    with localcontext(prec=200):
        return sum(numbers, Decimal(0))


def kept(events: Sequence[AdmittedEvent], question: Question) -> list[AdmittedEvent]:
    """The events that a question means."""

    def keeps(event: AdmittedEvent) -> bool:
        return all(
            (getattr(event.event, dimension.value) in chosen.values) is not chosen.negated
            for dimension, chosen in question.filters.items()
        )

    period = question.period
    return [event for event in events if period.start <= event.occurred_at < period.end and keeps(event)]


def totals_of(events: Sequence[AdmittedEvent], question: Question) -> tuple[Total, ...]:
    """Figures by unit, as the question wants them."""
    units = sorted({event.event.unit for event in events})
    of_units = [(unit, [event.event.quantity for event in events if event.event.unit == unit]) for unit in units]
    extremes = [(min(of), max(of)) if question.extremes else (None, None) for _, of in of_units]
    return tuple(
        Total(unit, exact_sum(of), len(of), *least_and_largest)
        for (unit, of), least_and_largest in zip(of_units, extremes, strict=True)
    )


def grouped(events: Sequence[AdmittedEvent], dimensions: Sequence[Dimension]) -> dict[Key, list[AdmittedEvent]]:
    """The events by the values of these dimensions."""
    groups: dict[Key, list[AdmittedEvent]] = {}
    for event in events:
        key = tuple(getattr(event.event, dimension.value) for dimension in dimensions)
        groups.setdefault(key, []).append(event)
    return groups


def in_order(groups: Mapping[Key, Sequence[AdmittedEvent]], order: GroupOrder) -> list[Key]:
    """The keys in the order of the contract; a missing value sorts last, ties are by key."""
    units = {event.event.unit for events in groups.values() for event in events}
    unit = order.unit or (min(units) if len(units) == 1 else None)

    def value(key: Key) -> Decimal:
        if order.field == "QUANTITY" and unit is not None:
            return exact_sum([event.event.quantity for event in groups[key] if event.event.unit == unit])
        return Decimal(len(groups[key]))

    keys = sorted(groups, key=lambda key: tuple((value is None, value or "") for value in key))
    if order.field == "KEY":
        return keys[::-1] if order.descending else keys
    return sorted(keys, key=value, reverse=order.descending)


def courses_of(events: Sequence[AdmittedEvent], bounds: Sequence[datetime]) -> list[Course]:
    """The courses of a group, by unit."""
    courses = []
    for unit in sorted({event.event.unit for event in events}):
        of_buckets = {
            index: [e.event.quantity for e in events if e.event.unit == unit and start <= e.occurred_at < end]
            for index, (start, end) in enumerate(pairwise(bounds))
        }
        used = {index: inside for index, inside in of_buckets.items() if inside}
        quantities = [plain(exact_sum(inside)) for inside in used.values()]
        courses.append(Course(unit, list(used), quantities, [len(inside) for inside in used.values()]))
    return courses


def distinct_of(events: Sequence[AdmittedEvent], dimension: Dimension) -> dict[str, int]:
    """How many values there are, by unit."""
    values: dict[str, set[object]] = {}
    for event in events:
        values.setdefault(event.event.unit, set()).add(getattr(event.event, dimension.value))
    return {unit: len(of_unit - {None}) for unit, of_unit in values.items()}


# ---------------------------------------------------------------- a service that dies


class Fuse:
    """Lets so many statements pass; at the last one the whole process is gone: before it, after it, or during it."""

    def __init__(self, statements: int, how: str) -> None:
        self.left = statements
        self._how = how
        self.kill: Callable[[], None] = lambda: None

    async def burn(
        self, run: Callable[..., Coroutine[Any, Any, Result]], *arguments: object, **options: object
    ) -> Result:
        """Run a statement, if we live."""
        self.left -= 1
        if self.left:
            return await run(*arguments, **options)
        if self._how == "during":
            # Once what follows waits for the server; cancelled as the worker's task is when the service stops.
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)
            return await run(*arguments, **options)
        if self._how == "after":
            await run(*arguments, **options)
        self.kill()
        raise ConnectionResetError


class MortalConnection:
    """A connection that burns the fuse with each statement."""

    def __init__(self, connection: Connection, fuse: Fuse) -> None:
        self._connection = connection
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._connection, name)
        return (
            partial(self._fuse.burn, attribute) if name in {"execute", "fetch", "fetchrow", "fetchval"} else attribute
        )


class MortalDatabase(Database):
    """A pool whose process dies when the fuse is burnt."""

    fuse: Fuse

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection that burns the fuse."""
        async with super().connection() as connection:
            yield MortalConnection(connection, self.fuse)  # type: ignore[misc]  # a connection as far as anyone can tell


async def connect(database_url: str) -> Database:
    """A pool, as a process has one."""
    return await Database.connect(Settings(database_url=database_url), LIMITS)


async def run_and_die(database_url: str, fuse: Fuse, work: Callable[[Database], Coroutine[Any, Any, object]]) -> bool:
    """A process that dies at the fuse's end, unless its work is done before; says whether it died."""
    database = await MortalDatabase.connect(Settings(database_url=database_url), LIMITS)
    database.fuse = fuse
    fuse.kill = database._pool.terminate
    task = asyncio.create_task(work(database))
    await asyncio.wait({task})
    # Its connections end without a word: no rollback, no unlock.
    await database.close()
    if fuse.left > 0:
        task.result()
        return False
    assert task.cancelled() or isinstance(task.exception(), (DatabaseUnavailableError, asyncpg.InterfaceError))
    return True


async def refresh_and_die(database_url: str, now: datetime, fuse: Fuse) -> bool:
    """A refresher's process that dies at the fuse's end, unless it is done before; says whether it died."""

    async def refresh(database: Database) -> None:
        assert await Refresher(database).run(now) is not None

    return await run_and_die(database_url, fuse, refresh)


KEY: Final = ApiKey(
    prefix="mk_test",
    name="test",
    scopes=frozenset({Scope.ADMIN}),
    accounts=None,
    created_at=START,
    expires_at=None,
    revoked_at=None,
)


def correction_of(event: AdmittedEvent, values: Mapping[str, Any]) -> CorrectionOrder:
    """An order to put these values in the event's place; to void it, when there are none."""
    return CorrectionOrder(
        account=event.event.account,
        source=event.source,
        event_id=event.event.id,
        occurred_at=event.occurred_at,
        reason="a test",
        void=not values,
        values=values,
    )


def corrected(event: AdmittedEvent, order: CorrectionOrder) -> AdmittedEvent | None:
    """The event with the values of the order in effect; None when it is void."""
    if order.void:
        return None
    return msgspec.structs.replace(event, event=msgspec.structs.replace(event.event, **order.values))


async def refreshed(refresher: Refresher, now: datetime) -> Refreshed:
    """Run until the refresher's place is free: the server may take a moment to see that its last holder is dead."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        done = None
        while done is None:
            done = await refresher.run(now)
    return done


def submission_of(events: Sequence[UsageEvent], now: datetime) -> Submission:
    """Events as a request submits them."""
    admitted, rejected = admit(events, Admission(limits=LIMITS, now=now, restamp_window=timedelta(hours=1)))
    assert not rejected
    origin = Refusals("test", PlainEvents(events))
    return Submission(admitted=admitted, rejected=rejected, received_at=now, origin=origin)


# ---------------------------------------------------------------- the machine


class Exactness(RuleBasedStateMachine):
    """A service, what was acknowledged by it, and a clock of its own."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.clock = START
        # As they were sent, and by their places among these: as they are in effect, but for those that are void.
        self.sent: list[AdmittedEvent] = []
        self.in_effect: dict[int, AdmittedEvent] = {}
        self.database_url = self.server.clone()
        self.runner = asyncio.Runner()
        self.run = self.runner.run
        self.run(self._start())

    def teardown(self) -> None:
        """End the service and remove its database."""
        self.run(self._stop())
        self.runner.close()
        self.server.drop(self.database_url)

    async def _start(self) -> None:
        self.database = await connect(self.database_url)
        self.writer = Writer(EventLog(self.database), LIMITS)
        self.writer.start()

    async def _stop(self) -> None:
        await self.writer.close()
        await self.database.close()

    @property
    def events(self) -> list[AdmittedEvent]:
        """What every figure is made of."""
        return list(self.in_effect.values())

    def _acknowledged(self, submission: Submission) -> None:
        for _, event in submission.admitted:
            self.in_effect[len(self.sent)] = event
            self.sent.append(event)

    def _drafted(self, drafted: Sequence[Draft]) -> Submission:
        events = [
            UsageEvent(
                id=f"event {len(self.sent) + number}",
                source="test",
                occurred_at=self._instant(draft),
                quantity=draft.quantity,
                **draft.values,  # type: ignore[arg-type]  # the required dimensions are never None
            )
            for number, draft in enumerate(drafted)
        ]
        return submission_of(events, self.clock)

    def _instant(self, draft: Draft) -> datetime:
        if draft.beside is None or not self.sent:
            return draft.moment.at(self.clock)
        return self.sent[draft.beside % len(self.sent)].occurred_at

    # -------------------------------------------------------- what happens

    @initialize(drafted=st.lists(drafts, min_size=4, max_size=12))
    def begin(self, drafted: Sequence[Draft]) -> None:
        """There is some usage to begin with."""
        self.record(drafted, [])

    @rule(drafted=st.lists(drafts, min_size=1, max_size=6), again=st.lists(st.integers(0, 99), max_size=3))
    def record(self, drafted: Sequence[Draft], again: Sequence[int]) -> None:
        """Record new events, and some once more that are new or recorded already."""
        new = self._drafted(drafted)
        known = [*self.sent, *(event for _, event in new.admitted)]
        repeated = [known[index % len(known)] for index in again]
        everything = [*(event for _, event in new.admitted), *repeated]
        submission = msgspec.structs.replace(new, admitted=list(enumerate(everything)))
        receipt = self.run(self.writer.submit(submission))
        assert Receipt(len(drafted), len(again), ()) == receipt
        self._acknowledged(new)

    @rule(place=st.integers(0, 99), void=st.booleans(), values=corrections)
    def correct(self, place: int, void: bool, values: Mapping[str, Any]) -> None:  # noqa: FBT001 - Hypothesis names it
        """Correct an event, or void it; what is void already, or changes nothing, is a conflict."""
        place %= len(self.sent)
        event = self.in_effect.pop(place, None)
        order = correction_of(self.sent[place], {} if void else values)
        changed = None if event is None else corrected(event, order)
        if changed is not None:
            self.in_effect[place] = changed
        if changed == event:
            with pytest.raises(ConflictError):
                self.run(correct_event(self.database, order, KEY, LIMITS))
        else:
            self.run(correct_event(self.database, order, KEY, LIMITS))

    @rule(
        hours=st.sampled_from([0, 0, 0, 1, 5, 24, 100]),
        minutes=st.sampled_from([0, 0, 1, 7, 30]),
        seconds=st.integers(0, 59),
    )
    def refresh(self, hours: int, minutes: int, seconds: int) -> None:
        """Time passes, and the refresher runs."""
        self.clock += timedelta(hours=hours, minutes=minutes, seconds=seconds)
        self.run(refreshed(Refresher(self.database), self.clock))

    @rule(
        minutes=st.sampled_from([0, 1, 20, 1_800]),
        statements=st.integers(1, 30),
        how=st.sampled_from(["before", "after", "during"]),
    )
    def die(self, minutes: int, statements: int, how: str) -> None:
        """Time passes, and the refresher dies at any of its statements."""
        self.clock += timedelta(minutes=minutes)
        self.run(refresh_and_die(self.database_url, self.clock, Fuse(statements, how)))

    @rule(drafted=st.lists(drafts, min_size=1, max_size=3), minutes=st.sampled_from([1, 1, 20, 1_800]))
    def race(self, drafted: Sequence[Draft], minutes: int) -> None:
        """A writer that has written but not committed, while time passes and the refresher runs."""
        submission = self._drafted(drafted)
        self.clock += timedelta(minutes=minutes)
        self.run(self._race(submission))
        self._acknowledged(submission)

    async def _race(self, submission: Submission) -> None:
        async with writing(HeldLog(self.database), [event for _, event in submission.admitted]) as held:
            refresher = CountingRefresher(self.database)
            running = asyncio.create_task(refreshed(refresher, self.clock))
            await refresher.waited.wait()
            assert not running.done()
            held.released.set()
        await running

    @rule()
    def restart(self) -> None:
        """The service stops and starts again; nothing is kept but the database."""
        self.run(self._stop())
        self.run(self._start())

    # -------------------------------------------------------- what is answered

    @invariant()
    def everything_is_there(self) -> None:
        """All usage by all dimensions at once is what was acknowledged."""
        question = ask(period=EVERYTHING, zone_name="UTC", group_by=list(Dimension), filters={}, limits=LIMITS)
        self.run(self._compare_groups(question, GroupOrder("KEY", descending=False), 1_000))

    @invariant()
    def the_last_days_are_there(self) -> None:
        """The last days as Kathmandu has them, each of which is hours and edges of hours, are what was acknowledged."""
        question = ask(
            period=Period(self.clock - timedelta(days=5), self.clock + timedelta(days=1)),
            zone_name="Asia/Kathmandu",
            group_by=[Dimension.ACCOUNT],
            filters={},
            limits=LIMITS,
        )
        self.run(self._compare(question, Bucket.DAY, GroupOrder("KEY", descending=True), 2, Dimension.USER))

    @invariant()
    def everyone_is_there(self) -> None:
        """Usage of everyone by product, which rollups without account answer, is what was acknowledged."""
        question = ask(
            period=Period(self.clock - timedelta(days=50), self.clock + timedelta(hours=1)),
            zone_name="UTC",
            group_by=[Dimension.PRODUCT],
            filters={},
            limits=LIMITS,
        )
        for extremes in (True, False):
            question = msgspec.structs.replace(question, extremes=extremes)
            self.run(self._compare(question, Bucket.DAY, GroupOrder("EVENTS", descending=True), 1, Dimension.FEATURE))

    @rule(data=st.data(), order=orders, first=st.integers(1, 8), dimension=st.sampled_from(Dimension), reach=reaches)
    def answer(self, data: st.DataObject, order: GroupOrder, first: int, dimension: Dimension, reach: Reach) -> None:
        """Totals, groups, series and distinct counts of any question are the naive ones of what is within reach."""
        question, bucket = data.draw(questions(self.clock))
        self.run(self._compare(question, bucket, order, first, dimension, reach))

    async def _compare(
        self,
        question: Question,
        bucket: Bucket,
        order: GroupOrder,
        first: int,
        dimension: Dimension,
        reach: Reach = ALL_ROWS,
    ) -> None:
        events = kept(within(self.events, reach), question)
        async with Snapshot(self.database, reach) as snapshot:
            assert totals_of(events, question) == await read_totals(snapshot, question)
        shown = await self._compare_groups(question, order, first, reach)
        groups = grouped(events, question.group_by)
        others = [event for key, of_key in groups.items() if key not in shown for event in of_key]
        async with Snapshot(self.database, reach) as snapshot:
            page = await read_groups(snapshot, question, order, first, None)
            with_series = await read_groups(snapshot, question, order, first, None, bucket)
            courses = with_series.courses
            assert page == msgspec.structs.replace(with_series, courses=None)
            assert courses is not None
            assert [courses_of(groups[key], courses.bounds) for key in shown] == courses.of_groups
            if shown:
                bounds, of_groups = await read_series(snapshot, question, shown, bucket)
                assert bucket_bounds(question.period, zone_of(question.zone_name), bucket) == bounds == courses.bounds
                assert [courses_of(groups[key], bounds) for key in shown] == of_groups
                counts = await read_distinct(snapshot, question, shown, dimension, remainder=False)
                assert [distinct_of(groups[key], dimension) for key in shown] == counts
            if others:
                (count,) = await read_distinct(snapshot, question, shown, dimension, remainder=True)
                assert distinct_of(others, dimension) == count

    async def _compare_groups(
        self, question: Question, order: GroupOrder, first: int, reach: Reach = ALL_ROWS
    ) -> list[Key]:
        """Compare two pages, the first and all that follows; return the keys of the first."""
        groups = grouped(kept(within(self.events, reach), question), question.group_by)
        keys = in_order(groups, order)
        async with Snapshot(self.database, reach) as snapshot:
            page = await read_groups(snapshot, question, order, first, None)
            expected = [(key, totals_of(groups[key], question)) for key in keys[:first]]
            assert expected == [(g.key, g.totals) for g in page.groups]
            assert (len(keys), len(keys) > first) == (page.group_count, page.has_next)
            others = [event for key in keys[first:] for event in groups[key]]
            assert totals_of(others, question) == page.remainder
            if page.groups:
                last = page.groups[-1]
                following = msgspec.structs.replace(order, unit=page.order_unit or order.unit)
                rest = await read_groups(snapshot, question, following, 1_000, After(last.key, last.order_value))
                expected = [(key, totals_of(groups[key], question)) for key in keys[first:]]
                assert expected == [(g.key, g.totals) for g in rest.groups]
                before = [event for key in keys[:first] for event in groups[key]]
                assert totals_of(before, question) == rest.remainder
        return keys[:first]


@pytest.mark.machine
def test_every_answer_is_the_naive_one(servers: dict[str, Server], engine: str) -> None:
    """However events, refreshes, deaths and restarts follow each other, every answer is that of the events alone."""

    class OnThisEngine(Exactness):
        server = servers[engine]

    play_machine(OnThisEngine, engine, plays=40, steps=50)


# ---------------------------------------------------------------- the races, one by one


class HeldLog(EventLog):
    """A log whose transaction stays open, with everything written, until it is released."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.reached = asyncio.Event()
        self.released = asyncio.Event()

    async def _append(self, connection: Connection, events: Sequence[tuple[AdmittedEvent, datetime]]) -> None:
        await super()._append(connection, events)
        await self.hold()

    async def hold(self) -> None:
        """Say that it is reached, and wait."""
        self.reached.set()
        await self.released.wait()


class HeldBeforeReading(HeldLog):
    """A log that has entered as a writer, but waits before it reads which horizon is published."""

    async def _append(self, connection: Connection, events: Sequence[tuple[AdmittedEvent, datetime]]) -> None:
        await EventLog._append(self, Stopping(connection, self.hold), events)  # type: ignore[arg-type]


class Stopping:
    """A connection that stops before it reads the published horizon."""

    def __init__(self, connection: Connection, stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._connection = connection
        self._stop = stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def fetchrow(self, statement: str, *arguments: object) -> Any:
        """Stop before the one statement."""
        if statement == sql("events.read_published"):
            await self._stop()
        return await self._connection.fetchrow(statement, *arguments)


@asynccontextmanager
async def writing(held: HeldLog, events: Sequence[AdmittedEvent]) -> AsyncIterator[HeldLog]:
    """A writer that is held where `held` holds it; it has committed when the block is left."""
    task = asyncio.create_task(held.append([(event, START) for event in events]))
    await held.reached.wait()
    try:
        yield held
    finally:
        held.released.set()
        await task


class HeldDatabase(Database):
    """A pool whose transactions stay open, with everything done, until they are released."""

    hold: Callable[[], Coroutine[Any, Any, None]]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction that does not commit yet."""
        async with super().transaction() as connection:
            yield connection
            await self.hold()


class CountingRefresher(Refresher):
    """A refresher that says when it has looked for writers a few times, and they were still there."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.waited = asyncio.Event()
        self._looks = 0

    async def _await_writers(self, connection: Connection) -> None:
        await super()._await_writers(Counting(connection, self._count))  # type: ignore[arg-type]

    def _count(self) -> None:
        self._looks += 1
        if self._looks > 3:
            self.waited.set()


class Counting:
    """A connection that says after each look for writers that it was one."""

    def __init__(self, connection: Connection, count: Callable[[], None]) -> None:
        self._connection = connection
        self._count = count

    async def fetch(self, statement: str, *arguments: object) -> Any:
        """Count the one statement; there is no other."""
        assert sql("events.writers_at_work") == statement
        rows = await self._connection.fetch(statement, *arguments)
        self._count()
        return rows


class HastyRefresher(Refresher):
    """A refresher that does not wait for writers: what the others would be without that step."""

    async def _await_writers(self, connection: Connection) -> None:
        """Wait for nobody."""


NOW: Final = datetime(2026, 3, 27, 12, 5, tzinfo=UTC)
LAST_HOUR: Final = datetime(2026, 3, 27, 11, 59, 59, 999_999, tzinfo=UTC)
LAST_WEEK: Final = datetime(2026, 3, 20, tzinfo=UTC)


def calls(first: int, *occurred_at: datetime) -> list[AdmittedEvent]:
    """Events of one call each, named by their numbers."""
    events = [
        UsageEvent(id=f"event {number}", source="test", occurred_at=at, account="a", product="p", unit="call")
        for number, at in enumerate(occurred_at, first)
    ]
    return [event for _, event in submission_of(events, max(occurred_at)).admitted]


async def record(database: Database, events: Sequence[AdmittedEvent]) -> None:
    """Write events at once."""
    await EventLog(database).append([(event, START) for event in events])


async def counted(database: Database) -> int:
    """How many events the answer to everything counts."""
    question = ask(period=EVERYTHING, zone_name="UTC", group_by=[], filters={}, limits=LIMITS)
    async with Snapshot(database) as snapshot:
        return sum(total.events for total in await read_totals(snapshot, question))


async def added_up(database: Database) -> list[tuple[int, Decimal]]:
    """How many events the answer to everything counts, and their quantity, by unit."""
    question = ask(period=EVERYTHING, zone_name="UTC", group_by=[], filters={}, limits=LIMITS)
    async with Snapshot(database) as snapshot:
        return [(total.events, total.quantity) for total in await read_totals(snapshot, question)]


async def pending(database: Database) -> int:
    """How many entries the log of pending quarters of an hour has."""
    async with database.connection() as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM pending_bucket")
    return count


async def late(database: Database) -> int:
    """How many events the log of those has that came too late for the tail."""
    async with database.connection() as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM late_event")
    return count


async def corrected_minutes(database: Database) -> int:
    """How many entries the log of the tail's corrected minutes has."""
    async with database.connection() as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM pending_minute")
    return count


async def in_the_tail(database: Database) -> int:
    """How many events the tail counts, the minute that is not over yet and all."""
    async with database.connection() as connection:
        return int(await connection.fetchval("SELECT coalesce(sum(events), 0) FROM usage_minute_by_subscription"))


async def horizon(database: Database) -> tuple[datetime, datetime]:
    """What is complete, and what is published."""
    async with database.connection() as connection:
        row = await connection.fetchrow("SELECT complete_at, published_at FROM rollup_horizon")
    assert row is not None
    return row["complete_at"], row["published_at"]


def test_the_refresher_waits_for_a_writer_that_began_before(database_url: str) -> None:
    """A writer at work when the horizon is published is waited for: its event is rolled up, and nothing is pending."""

    async def scenario(database: Database) -> None:
        await record(database, calls(0, LAST_HOUR, LAST_WEEK))
        refresher = CountingRefresher(database)
        async with writing(HeldLog(database), calls(2, LAST_HOUR)) as held:
            running = asyncio.create_task(refresher.run(NOW))
            await refresher.waited.wait()
            assert not running.done()
            assert (EPOCH, NOW.replace(minute=0)) == await horizon(database)
            assert 2 == await counted(database)
            held.released.set()
        done = await running

        assert done is not None
        assert (NOW.replace(minute=0), 0, 0) == (done.complete_at, done.worked_off, await pending(database))
        assert 3 == await counted(database)

    play(database_url, scenario)


def test_the_refresher_waits_for_a_correction_that_began_before(database_url: str) -> None:
    """A correction is a writer, too: one that is at work when the horizon is published is rolled up."""

    async def scenario(database: Database) -> None:
        events = calls(0, LAST_HOUR, LAST_WEEK)
        await record(database, events)
        held = HeldLog(database)
        correcting = await HeldDatabase.connect(Settings(database_url=database_url), LIMITS)
        correcting.hold = held.hold
        correction = asyncio.create_task(correct_event(correcting, correction_of(events[0], {}), KEY, LIMITS))
        await held.reached.wait()
        refresher = CountingRefresher(database)
        running = asyncio.create_task(refresher.run(NOW))
        await refresher.waited.wait()
        assert not running.done()
        assert 2 == await counted(database)
        held.released.set()
        await correction
        assert await running is not None
        await correcting.close()

        assert (1, 0) == (await counted(database), await pending(database))

    play(database_url, scenario)


def test_what_lies_below_the_published_horizon_is_late(database_url: str) -> None:
    """The last microsecond below the horizon is logged as pending; the horizon itself, and what follows, is not."""

    async def scenario(database: Database) -> None:
        await refreshed(Refresher(database), NOW)
        at = NOW.replace(minute=0)
        assert (at, at) == await horizon(database)
        await record(database, calls(0, at, at + MICROSECOND, NOW))
        assert (0, 3) == (await pending(database), await counted(database))
        await record(database, calls(3, at - MICROSECOND))
        assert (1, 4) == (await pending(database), await counted(database))

    play(database_url, scenario)


def test_without_waiting_an_event_would_be_lost(database_url: str) -> None:
    """The race is real, and these tests hit it: a refresher that does not wait rolls up without the event, for good."""

    async def scenario(database: Database) -> None:
        await record(database, calls(0, LAST_HOUR))
        async with writing(HeldLog(database), calls(1, LAST_HOUR)):
            assert await HastyRefresher(database).run(NOW) is not None

        assert 1 == await counted(database)

    play(database_url, scenario)


def test_a_writer_that_begins_after_publishing_logs_pending(database_url: str) -> None:
    """Between publishing and rolling up a new writer is not waited for: it logs, and its event is in the next answer."""

    async def scenario(database: Database) -> None:
        # TimescaleDB makes whoever writes into a chunk wait for whoever makes it: let both chunks be there.
        await record(database, calls(0, LAST_HOUR, LAST_WEEK))
        refresher = CountingRefresher(database)
        async with writing(HeldLog(database), calls(2, LAST_HOUR)) as held:
            running = asyncio.create_task(refresher.run(NOW))
            await refresher.waited.wait()
            await record(database, calls(3, LAST_HOUR, LAST_WEEK, NOW))
            assert not running.done()
            assert 2 == await pending(database)
            assert 5 == await counted(database)
            held.released.set()
        done = await running

        assert done is not None
        assert (2, 0) == (done.worked_off, await pending(database))
        assert 6 == await counted(database)

    play(database_url, scenario)


def test_a_writer_that_began_before_may_read_the_new_horizon(database_url: str) -> None:
    """A writer that entered before, and reads the horizon after it was published, logs; its event counts once."""

    async def scenario(database: Database) -> None:
        refresher = CountingRefresher(database)
        async with writing(HeldBeforeReading(database), calls(0, LAST_HOUR)) as held:
            running = asyncio.create_task(refresher.run(NOW))
            await refresher.waited.wait()
            held.released.set()
        done = await running

        assert done is not None
        assert (1, 0) == (done.worked_off, await pending(database))
        assert 1 == await counted(database)

    play(database_url, scenario)


SECONDS_AGO: Final = NOW - timedelta(seconds=30)


def test_the_tail_follows_the_clock(database_url: str) -> None:
    """What is seconds old is in the tail; what comes later is logged by name, counted at once, and added."""

    async def scenario(database: Database) -> None:
        refresher = Refresher(database)
        await record(database, calls(0, SECONDS_AGO, SECONDS_AGO + MICROSECOND, NOW))
        await refreshed(refresher, NOW)
        assert 2 == await in_the_tail(database)
        await record(database, calls(3, SECONDS_AGO, NOW - timedelta(minutes=4), NOW - timedelta(minutes=6), NOW))
        assert (1, 2, 7) == (await pending(database), await late(database), await counted(database))
        await refreshed(refresher, NOW)
        assert (0, 0, 7) == (await pending(database), await late(database), await counted(database))
        assert 4 == await in_the_tail(database)
        await refreshed(refresher, NOW + timedelta(minutes=15))
        assert (0, 7) == (await in_the_tail(database), await counted(database))

    play(database_url, scenario)


def test_a_writer_that_is_waited_for_and_logs_counts_once(database_url: str) -> None:
    """A writer that reads how far the tail is to go, and logs what the step then takes up by itself, is counted once."""

    async def scenario(database: Database) -> None:
        await record(database, calls(0, SECONDS_AGO))
        await refreshed(Refresher(database), SECONDS_AGO)
        refresher = CountingRefresher(database)
        async with writing(HeldBeforeReading(database), calls(1, SECONDS_AGO + MICROSECOND)) as held:
            running = asyncio.create_task(refresher.run(NOW))
            await refresher.waited.wait()
            held.released.set()
        done = await running

        assert done is not None
        assert (1, 0) == (done.worked_off, await late(database))
        assert (2, 2) == (await in_the_tail(database), await counted(database))

    play(database_url, scenario)


def test_a_late_event_that_commits_while_the_tail_moves_stays_in_the_log(database_url: str) -> None:
    """What a step does not see it does not forget: the event is in the answer before the step, after it, and after the next."""

    async def scenario(database: Database) -> None:
        await record(database, calls(0, SECONDS_AGO))
        await refreshed(Refresher(database), NOW)
        async with writing(HeldLog(database), calls(1, SECONDS_AGO)) as held:
            held_open = HastyRefresher(database)
            await refreshed(held_open, NOW + timedelta(minutes=2))
            assert (1, 0, 1) == (await counted(database), await late(database), await in_the_tail(database))
            held.released.set()
        assert (2, 1, 1) == (await counted(database), await late(database), await in_the_tail(database))
        await refreshed(Refresher(database), NOW + timedelta(minutes=2))
        assert (2, 0, 2) == (await counted(database), await late(database), await in_the_tail(database))

    play(database_url, scenario)


def test_late_events_of_a_minute_that_is_corrected_count_once(database_url: str) -> None:
    """An account's minute with a corrected event and a late one is read from events, and then made anew from them."""

    async def scenario(database: Database) -> None:
        first, second = calls(0, SECONDS_AGO, SECONDS_AGO + MICROSECOND)
        await record(database, [first])
        refresher = Refresher(database)
        await refreshed(refresher, NOW)
        await record(database, [second])
        await correct_event(database, correction_of(second, {"quantity": Decimal(5)}), KEY, LIMITS)
        assert (1, 1) == (await late(database), await corrected_minutes(database))
        assert [(2, 6)] == await added_up(database)
        await correct_event(database, correction_of(first, {}), KEY, LIMITS)
        assert [(1, 5)] == await added_up(database)
        await refreshed(refresher, NOW)
        assert (0, 0) == (await late(database), await corrected_minutes(database))
        assert [(1, 5)] == await added_up(database)

    play(database_url, scenario)


def test_an_event_between_two_publishings_is_logged_for_both(database_url: str) -> None:
    """While a quarter that the tail holds is rolled up, a late event of it is in the tail's answer, and then in the other."""

    async def scenario(database: Database) -> None:
        await record(database, calls(0, SECONDS_AGO, LAST_WEEK))
        await refreshed(Refresher(database), NOW)
        later = NOW + timedelta(minutes=15)
        refresher = CountingRefresher(database)
        async with writing(HeldLog(database), calls(2, later)):
            running = asyncio.create_task(refresher.run(later))
            await refresher.waited.wait()
            await record(database, calls(3, SECONDS_AGO, later))
            assert not running.done()
            assert (1, 1) == (await pending(database), await late(database))
            assert 4 == await counted(database)
        await running
        assert (0, 0, 5) == (await pending(database), await late(database), await counted(database))

    play(database_url, scenario)


def test_a_snapshot_from_before_the_horizon_moved_still_has_the_tail(database_url: str) -> None:
    """Minutes that are forgotten while somebody reads are still in the answer: they are deleted, not dropped."""

    async def scenario(database: Database) -> None:
        await record(database, calls(0, SECONDS_AGO, NOW))
        await refreshed(Refresher(database), NOW)
        question = ask(period=EVERYTHING, zone_name="UTC", group_by=[], filters={}, limits=LIMITS)
        async with Snapshot(database) as snapshot:
            await snapshot.horizon()
            await refreshed(Refresher(database), NOW + timedelta(hours=1))
            (total,) = await read_totals(snapshot, question)
        assert (2, 0, 2) == (total.events, await in_the_tail(database), await counted(database))

    play(database_url, scenario)


def test_the_tail_keeps_the_distance_at_which_events_come(database_url: str) -> None:
    """Where events come half a minute late, the tail waits for them: nearly always, nothing of them is pending any more."""

    async def scenario(database: Database) -> None:
        refresher = Refresher(database)
        each_late = []
        for run in range(40):
            now = NOW + timedelta(seconds=5 * run)
            await record(database, calls(10 * run, *(now - timedelta(seconds=3 * each) for each in range(10))))
            each_late.append(await late(database))
            await refreshed(refresher, now)
        assert 400 == await counted(database)
        assert each_late[1] > 0
        assert sum(each > 0 for each in each_late[-30:]) <= 3

    play(database_url, scenario)


def test_a_late_event_that_commits_while_pending_is_worked_off_stays_pending(database_url: str) -> None:
    """An event of an hour that is being rolled up again is in the answer, before, while and after."""

    async def scenario(database: Database) -> None:
        await record(database, calls(0, LAST_HOUR))
        await refreshed(Refresher(database), NOW)
        await record(database, calls(1, LAST_HOUR))
        async with writing(HeldLog(database), calls(2, LAST_HOUR)) as held:
            running = asyncio.create_task(refreshed(Refresher(database), NOW))
            await asyncio.wait({running}, timeout=0.5)  # it need not wait for a late writer, and may
            assert 2 == await counted(database)
            held.released.set()
        assert 3 == await counted(database)
        await running
        assert 3 == await counted(database)
        await refreshed(Refresher(database), NOW)
        assert (3, 0) == (await counted(database), await pending(database))

    play(database_url, scenario)


def test_one_refresher_works_at_a_time(database_url: str) -> None:
    """While one is at work another one says so and does nothing; afterwards it has its turn."""

    async def scenario(database: Database) -> None:
        refresher = CountingRefresher(database)
        async with writing(HeldLog(database), calls(0, LAST_HOUR)):
            running = asyncio.create_task(refresher.run(NOW))
            await refresher.waited.wait()
            assert await Refresher(database).run(NOW) is None
        assert await running is not None
        assert await Refresher(database).run(NOW) is not None

    play(database_url, scenario)


def test_a_refresher_whose_connections_break_says_that_the_database_is_away(database_url: str) -> None:
    """A server that goes away under the refresher is DatabaseUnavailableError, which the worker takes for a pause."""

    async def scenario(database: Database) -> None:
        refreshing = await connect(database_url)
        refresher = CountingRefresher(refreshing)
        async with writing(HeldLog(database), calls(0, LAST_HOUR)):
            running = asyncio.create_task(refresher.run(NOW))
            await refresher.waited.wait()
            async with database.connection() as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid() AND state IS DISTINCT FROM 'idle in transaction'"
                )
            (error,) = await asyncio.gather(running, return_exceptions=True)
        await refreshing.close()

        assert isinstance(error, DatabaseUnavailableError)

    play(database_url, scenario)


@pytest.mark.parametrize("how", ["before", "after", "during"])
def test_the_refresher_may_die_at_every_statement(database_url: str, how: str) -> None:
    """At whichever statement it dies, every answer stays exact, and the next one finishes its work."""

    async def scenario(database: Database) -> None:
        statements, clock, events = 0, NOW, 0
        died = True
        while died:
            statements += 1
            clock += timedelta(hours=7)
            late = [clock - timedelta(hours=9), clock - timedelta(days=2), LAST_WEEK]
            await record(database, calls(events, clock - timedelta(hours=1), *late))
            events += 4
            died = await refresh_and_die(database_url, clock, Fuse(statements, how))
            assert events == await counted(database), statements
            await record(database, calls(events, *late))
            events += 3
            assert events == await counted(database), statements
            await refreshed(Refresher(database), clock)
            assert events == await counted(database), statements
            assert 0 == await pending(database)
        assert statements > 10

    play(database_url, scenario)
