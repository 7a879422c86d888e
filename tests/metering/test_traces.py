"""Traces below HTTP: which settings they need, what a batch of many requests is in each of them, and what receivers are told."""

import asyncio
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from metering.cli.work import _work
from metering.config import Settings, read_settings
from metering.errors import ConfigurationError
from metering.ingest.batch import Writer
from metering.limits import LIMITS
from metering.loops import this_process
from metering.spans import begin
from metering.store.event_log import EventLog
from metering.store.pool import Database
from metering.store.queries import all_statements
from metering.store.traced_connection import name_of, rows_of
from metering.traces import open_traces
from tests.collecting import Collector, collecting
from tests.conftest import ENGINES, Server, clean_environment
from tests.metering.ingest.test_fairness import Clients
from tests.metering.outbox.posting import posting
from tests.metering.outbox.receiver import Received, answer, receiving

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:4318/v1/traces"


def traced(server: Server, scenario: Callable[[Database], Coroutine[Any, Any, None]]) -> Collector:
    """Play a scenario in which traces are collected, and return what was."""

    async def played(url: str, address: str) -> None:
        settings = Settings(database_url=url, traces_url=address)
        async with asyncio.timeout(60), open_traces(settings, LIMITS, "test:1"):
            database = await Database.connect(settings, LIMITS)
            try:
                await scenario(database)
            finally:
                await database.close()

    with collecting() as collector, server.cloned() as url:
        asyncio.run(played(url, collector.url))
    return collector


def test_requests_of_one_batch_link_to_it(servers: dict[str, Server]) -> None:
    """Two requests that are committed together have one batch: it is a part of the first, and the other and it link to each
    other; its statements are sent once.
    """

    async def scenario(database: Database) -> None:
        writer = Writer(EventLog(database), LIMITS)
        clients = Clients(writer, LIMITS)
        requests = []
        for sender, events in (("one", 2), ("other", 3)):
            with begin(f"request of {sender}"):
                requests.append(clients.send(sender, 0, events))
        await asyncio.sleep(0)
        assert 5 == writer.events
        writer.start()
        await asyncio.gather(*requests)
        await writer.close()

    collector = traced(servers[ENGINES[0]], scenario)
    first, second = (collector.one(f"request of {sender}") for sender in ("one", "other"))
    waiting, other = (collector.one("write events", each.trace_id) for each in (first, second))
    batch = collector.one("write batch")

    assert waiting.is_below(first)
    assert other.is_below(second)
    assert batch.is_below(waiting)
    assert 2 == batch.attributes["metering.requests"]
    assert ((other.trace_id, other.span_id),) == batch.links
    assert ((batch.trace_id, batch.span_id),) == other.links
    assert () == waiting.links
    assert 5 == collector.one("COPY event").attributes["metering.rows"]
    assert collector.one("COPY event").is_below(batch)


def test_a_receiver_is_told_the_span_of_its_delivery(servers: dict[str, Server]) -> None:
    """A webhook carries the `traceparent` of the attempt, which is a span below the run that sent it, with the status that was
    answered; one that is not taken has failed.
    """
    received: list[Received] = []

    async def refuse(_received: Received) -> str:
        return answer(500)

    async def scenario(database: Database) -> None:
        async with posting(database) as post, receiving() as taking, receiving(refuse) as refusing:
            await post.put("taking", taking.url, types=("test",))
            await post.put("refusing", refusing.url, types=("test",))
            await post.publish()
            await post.dispatcher.run()
            received.extend([*taking.received, *refusing.received])

    collector = traced(servers[ENGINES[0]], scenario)
    deliveries = {each.attributes["http.response.status_code"]: each for each in collector.named("delivery")}
    runs = collector.named("loop deliveries")

    told = [each.headers["traceparent"].rpartition("-") for each in received]
    assert [f"00-{deliveries[status].trace_id}-{deliveries[status].span_id}" for status in (204, 500)] == [
        parent for parent, _, _ in told
    ]
    # Of the flags the first says that it is recorded.
    assert [1, 1] == [int(flags, 16) & 1 for _, _, flags in told]
    assert (False, True) == (deliveries[204].failed, deliveries[500].failed)
    assert "500" == deliveries[500].attributes["error.type"]
    assert all(any(each.is_below(run) for run in runs) for each in deliveries.values())


def test_without_a_place_nothing_is_traced(servers: dict[str, Server]) -> None:
    """A share of nothing begins no trace, and a statement outside of all spans is none."""

    async def scenario(database: Database) -> None:
        async with database.connection() as connection:
            assert 1 == await connection.fetchval("SELECT 1")
        with begin("told"):
            pass
        async with open_traces(Settings(traces_url=ADDRESS, traces_share=0.0), LIMITS, "test:2"):
            with begin("untold") as span:
                assert span is not None
                assert not span.records

    collector = traced(servers[ENGINES[0]], scenario)

    assert ["told"] == [each.name for each in collector.spans]


