"""Exactly once: however requests, retries, faults and restarts are mixed, what is recorded is what a plain model says.

Two services stand on one database, each behind a proxy that can cut its connections. Everything is asked over HTTP, as
clients ask it, and looked up in the database itself. A request that got no answer is sent again until it has one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import takewhile
from typing import Any, Final, NamedTuple

import asyncpg
import httpx2
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from starlette.types import ASGIApp, Message

from graphql_api.app import create_app
from metering.config import Settings
from metering.limits import LIMITS, Limits
from tests.conftest import ADMIN_KEY, Server, bearer, running
from tests.machines import play_machine
from tests.metering.ingest.books import Answer, Books, Content, Done, Name, Order, Request, Sent, Totals, possible
from tests.proxy import Proxy

# Longer than anything here takes: reached only by a test that fails.
PATIENCE_SECONDS: Final = 60
_RETRY_SECONDS: Final = 0.01

CORRECT: Final = """
mutation ($input: CorrectEventInput!) { correctEvent(input: $input) { __typename } }
"""
TOTALS: Final = """
{ usage(query: { period: { from: "2026-02-01T00:00:00Z", to: "2026-04-01T00:00:00Z" }, groupBy: [ACCOUNT, PRODUCT] }) {
    ... on UsageReport { groups { nodes { key { account product } totals { unit quantity events } } } }
} }
"""

# ---------------------------------------------------------------- what is sent

NAMES: Final = [Name(account, source, id) for account in "ab" for source in "st" for id in "12"]
# A Sunday's midnight: partitions begin on Mondays.
MIDNIGHT: Final = datetime(2026, 3, 2, tzinfo=UTC)
CONTENTS: Final = [
    Content("maps", None, Decimal("1.5")),
    Content("maps", None, Decimal(-2)),
    Content("maps", "x", Decimal("1.5")),
    Content("routes", None, Decimal("0.000000000000000001")),
]


class Moment(NamedTuple):
    """An instant by its place beside a midnight: on it, at an edge of the re-stamp window, or at noon."""

    midnight: int
    windows: int
    hours: int
    microseconds: int

    def at(self, restamp_window: timedelta) -> datetime:
        """The instant."""
        beside = timedelta(days=self.midnight, hours=self.hours, microseconds=self.microseconds)
        return MIDNIGHT + beside + self.windows * restamp_window


class Draft(NamedTuple):
    """An event before its time is known."""

    name: Name
    moment: Moment
    content: Content
    spelling: int
    flaw: str | None
    # Instead of the rest: one that was sent before, at this moment or at its own.
    again: int | None
    restamped: bool


class Batch(NamedTuple):
    """A request before its events are known."""

    drafts: Sequence[Draft]
    atomic: bool
    # Instead of all that: a request that was sent before.
    again: int | None
    # To which service.
    service: int


moments = st.builds(
    Moment, st.integers(-1, 1), st.sampled_from([0, -1, 1]), st.sampled_from([0, 0, 12]), st.sampled_from([0, -1, 1])
)
drafts = st.builds(
    Draft,
    st.sampled_from(NAMES),
    moments,
    st.sampled_from([*CONTENTS[:1] * 4, *CONTENTS]),
    st.integers(0, 2),
    st.sampled_from([None] * 10 + ["missing_field", "time_naive"]),
    st.one_of(st.none(), st.integers(0, 99)),
    st.booleans(),
)
batches = st.builds(
    Batch,
    st.lists(drafts, min_size=1, max_size=6),
    st.sampled_from([False, False, True]),
    st.one_of(st.none(), st.none(), st.integers(0, 99)),
    st.integers(0, 1),
)
values = st.one_of(
    st.none(),
    st.sampled_from(
        [(("quantity", Decimal(7)),), (("product", "routes"), ("quantity", Decimal("0.1"))), (("user", None),)]
    ),
)

# ---------------------------------------------------------------- what goes wrong

# As the database itself says it; a trigger says it once, in the middle of a transaction or at its end.
TRAP: Final = """
CREATE SEQUENCE countdown MINVALUE -1000;
CREATE TABLE at_commit (how text NOT NULL);

