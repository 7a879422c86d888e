"""Latency of typical usage questions over GraphQL while events come in, beside raw SQL over the events: `make bench`.

Profile: see dataset.py and live.py. The default is small, a few minutes for each engine; README.md has the command of the
real thing, which takes hours. Everything runs on one machine: client, service, PostgreSQL.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx2
import msgspec
import uvloop
from bench import ENGINES, KEY, database, percentile, print_table, scratch, service
from client import Client
from database_time import DatabaseTime, disk
from filled import DAYS, fill, settled
from live import Live, account_of, late_bodies

# A question that takes long is asked less often.
ASKED_SECONDS_MAX = 120.0
RAW_ASKED = 3
RAW_SECONDS_MAX = 20.0
LATE_EVENTS = 100_000
LATE_DAYS = 60
LATE_SECONDS_MAX = 1_800
BIGGEST = "account-0000"

Asked = tuple[datetime, datetime, str]


class Question(msgspec.Struct, frozen=True):
    """What is asked, with what is chosen by chance; and the same as SQL over events: $1 from, $2 to, $3 the account."""

    name: str
    narrowed: Mapping[str, object]
    selection: str
    choose: Callable[[random.Random, datetime], Asked]
    raw: str
    one_account: bool = True

    def request(self, asked: Asked) -> dict[str, object]:
        """The body of a request: the document is the same each time, as a front end's is."""
        start, end, account = asked
        query = {"period": {"from": f"{start:%FT%TZ}", "to": f"{end:%FT%TZ}"}, **self.narrowed}
        if self.one_account:
            query["filter"] = {"account": {"in": [account]}}
        return {"query": _DOCUMENT % self.selection, "variables": {"query": query}}


_DOCUMENT = """query ($query: UsageQuery!) {
    usage(query: $query) { __typename ... on UsageReport { %s } }
}"""


def _until_now(days: int) -> Callable[[random.Random, datetime], Asked]:
    return lambda rolls, now: (now - timedelta(days=days), now, f"account-{account_of(rolls):04d}")


def _month(rolls: random.Random, now: datetime) -> Asked:
    """This calendar month, up to now, or one of the two before."""
    end = now
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for _ in range(rolls.randrange(3)):
        end, start = start, (start - timedelta(days=1)).replace(day=1)
    return start, end, BIGGEST


def _week(rolls: random.Random, now: datetime) -> Asked:
    """A week that ends now, or (every other time) at any second before."""
    end = now - timedelta(seconds=rolls.choice([0, rolls.randrange((DAYS - 7) * 86_400)]))
    return end - timedelta(days=7), end, BIGGEST


_SERIES = "groups { nodes { key { %s } series(bucket: %s) { columns { from quantity } } } }"
_TOP = "groups(first: %d) { nodes { key { %s } totals { quantity events } } }"
_SQL = "SELECT %s, unit, sum(quantity), count(*) FROM event WHERE occurred_at >= $1 AND occurred_at < $2 AND NOT voided"
_IN_ACCOUNT = " AND account = $3 GROUP BY %s, unit"
_DAY = "date_trunc('day', occurred_at, 'UTC'), product"
_HOUR = "date_trunc('hour', occurred_at, 'Asia/Kolkata'), \"user\""
QUESTIONS = (
    Question("one account, 30 days by day and product", {"groupBy": ["PRODUCT"]}, _SERIES % ("product", "DAY"),
             _until_now(30), _SQL % _DAY + _IN_ACCOUNT % _DAY),
    Question("one account, 30 days, top 20 users", {"groupBy": ["USER"]}, _TOP % (20, "user"),
             _until_now(30), _SQL % '"user"' + _IN_ACCOUNT % '"user"' + " ORDER BY 4 DESC LIMIT 20"),
    Question("one account, 30 days, top 20 devices", {"groupBy": ["DEVICE"]}, _TOP % (20, "device"),
             _until_now(30), _SQL % "device" + _IN_ACCOUNT % "device" + " ORDER BY 4 DESC LIMIT 20"),
    Question("everyone, 90 days by day and product", {"groupBy": ["PRODUCT"]}, _SERIES % ("product", "DAY"),
             _until_now(90), _SQL % _DAY + f" AND $3 <> '' GROUP BY {_DAY}, unit", one_account=False),
    Question("top 50 accounts of a month", {"groupBy": ["ACCOUNT"]}, _TOP % (50, "account"),
             _month, _SQL % "account" + " AND $3 <> '' GROUP BY account, unit ORDER BY 4 DESC LIMIT 50",
             one_account=False),
    Question("the biggest account, a week by hour and user in Asia/Kolkata",
             {"groupBy": ["USER"], "timeZone": "Asia/Kolkata"}, _SERIES % ("user", "HOUR"),
             _week, _SQL % _HOUR + _IN_ACCOUNT % _HOUR),
)  # fmt: skip

_LATE_PENDING = "SELECT count(*) FROM pending_bucket WHERE bucket < now() - interval '45 minutes'"


async def gone(connection: asyncpg.Connection, statement: str, seconds_max: float) -> float:
    """Wait until there is nothing left of what a statement counts, and return the seconds it took."""
    started = time.monotonic()
    async with asyncio.timeout(seconds_max):
        # Another process brings it about, so there is nothing to await but time.
        while await connection.fetchval(statement):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return time.monotonic() - started


async def ask(client: httpx2.AsyncClient, request: dict[str, object]) -> dict[str, object]:
    """Ask once."""
    answer = (await client.post("/graphql", json=request)).json()
    if "errors" in answer or answer["data"]["usage"]["__typename"] != "UsageReport":
        raise SystemExit(f"{request}: {answer}")
    usage: dict[str, object] = answer["data"]["usage"]
    return usage