def test_background_work_is_traced_until_it_is_told_to_stop(database_url: str) -> None:
    """`metering work` sends the runs of its loops by its own name, also what is left when SIGTERM ends it."""

    async def worked(address: str) -> None:
        working = asyncio.create_task(_work(Settings(database_url=database_url, traces_url=address)))
        connection = await asyncpg.connect(database_url)
        async with asyncio.timeout(30):
            # Once a run is on record it listens to signals.
            while not await connection.fetchval("SELECT count(*) FROM background_loop WHERE name = 'refresh'"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            await working
        await connection.close()

    with collecting() as collector:
        asyncio.run(worked(collector.url))

    assert {this_process()} == {each.process for each in collector.named("loop refresh")}
    assert collector.below(collector.named("loop refresh")[0])


_HUNG: Final = """
import asyncio, sys
import msgspec
from metering.config import Settings
from metering.limits import LIMITS
from metering.spans import begin
from metering.telemetry import configure_logs
from metering.traces import open_traces

async def main():
    limits = msgspec.structs.replace(
        LIMITS, trace_spans_max=256, trace_batch_spans_max=64, trace_export_seconds_max=600, trace_flush_seconds_max=1
    )
    async with open_traces(Settings(traces_url=sys.argv[1]), limits, "hung"):
        for number in range(10 * limits.trace_spans_max):
            with begin("work"):
                pass
    print("done")

configure_logs("warning")
asyncio.run(main())
"""


def test_a_collector_that_hangs_holds_up_no_work_and_no_end() -> None:
    """A collector takes a request and never answers: spans that find no room are dropped, the work is done, and the process
    ends, with the request under way.
    """
    with collecting(answers=False) as collector:
        # Far less than the request may take.
        ran = subprocess.run(
            [sys.executable, "-c", _HUNG, collector.url], capture_output=True, text=True, timeout=60, check=True
        )
        assert collector.asked.is_set()
        assert [] == collector.spans

    assert "done\n" == ran.stdout
    assert "Queue full, dropping Span" in ran.stderr
    assert "spans_given_up" in ran.stderr


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;", "BEGIN"),
        ("COMMIT;", "COMMIT"),
        ("SET LOCAL enable_nestloop = off", "SET"),
        ("SELECT pg_try_advisory_lock($1)", "SELECT"),
        ("-- reach: account\nSELECT sum(x) FROM usage_day JOIN event USING (account)", "SELECT event, usage_day"),
        ("WITH part AS (SELECT * FROM usage_day) SELECT * FROM part, unnest($1) FROM unnest ($2)", "WITH usage_day"),
        ("INSERT INTO event SELECT 'it''s FROM acme' WHERE x = 'FROM acme'", "INSERT event"),
        ("nothing at all", "SQL"),
    ],
)
def test_a_built_statement_is_told_by_its_verb_and_tables(statement: str, name: str) -> None:
    """What is built has no name: its first word and its tables are told, and nothing that stands in quotes or comments."""
    assert name == name_of(statement)


def test_a_static_statement_is_told_by_its_name() -> None:
    """Every statement of sql/*.sql is told as its file and its name in it."""
    assert {name: name for name in all_statements()} == {name: name_of(text) for name, text in all_statements().items()}


@pytest.mark.parametrize(
    ("status", "rows"), [("INSERT 0 5", 5), ("COPY 12", 12), ("UPDATE 0", 0), ("COMMIT", None), ("", None)]
)
def test_rows_are_read_from_the_status(status: str, rows: int | None) -> None:
    """The server's word for what it did ends in how many rows it changed, where it changed any."""
    assert ({} if rows is None else {"metering.rows": rows}) == rows_of(status)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:4318/v1/traces",
        "http://127.0.0.1:4318",
        "http://127.0.0.1:4318/",
        "http://user:hushhush@collector/v1/traces",
        "https://collector/v1/traces?key=hushhush",
        "https://collector/v1/traces#hushhush",
        "ftp://collector/v1/traces",
    ],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """What has no path, or could hold a secret, is refused by the variable's name and is not repeated; a share is 0 to 1."""
    with pytest.raises(ConfigurationError) as refused:
        read_settings({"METERING_TRACES_URL": address, "METERING_TRACES_SHARE": "1.5"})

    faults = sorted(refused.value.faults)
    assert ["METERING_TRACES_SHARE=1.5", "METERING_TRACES_URL"] == [fault.partition(":")[0] for fault in faults]
    assert "hushhush" not in faults[1]


_READ = """
import sys
from metering.config import read_settings
from metering.errors import ConfigurationError

read_settings({})
try:
    read_settings({"METERING_TRACES_URL": sys.argv[1]})
except ConfigurationError as error:
    print(*error.faults)
"""


def test_without_the_extra_it_is_said_what_to_install(tmp_path: Path) -> None:
    """Where the extra's packages are not installed, settings with an address are at fault, and say what to install; without one
    nothing is missed.
    """
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith("opentelemetry"):
            (tmp_path / entry.name).symlink_to(entry)
    # Without `site` nothing is found but what is named here.
    found = os.pathsep.join([str(ROOT), str(tmp_path)])
    ran = subprocess.run(
        [sys.executable, "-S", "-c", _READ, ADDRESS],
        env=clean_environment(PYTHONPATH=found),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert (
        "METERING_TRACES_URL: needs opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http; "
        "install metering[tracing], or unset the variable.\n"
    ) == ran.stdout
