"""Everything at once for half an hour, and what breaks in it: is what was acknowledged stored, and are figures still right?

Profile: so many events a second by live.py's law, of which one in a hundred repeats one that was acknowledged and one in a
hundred is up to 20 days late; questions of usage, of statements and of customers' health; scores are computed as they are
due. The service is killed twice and PostgreSQL once, without a word, and started again; a request that was not answered is
sent again until it is. Ends with exit code 1 when anything is missing, counted twice, or not rolled up as its events say.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any, Final

import asyncpg
import httpx2
import msgspec
import uvloop
from acknowledged import SIZE, Acknowledged, Bodies, Body
from bench import ENGINES, KEY, percentile, print_table, scratch
from crashing import Crashing
from filled import UNSETTLED
from live import account_of
from questions import SUBSCRIPTION, offer

_HEADERS: Final = {"Authorization": f"Bearer {KEY}"}
_SENDERS: Final = 4
_ASKERS: Final = 4
_REPEATED: Final = 0.01
_LATE: Final = 0.01
_ANSWER_SECONDS_MAX: Final = 60
_AGAIN_AFTER_SECONDS: Final = 0.2
_SETTLED_SECONDS_MAX: Final = 3_600
_RECONCILED_SECONDS_MAX: Final = 3_600
# When, as shares of the time, what is killed.
_CRASHES: Final = ((0.25, "service"), (0.5, "postgres"), (0.75, "service"))
# What waits while something is away and starts again is no latency of a question.
_RECOVERY_SECONDS: Final = 10.0
_QUARTERS: Final = 4

_USAGE: Final = "query ($query: UsageQuery!) { usage(query: $query) { ... on UsageReport { %s } } }"
_TOTALS: Final = "totals { unit quantity events }"
_TOP: Final = "groups(first: 20) { nodes { key { user } totals { quantity } } }"
_DAYS: Final = "groups(first: 10) { nodes { key { product } series(bucket: DAY) { columns { quantity } } } }"
_STATEMENT: Final = (
    "query ($subscription: String!, $at: DateTime!) { statement(subscription: $subscription, at: $at) "
    "{ ... on Statement { total { amount } lines { key amount { amount } } } ... on Problem { message } } }"
)
_HEALTH: Final = "query ($account: String!) { account(key: $account) { key health { score band drivers { metric } } } }"


def _period(days: float, now: datetime) -> dict[str, str]:
    return {"from": f"{now - timedelta(days=days):%FT%TZ}", "to": f"{now:%FT%TZ}"}


def _asked(rolls: random.Random, now: datetime) -> tuple[str, dict[str, Any]]:
    """One question, by chance: its name, and the body of a request."""
    account = f"account-{account_of(rolls):04d}"
    one = {"filter": {"account": {"in": [account]}}}

    def usage(selection: str, query: Mapping[str, object]) -> dict[str, Any]:
        return {"query": _USAGE % selection, "variables": {"query": {"period": _period(20, now), **query}}}

    choices: dict[str, dict[str, Any]] = {
        "one account by day and product": usage(_DAYS, {"groupBy": ["PRODUCT"], **one}),
        "one account, top 20 users": usage(_TOP, {"groupBy": ["USER"], **one}),
        "everyone by day and product": usage(_DAYS, {"groupBy": ["PRODUCT"]}),
        "a statement": {
            "query": _STATEMENT,
            "variables": {"subscription": SUBSCRIPTION, "at": f"{now:%FT%TZ}"},
        },
        "health of an account": {"query": _HEALTH, "variables": {"account": account}},
    }
    name = rolls.choice(list(choices))
    return name, choices[name]


class Soak:
    """What is sent and asked until it is over, and how it was answered."""

    def __init__(self, running: Crashing, given: argparse.Namespace) -> None:
        self._running = running
        self._given = given
        self._bodies = Bodies(given.seed, _REPEATED, _LATE)
        self._rolls = random.Random(given.seed)
        self._until = time.monotonic() + 60 * given.minutes
        self._sent = self._questions = 0
        self.acknowledged = Acknowledged()
        self.tries: Counter[str] = Counter()
        # When each began, on the monotonic clock, and the seconds it took.
        self.took: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.faults: list[str] = []
        # Of questions that failed, when each began, and how long it was until it had failed.
        self._failed: list[tuple[float, float, str]] = []
        # Of the service, when and how many MiB it held.
        self.resident: list[tuple[float, float]] = []

    async def run(self) -> None:
        """Do all of it, to the end."""
        self._started = time.monotonic()
        async with httpx2.AsyncClient(
            base_url=self._running.address, headers=_HEADERS, timeout=_ANSWER_SECONDS_MAX
        ) as client:
            await asyncio.gather(
                *(self._send(client) for _ in range(_SENDERS)),
                *(self._ask(client) for _ in range(_ASKERS)),
                self._crash(),
                self._look(),
            )

    @property
    def seconds(self) -> float:
        """For how long events have been sent."""
        return time.monotonic() - self._started

    async def _send(self, client: httpx2.AsyncClient) -> None:
        while time.monotonic() < self._until:
            number, self._sent = self._sent, self._sent + 1
            await asyncio.sleep(self._started + number * SIZE / self._given.events_a_second - time.monotonic())
            body = self._bodies.body()
            receipt, is_again = await self._until_taken(client, body)
            fault = self.acknowledged.add(body, receipt, is_again=is_again)
            self.faults += [] if fault is None else [fault]
            self._bodies.acknowledged(body)

    async def _until_taken(self, client: httpx2.AsyncClient, body: Body) -> tuple[dict[str, Any], bool]:
        """The receipt of a body, and whether it took more than one try."""
        for tried in range(10_000):
            began = time.monotonic()
            try:
                answer = await client.post(
                    "/v1/events", content=body.text, headers={"Content-Type": "application/json"}
                )
            except httpx2.TransportError as error:
                self.tries[f"events: {type(error).__name__}"] += 1
            else:
                self.tries[f"events: {answer.status_code}"] += 1
                if answer.status_code == httpx2.codes.OK:
                    self.took[f"{SIZE} events"].append((began, time.monotonic() - began))
                    return msgspec.json.decode(answer.content), tried > 0
                if answer.status_code < httpx2.codes.INTERNAL_SERVER_ERROR:
                    raise SystemExit(f"{answer.status_code}: {answer.text}")
            await asyncio.sleep(_AGAIN_AFTER_SECONDS)
        raise SystemExit(f"body {body.name} is not taken")

    async def _ask(self, client: httpx2.AsyncClient) -> None:
        while time.monotonic() < self._until:
            number, self._questions = self._questions, self._questions + 1
            await asyncio.sleep(self._started + number / self._given.questions_a_second - time.monotonic())
            name, body = _asked(self._rolls, datetime.now(UTC))
            began = time.monotonic()
            try:
                answer = await client.post("/graphql", json=body)
            except httpx2.TransportError as error:
                outcome = type(error).__name__
                self._failed.append((began, time.monotonic() - began, f"{name}: {error!r}"))
                await asyncio.sleep(_AGAIN_AFTER_SECONDS)
            else:
                outcome = self._note(name, began, answer)
            self.tries[f"questions: {outcome}"] += 1

    def _note(self, name: str, began: float, answer: httpx2.Response) -> str:
        errors = msgspec.json.decode(answer.content).get("errors", ())
        if not errors:
            self.took[name].append((began, time.monotonic() - began))
            return str(answer.status_code)
        self._failed.append((began, time.monotonic() - began, f"{name}: {errors}"))
        return " ".join(each["extensions"]["code"] for each in errors)

    async def _crash(self) -> None:
        for share, what in _CRASHES:
            await asyncio.sleep(self._started + share * 60 * self._given.minutes - time.monotonic())
            kill = self._running.kill_service if what == "service" else self._running.kill_postgres
            await asyncio.to_thread(kill)
            since, until = self._running.away[-1]
            print(f"{what} was killed, and was back after {until - since:.1f} s", flush=True)

    async def _look(self) -> None:
        while time.monotonic() < self._until:
            self.resident.append((time.monotonic(), self._running.usage().resident_mebibytes()))
            await asyncio.sleep(1)

    def unexpected(self) -> list[str]:
        """Questions that failed though nothing was away."""
        return [fault for began, seconds, fault in self._failed if not self._is_disturbed(began, seconds)]

    def undisturbed(self, name: str) -> list[float]:
        """How long answers took that began and ended while nothing was away."""
        return [seconds for began, seconds in self.took[name] if not self._is_disturbed(began, seconds)]

    def _is_disturbed(self, began: float, seconds: float) -> bool:
        away = self._running.away
        return any(since <= began + seconds and began < until + _RECOVERY_SECONDS for since, until in away)


async def checked(soak: Soak, running: Crashing) -> list[str]:
    """What is not as it was acknowledged, when everything is rolled up; nothing, if all is well."""
    connection = await asyncpg.connect(running.url)
    async with asyncio.timeout(_SETTLED_SECONDS_MAX):
        # The service brings it about, so there is nothing to await but time.
        while await connection.fetchval(UNSETTLED):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    faults = await soak.acknowledged.missing_or_doubled(connection)
    await connection.close()
    async with httpx2.AsyncClient(base_url=running.address, headers=_HEADERS, timeout=_ANSWER_SECONDS_MAX) as client:
        now = datetime.now(UTC) + timedelta(minutes=1)
        # Nothing else was ever recorded here.
        variables = {"query": {"period": _period(30, now)}}
        answer = await client.post("/graphql", json={"query": _USAGE % _TOTALS, "variables": variables})
        totals = msgspec.json.decode(answer.content)["data"]["usage"]["totals"]
    told = sum((Decimal(each["quantity"]) for each in totals), Decimal(0))
    if told != soak.acknowledged.quantity:
        faults.append(f"a quantity of {soak.acknowledged.quantity} acknowledged, {told} answered")
    return faults


def reconciled(url: str) -> str | None:
    """What `metering reconcile --all` says where it finds something."""
    program = Path(sys.executable).parent / "metering"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("METERING_")}
    found = subprocess.run(
        [program, "reconcile", "--all"],
        env=environment | {"METERING_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=_RECONCILED_SECONDS_MAX,
        check=False,
    )
    print(found.stdout.strip(), flush=True)
    return f"reconcile: {found.stdout}{found.stderr}" if found.returncode else None


def rows_of(soak: Soak) -> list[list[str]]:
    """What was asked, how often it was answered, and how long that took while nothing was away."""
    rows = []
    for name in sorted(soak.took):
        took = soak.undisturbed(name)
        cells = [f"{1_000 * percentile(took, share):,.0f}" for share in (0.5, 0.99)] if took else ["", ""]
        rows.append([name, f"{len(soak.took[name]):,}", *cells])
    return rows


def memory_rows(soak: Soak) -> list[list[str]]:
    """The service's memory in each quarter of the time."""
    size = max(1, len(soak.resident) // _QUARTERS)
    quarters = [[held for _, held in soak.resident[start : start + size]] for start in range(0, size * _QUARTERS, size)]
    return [
        [f"quarter {number}", f"{median(held):.0f}", f"{max(held):.0f}"]
        for number, held in enumerate(quarters, 1)
        if held
    ]


def report(soak: Soak, engine: str, given: argparse.Namespace, faults: Sequence[str]) -> None:
    """Print the tables, and what is wrong."""
    events = sum(soak.acknowledged.events.values())
    title = f"{given.minutes:g} minutes, {given.events_a_second:,} events/s, {given.questions_a_second} questions/s, {engine}"
    told = [
        ["events acknowledged", f"{events:,}"],
        ["of them repeated besides", f"{soak.acknowledged.duplicates:,}"],
        *([name, f"{number:,}"] for name, number in sorted(soak.tries.items())),
        ["missing, doubled or wrong", f"{len(faults):,}"],
    ]
    print_table(f"Mixed soak: {title}", ["", "count"], told)
    print_table("Latency while nothing was away", ["asked", "answers", "p50 ms", "p99 ms"], rows_of(soak))
    print_table("Memory of the service, MiB", ["", "median", "most"], memory_rows(soak))
    for fault in faults[:20]:
        print(fault)


async def soaked(running: Crashing, given: argparse.Namespace) -> tuple[Soak, list[str]]:
    """Run it, and look at what is there afterwards."""
    await offer(running.address, datetime.now(UTC))
    soak = Soak(running, given)
    await soak.run()
    print(f"sent for {soak.seconds:.0f} s; waiting until everything is rolled up", flush=True)
    return soak, [*soak.faults, *soak.unexpected(), *await checked(soak, running)]


def main() -> None:
    """Soak each engine, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--events-a-second", type=int, default=5_000)
    parser.add_argument("--questions-a-second", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=ENGINES, help="only this one")
    given = parser.parse_args()
    is_wrong = False
    for engine in [given.engine] if given.engine else ENGINES:
        with scratch(engine) as directory, Crashing(engine, directory) as running:
            soak, faults = uvloop.run(soaked(running, given))
            drift = reconciled(running.url)
            faults += [] if drift is None else [drift]
            report(soak, engine, given, faults)
            is_wrong |= bool(faults)
    sys.exit(1 if is_wrong else 0)


if __name__ == "__main__":
    main()