async def asked_again(client: httpx2.AsyncClient, question: Question, rolls: random.Random, count: int) -> list[float]:
    """Ask a question so many times, of other accounts and periods; the seconds that each took."""
    took: list[float] = []
    deadline = time.monotonic() + ASKED_SECONDS_MAX
    while len(took) < count and time.monotonic() < deadline:
        request = question.request(question.choose(rolls, datetime.now(UTC)))
        started = time.perf_counter()
        await ask(client, request)
        took.append(time.perf_counter() - started)
    return took


async def measure(
    client: httpx2.AsyncClient, connection: asyncpg.Connection, question: Question, count: int
) -> list[str]:
    """A row for a question: over GraphQL, as often as it was asked before, and as raw SQL."""
    rolls = random.Random(question.name)
    await asked_again(client, question, rolls, count)
    took = await asked_again(client, question, rolls, count)
    raw: list[float] = []
    while len(raw) < RAW_ASKED and sum(raw) < RAW_SECONDS_MAX:
        asked = question.choose(rolls, datetime.now(UTC))
        started = time.perf_counter()
        await connection.fetch(question.raw, *asked, timeout=600)
        raw.append(time.perf_counter() - started)
    shown = [percentile(took, 0.5), percentile(took, 0.99), percentile(raw, 0.5)]
    return [question.name, str(len(took)), *(f"{seconds * 1_000:,.1f}" for seconds in shown)]


async def send_late(client: httpx2.AsyncClient, address: str, connection: asyncpg.Connection) -> list[list[str]]:
    """Send an hour's late batch; it is in every answer at once, and then worked off."""
    sender = await Client.connect(address)
    now = datetime.now(UTC)
    classification = f"late {now:%FT%TZ}"
    query = {
        "period": {"from": f"{now - timedelta(days=LATE_DAYS + 1):%FT%TZ}", "to": f"{now:%FT%TZ}"},
        "filter": {"classification": {"in": [classification]}},
    }
    request: dict[str, object] = {"query": _DOCUMENT % "totals { events }", "variables": {"query": query}}
    started = time.monotonic()
    sent = again = 0
    for body in late_bodies(LATE_EVENTS, LATE_DAYS, classification):
        status, answer = await sender.post(body)
        while status == httpx2.codes.SERVICE_UNAVAILABLE:
            # What takes longer than a write may is to be sent again.
            again += 1
            await asyncio.sleep(1)
            status, answer = await sender.post(body)
        if status != httpx2.codes.OK:
            raise SystemExit(f"{status}: {answer.decode()}")
        receipt = msgspec.json.decode(answer)
        sent += receipt["accepted"] + receipt["duplicates"]
    sending = time.monotonic() - started
    sender.close()
    started = time.monotonic()
    totals = (await ask(client, request))["totals"]
    answering = time.monotonic() - started
    counted = sum(int(total["events"]) for total in totals)  # type: ignore[attr-defined]
    if counted != sent:
        raise SystemExit(f"{counted} of {sent} late events are in the answer")
    await gone(connection, _LATE_PENDING, LATE_SECONDS_MAX)
    emptied = time.monotonic() - started
    return [
        [f"{sent:,} late events of {LATE_DAYS} days: seconds to send", f"{sending:.1f}"],
        ["bodies of these sent again, as a write took too long", f"{again}"],
        ["seconds until an answer over everyone counts them all", f"{answering:.1f}"],
        ["seconds until none of them is pending", f"{emptied:.1f}"],
    ]


async def measured(engine: str, url: str, address: str, asked: argparse.Namespace) -> None:
    """Wait until the load is dealt with, let events come in, and ask; print the table of questions, and of what it costs."""
    connection = await asyncpg.connect(url)
    before: int = await connection.fetchval("SELECT count(*) FROM event", timeout=600)
    title = f"{before:,} events of {DAYS} days on {engine}, while {asked.ingest_rate:,} events/s come in"
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    started = time.monotonic()
    await settled(connection)
    facts = [["seconds until the data set was rolled up, and everybody scored", f"{time.monotonic() - started:.0f}"]]
    async with httpx2.AsyncClient(base_url=address, headers=headers, timeout=600) as client:
        async with Live(address, asked.ingest_rate) as live, DatabaseTime(url) as times:
            await asyncio.sleep(asked.warm_minutes * 60)
            rows = [await measure(client, connection, question, asked.count) for question in QUESTIONS]
            live.check()
            print_table(f"Questions over {title}", ["question", "asked", "p50 ms", "p99 ms", "raw SQL p50 ms"], rows)
            facts += [["events/s that came in meanwhile", f"{live.accepted / live.seconds:,.0f}"], *times.rows()]
            facts += await send_late(client, address, connection)
            live.check()
        facts += await disk(connection)
    await connection.close()
    print_table(f"What it costs: {title}", ["", ""], facts)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000, help="events of the last 90 days recorded before")
    parser.add_argument("--ingest-rate", type=int, default=1_000, help="events/s that come in meanwhile")
    parser.add_argument("--warm-minutes", type=float, default=1, help="for how long, before anything is asked")
    parser.add_argument("--count", type=int, default=200, help="how often each question is asked")
    parser.add_argument("--engine", choices=ENGINES, help="only this one")
    asked = parser.parse_args()
    for engine in [asked.engine] if asked.engine else ENGINES:
        with scratch(engine) as directory, database(engine, directory) as (url, _):
            uvloop.run(fill(url, asked.events))
            with service(url, workers="2") as (address, _):
                uvloop.run(measured(engine, url, address, asked))


main()