CREATE FUNCTION strike(how text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CASE how
        WHEN 'slow' THEN PERFORM pg_sleep(0.03);
        WHEN 'very slow' THEN PERFORM pg_sleep(2.5);
        WHEN 'terminated' THEN PERFORM pg_terminate_backend(pg_backend_pid());
        WHEN 'all terminated' THEN
            PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'metering';
        ELSE RAISE EXCEPTION 'a fault of the test' USING ERRCODE = how;
    END CASE;
END $$;

CREATE FUNCTION count_down() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('countdown') = 0 THEN
        IF TG_ARGV[1] = 'at commit' THEN INSERT INTO at_commit VALUES (TG_ARGV[0]);
        ELSE PERFORM strike(TG_ARGV[0]);
        END IF;
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION strike_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM strike(NEW.how);
    RETURN NEW;
END $$;

CREATE CONSTRAINT TRIGGER strike_at_commit AFTER INSERT ON at_commit DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION strike_at_commit();
"""
DISK_FULL, DEADLOCK, SERIALIZATION, UNFORESEEN = "53100", "40P01", "40001", "P0001"
HOWS: Final = ("slow", "terminated", "all terminated", DISK_FULL, DEADLOCK, SERIALIZATION, UNFORESEEN)
# How the server says that a transaction is committed.
COMMITTED: Final = b"COMMIT\0"


class Strike(NamedTuple):
    """A row at which the database fails a transaction, once."""

    table: str
    row: int
    when: str
    how: str

    @property
    def statements(self) -> str:
        """What sets the trap."""
        return (
            f"ALTER SEQUENCE countdown RESTART WITH {1 - self.row}; "
            f"CREATE TRIGGER count_down BEFORE INSERT ON {self.table} "
            f"FOR EACH ROW EXECUTE FUNCTION count_down('{self.how}', '{self.when}')"
        )


class Cut(NamedTuple):
    """A connection that ends when so many bytes were sent, or (None) in place of the answer to COMMIT."""

    after_bytes: int | None


strikes = st.builds(
    Strike,
    st.sampled_from(["event_identity", "event"]),
    st.integers(1, 4),
    st.sampled_from(["at once", "at commit"]),
    st.sampled_from(HOWS),
)
cuts = st.builds(Cut, st.one_of(st.none(), st.integers(1, 2_000)))
faults = st.one_of(strikes, cuts)
# Whoever has written a name first holds up the others with it.
SLOW: Final = Strike("event_identity", 1, "at once", "slow")


# ---------------------------------------------------------------- the services


@asynccontextmanager
async def _alive(app: ASGIApp) -> AsyncIterator[None]:
    """The application, started and stopped as a server does it."""
    said: asyncio.Queue[Message] = asyncio.Queue()
    heard: asyncio.Queue[Message] = asyncio.Queue()
    running = asyncio.create_task(app({"type": "lifespan", "state": {}}, said.get, heard.put))
    await said.put({"type": "lifespan.startup"})
    assert (await heard.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        await said.put({"type": "lifespan.shutdown"})
        assert (await heard.get())["type"] == "lifespan.shutdown.complete"
        await running


class Running:
    """A service in this process, asked over HTTP."""

    def __init__(self, database_url: str, **chosen: Any) -> None:
        self._settings = Settings(database_url=database_url, log_level="error", bootstrap_key=ADMIN_KEY, **chosen)
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Start it."""
        app = create_app(self._settings, LIMITS)
        await self._stack.enter_async_context(_alive(app))
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        self._client = httpx2.AsyncClient(transport=transport, base_url="http://service", headers=bearer(ADMIN_KEY))

    async def close(self) -> None:
        """Stop it; what it has taken it answers."""
        await self._stack.aclose()

    async def record(self, request: Request) -> tuple[int, Answer | None]:
        """The status, and the receipt, if there is one."""
        response = await self._client.post(
            "/v1/events",
            content=request.body(),
            headers={"Content-Type": "application/json"},
            params={"atomic": "true"} if request.atomic else {},
        )
        if response.status_code not in {200, 422}:
            return response.status_code, None
        receipt = response.json()
        rejected = tuple((each["index"], each["code"], each["id"]) for each in receipt["rejected"])
        return response.status_code, Answer(response.status_code, receipt["accepted"], receipt["duplicates"], rejected)

    async def correct(self, order: Order) -> tuple[int, str | None]:
        """The status, and the name of the answer, if there is one."""
        given: dict[str, Any] = {**order.name._asdict(), "reason": "a test", "void": order.values is None}
        if order.occurred_at is not None:
            given["occurredAt"] = order.occurred_at.isoformat()
        if order.values is not None:
            given["values"] = {name: format(of, "f") if isinstance(of, Decimal) else of for name, of in order.values}
        status, data = await self._ask(CORRECT, {"input": given})
        return status, data and data["correctEvent"]["__typename"]

    async def restart(self) -> None:
        """Stop it and start it again."""
        await self.close()
        await self.open()

    async def totals(self) -> Totals | None:
        """By account and product: the sum of the quantities, and the count of the events; None without an answer."""
        status, data = await self._ask(TOTALS, {})
        if status == 503:
            return None
        return {
            (node["key"]["account"], node["key"]["product"]): (Decimal(total["quantity"]), int(total["events"]))
            for node in data["usage"]["groups"]["nodes"]
            for total in node["totals"]
        }

    async def _ask(self, query: str, variables: Mapping[str, Any]) -> tuple[int, Any]:
        response = await self._client.post("/graphql", json={"query": query, "variables": variables})
        answer = response.json()
        assert ("errors" in answer) == (response.status_code != 200), answer
        return response.status_code, answer.get("data")


class Shown(NamedTuple):
    """What the database has, in the words of the model."""

    # What is in effect of each event.
    events: Mapping[tuple[Name, datetime], Content | None]
    # When the event occurred that claims a name for a day.
    claims: Mapping[tuple[Name, date], datetime]
    # The claims by their contents, whatever these are hashed to.
    alike: frozenset[frozenset[tuple[Name, date]]]
    corrections: int


async def recorded(connection: asyncpg.Connection) -> Shown:
    """What is recorded now."""
    async with connection.transaction(isolation="repeatable_read"):
        events = await connection.fetch("SELECT * FROM event")
        claims = await connection.fetch("SELECT * FROM event_identity")
        corrections = await connection.fetchval("SELECT count(*) FROM event_correction")
    names = {(row["account"], row["key"]): Name(row["account"], row["source"], row["event_id"]) for row in events}
    alike: dict[bytes, set[tuple[Name, date]]] = {}
    for row in claims:
        alike.setdefault(row["content"], set()).add((names[row["account"], row["key"]], row["day"]))
    in_effect = {
        (names[row["account"], row["key"]], row["occurred_at"]): None
        if row["voided"]
        else Content(row["product"], row["user"], row["quantity"])
        for row in events
    }
    assert len(events) == len(in_effect)
    return Shown(
        in_effect,
        {(names[row["account"], row["key"]], row["day"]): row["occurred_at"] for row in claims},
        frozenset(map(frozenset, alike.values())),
        corrections,
    )


def shown(books: Books) -> Shown:
    """What the database must have for these books."""
    alike: dict[Content, set[tuple[Name, date]]] = {}
    for claim, (_, content) in books.claims.items():
        alike.setdefault(content, set()).add(claim)
    claims = {claim: occurred_at for claim, (occurred_at, _) in books.claims.items()}
    return Shown(books.events, claims, frozenset(map(frozenset, alike.values())), books.corrections)


# ---------------------------------------------------------------- two services, and what becomes of what they are asked


class Asked(NamedTuple):
    """Something to ask of a service until it answers, and what it does to the books."""

    ask: Callable[[Running], Awaitable[tuple[int, Any]]]
    apply: Callable[[Books], tuple[Books, Any]]
    # Which of the two services.
    service: int


def recording(request: Request, service: int) -> Asked:
    """A request of events."""
    return Asked(lambda running: running.record(request), lambda books: books.record(request), service)


def correcting(order: Order, service: int) -> Asked:
    """A correction."""
    return Asked(lambda running: running.correct(order), lambda books: books.correct(order), service)


class Pair:
    """Two services on one database, and the books that a careful clerk would keep beside them."""

    def __init__(
        self, proxies: Sequence[Proxy], connection: asyncpg.Connection, window_minutes: int, **chosen: Any
    ) -> None:
        self._proxies = proxies
        self._connection = connection
        self._services = [Running(proxy.url, restamp_window_minutes=window_minutes, **chosen) for proxy in proxies]
        self.books = Books(restamp_window=timedelta(minutes=window_minutes))

    @classmethod
    @asynccontextmanager
    async def on(
        cls, database_url: str, window_minutes: int = 60, refresh_seconds: float = 3_600
    ) -> AsyncIterator["Pair"]:
        """The pair on an empty database, until the block ends."""
        with Proxy(database_url) as one, Proxy(database_url) as other:
            connection = await asyncpg.connect(database_url)
            pair = cls([one, other], connection, window_minutes, refresh_seconds=refresh_seconds)
            try:
                await connection.execute(TRAP)
                for service in pair._services:
                    await service.open()
                yield pair
            finally:
                for service in pair._services:
                    await service.close()
                await connection.close()

    async def play(
        self, asked: Sequence[Asked], fault: Strike | Cut | None = None, restarted: int | None = None
    ) -> list[Done]:
        """Ask all at once, each until it is answered, and compare what is recorded then with all that may come of it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._arm(fault)
            restarts = [] if restarted is None else [self._services[restarted]]
            done, _ = await asyncio.gather(
                asyncio.gather(*(self._until_answered(each, fault, alone=len(asked) == 1) for each in asked)),
                asyncio.gather(*(service.restart() for service in restarts)),
            )
            await self._disarm(fault)
            found = await recorded(self._connection)
            ends = possible(self.books, done)
            right = [books for books in ends if shown(books) == found]
            assert right, self._explained(done, ends, found)
            self.books = right[0]
            for service in self._services:
                assert self.books.totals() == await self._totals(service)
        return done

    async def _until_answered(self, asked: Asked, fault: Strike | Cut | None, *, alone: bool) -> Done:
        tries = 1
        while True:
            status, answer = await asked.ask(self._services[asked.service])
            if answer is not None:
                return Done(asked.apply, answer, tries)
            # A fault that nobody foresaw is no reason to promise that it will pass.
            unforeseen = isinstance(fault, Strike) and fault.how == UNFORESEEN
            assert status == 503 or (status == 500 and unforeseen), status
            if alone and isinstance(fault, Strike):
                # Whatever the database said before the commit, nothing of the transaction is left.
                assert shown(self.books) == await recorded(self._connection)
            tries += 1
            await asyncio.sleep(_RETRY_SECONDS)

    async def _totals(self, service: Running) -> Totals:
        totals = await service.totals()
        while totals is None:
            # A service whose connections were cut may find out only now; asked again, it has others.
            totals = await service.totals()
        return totals

    async def _arm(self, fault: Strike | Cut | None) -> None:
        if isinstance(fault, Strike):
            await self._connection.execute(fault.statements)
        elif isinstance(fault, Cut):
            for proxy in self._proxies:
                if fault.after_bytes is None:
                    proxy.cut_at_reply(COMMITTED)
                else:
                    proxy.cut_after([fault.after_bytes])

    async def _disarm(self, fault: Strike | Cut | None) -> None:
        if isinstance(fault, Strike):
            await self._drop_trigger(fault.table)
        for proxy in self._proxies:
            proxy.pass_all()

    async def _drop_trigger(self, table: str) -> None:
        """Whoever rolls up locks the table and its partitions in another order than this does."""
        while True:
            with suppress(asyncpg.DeadlockDetectedError):
                await self._connection.execute(f"DROP TRIGGER count_down ON {table}")
                return

    def _explained(self, done: Sequence[Done], ends: Sequence[Books], found: Shown) -> str:
        lines = ["answered, and expected of each alone:"]
        lines += [f"  {each.answer}, {each.apply(self.books)[1]}, after {each.tries} tries" for each in done]
        for books in ends:
            for name, of, expected in zip(Shown._fields, found, shown(books), strict=True):
                if of != expected:
                    lines.append(f"{name} are\n  {of}, not\n  {expected}")
        return "\n".join(lines)


# ---------------------------------------------------------------- the machine


class ExactlyOnce(RuleBasedStateMachine):
    """Everything that may happen to two services, in any order."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Sent] = []
        self.requests: list[Request] = []
        self.database_url = self.server.clone()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()

    def teardown(self) -> None:
        """End the services and remove their database."""
        self.runner.run(self.stack.aclose())
        self.runner.close()
        self.server.drop(self.database_url)

    @initialize(window_minutes=st.sampled_from([60, 60, 0, 1_440]), refresh_seconds=st.sampled_from([3_600.0, 0.1]))
    def begin(self, window_minutes: int, refresh_seconds: float) -> None:
        """Nothing is recorded yet; the refresher rests, or is always at work."""
        pair = Pair.on(self.database_url, window_minutes, refresh_seconds)
        self.pair = self.runner.run(self.stack.enter_async_context(pair))

    @rule(batch=batches, fault=faults)
    def one_request(self, batch: Batch, fault: Strike | Cut) -> None:
        """One request meets a fault."""
        self._play([self._recording(batch)], fault)

    @rule(drafted=st.lists(batches, min_size=1, max_size=4), fault=st.one_of(st.none(), faults))
    def several_requests(self, drafted: Sequence[Batch], fault: Strike | Cut | None) -> None:
        """Several requests at once."""
        self._play(list(map(self._recording, drafted)), fault)

    @rule(batch=batches, times=st.integers(2, 4))
    def the_same_request(self, batch: Batch, times: int) -> None:
        """One request several times at once, through both services, while the database is slow."""
        asked = self._recording(batch)
        self._play([asked._replace(service=number % 2) for number in range(times)], SLOW)

    @rule(
        place=st.integers(0, 99),
        drafted=st.lists(st.tuples(values, st.booleans(), st.integers(0, 1)), min_size=1, max_size=3),
        batch=batches,
        fault=st.one_of(st.none(), cuts),
    )
    def corrections(self, place: int, drafted: Sequence[Any], batch: Batch, fault: Cut | None) -> None:
        """Corrections of one event at once, beside a request that may hold it again."""
        if self.sent:
            of = self.sent[place % len(self.sent)]
            orders = [
                correcting(Order(of.name, of.occurred_at if dated else None, to), service)
                for to, dated, service in drafted
            ]
            self._play([*orders, self._recording(batch)], fault)

    @rule(number=st.integers(0, 1), drafted=st.lists(batches, max_size=3))
    def restart(self, number: int, drafted: Sequence[Batch]) -> None:
        """A service stops and starts again, with requests under way; nothing is kept but the database."""
        self._play(list(map(self._recording, drafted)), restarted=number)

    def _play(self, asked: Sequence[Asked], fault: Strike | Cut | None = None, restarted: int | None = None) -> None:
        self.runner.run(self.pair.play(asked, fault, restarted))

    def _recording(self, batch: Batch) -> Asked:
        if batch.again is not None and self.requests:
            request = self.requests[batch.again % len(self.requests)]
        else:
            request = Request(tuple(map(self._event, batch.drafts)), batch.atomic)
            self.requests.append(request)
            self.sent.extend(event for event in request.events if event.flaw is None)
        return recording(request, batch.service)

    def _event(self, draft: Draft) -> Sent:
        at = draft.moment.at(self.pair.books.restamp_window)
        if draft.again is None or not self.sent:
            return Sent(draft.name, at, draft.content, draft.spelling, draft.flaw)
        event = self.sent[draft.again % len(self.sent)]
        return event._replace(occurred_at=at if draft.restamped else event.occurred_at, spelling=draft.spelling)


@pytest.mark.machine
def test_every_event_counts_once(servers: dict[str, Server], engine: str) -> None:
    """However requests, retries, conflicts, corrections, faults and restarts are mixed, the database has what the model has."""

    class OnThisEngine(ExactlyOnce):
        server = servers[engine]

    play_machine(OnThisEngine, engine, plays=14, steps=40)


# ---------------------------------------------------------------- the worst moments, one by one


def event(id: str = "1", at: datetime = MIDNIGHT, content: Content = CONTENTS[0]) -> Sent:
    """An event of account a."""
    return Sent(Name("a", "s", id), at, content)


def play(database_url: str, scenario: Callable[[Pair], Awaitable[None]]) -> None:
    """Play a scenario with a pair of its own."""

    async def played() -> None:
        async with Pair.on(database_url) as pair:
            await scenario(pair)

    asyncio.run(played())


@pytest.mark.parametrize("how", HOWS)
def test_a_transaction_that_fails_leaves_nothing(database_url: str, how: str) -> None:
    """Whatever the database says, at any row or at the commit: nothing is left of it, and the next try is taken in full."""

    async def scenario(pair: Pair) -> None:
        await pair.play([recording(Request((event("0"),), atomic=False), 0)])
        places = [
            Strike(table, row, when, how)
            for table in ("event_identity", "event")
            for row in (1, 2, 3)
            for when in ("at once", "at commit")
        ]
        for number, strike in enumerate(places):
            events = tuple(event(f"{number} {place}") for place in range(3))
            (done,) = await pair.play([recording(Request(events, atomic=False), 0)], strike)
            assert Answer(200, 3, 0, ()) == done.answer
            # A deadlock and the like are tried again by the service itself.
            assert (1 if how in {"slow", DEADLOCK, SERIALIZATION} else 2) == done.tries, strike

    play(database_url, scenario)


# More than the background commits until it rests.
_ACTS: Final = 20


def test_a_commit_that_nobody_heard_of_counts_once(database_url: str) -> None:
    """Where the connection ends between the commit and its answer, the request is not acknowledged; again, it is a duplicate."""

    async def cut(pair: Pair, act: Callable[[int], Any]) -> Any:
        """What becomes of the first act whose own commit is cut: what works in the background commits too, at its start."""
        for number in range(_ACTS):
            (done,) = await pair.play([act(number)], Cut(None))
            if done.tries > 1:
                return done
        raise AssertionError("no commit of ours was cut")

    def record(number: int) -> Any:
        events = (event(f"{number} a"), event(f"{number} b"), event("0", content=CONTENTS[1]))
        return recording(Request(events, atomic=False), 0)

    async def scenario(pair: Pair) -> None:
        known = tuple(event(f"known {number}") for number in range(_ACTS))
        await pair.play([recording(Request((event("0"), *known), atomic=False), 0)])
        done = await cut(pair, record)
        assert (Answer(200, 0, 2, ((2, "identity_conflict", "0"),)), 2) == (done.answer, done.tries)

        done = await cut(pair, lambda number: correcting(Order(Name("a", "s", f"known {number}"), None, None), 0))
        assert ("Conflict", 2) == (done.answer, done.tries)

    play(database_url, scenario)


def test_what_is_not_written_in_time_is_refused_and_counts_once(database_url: str) -> None:
    """A write that takes longer than it may is answered 503; it may end well nevertheless, and is a duplicate then."""

    async def prepare() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute(TRAP + Strike("event", 1, "at once", "very slow").statements)
        await connection.close()

    asyncio.run(prepare())
    with running(database_url, Limits(write_seconds_max=1)) as api:

        def send() -> httpx2.Response:
            return api.client.post("/v1/events", json=event().written(), headers=bearer(ADMIN_KEY))

        refused = send()
        assert (503, "1", "database_unavailable") == (
            refused.status_code,
            refused.headers["Retry-After"],
            refused.json()["code"],
        )
        # Each of these waits for as long as it may.
        answers = list(takewhile(lambda answer: answer.status_code == 503, (send() for _ in range(10))))
        assert len(answers) < 10
        assert {"accepted": 0, "duplicates": 1, "rejected": []} == send().json()


def test_of_many_at_once_one_is_accepted(database_url: str) -> None:
    """An event in eight requests at once, to both services, with times on both sides of midnight, is accepted by one of them."""

    async def scenario(pair: Pair) -> None:
        requests = [
            Request((event(at=MIDNIGHT + timedelta(minutes=number - 4)), event(f"other {number}")), atomic=False)
            for number in range(8)
        ]
        done = await pair.play([recording(request, number % 2) for number, request in enumerate(requests)], SLOW)
        assert [Answer(200, 1, 1, ())] * 7 + [Answer(200, 2, 0, ())] == sorted(each.answer for each in done)

    play(database_url, scenario)


def test_an_atomic_request_that_contradicts_itself_names_what_is_in_conflict(database_url: str) -> None:
    """Of two events of a name in an atomic request the one that differs from the recorded one is named, be it the first."""

    async def scenario(pair: Pair) -> None:
        await pair.play([recording(Request((event(),), atomic=False), 0)])
        request = Request((event(content=CONTENTS[1]), event()), atomic=True)
        (done,) = await pair.play([recording(request, 0)])
        assert Answer(422, 0, 0, ((0, "identity_conflict", "1"),)) == done.answer

    play(database_url, scenario)


def test_an_atomic_request_of_duplicates_is_taken(database_url: str) -> None:
    """Two events that claim a day together are each a duplicate of what is recorded beside it: nothing is in conflict."""

    async def scenario(pair: Pair) -> None:
        noon = timedelta(hours=12)
        recorded = (event(at=MIDNIGHT - noon), event(at=MIDNIGHT + 3 * noon, content=CONTENTS[1]))
        await pair.play([recording(Request(recorded, atomic=False), 0)])
        again = (event(at=MIDNIGHT), event(at=MIDNIGHT + 2 * noon, content=CONTENTS[1]))
        (done,) = await pair.play([recording(Request(again, atomic=True), 0)])
        assert Answer(200, 0, 2, ()) == done.answer

    play(database_url, scenario)
