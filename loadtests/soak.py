"""Everything at once for half an hour, and what breaks in it: is what was acknowledged stored, and are figures still right?

Profile: so many events a second by live.py's law, of which one in a hundred repeats one that was acknowledged and one in a
hundred is up to 20 days late; questions of usage, of statements and of customers' health; scores are computed as they are
due. The service is killed twice and PostgreSQL once, without a word, and started again; a request that was not answered is
sent again until it is. Ends with exit code 1 when anything is missing, counted twice, or not rolled up as its events say; when
less came in or was answered than was meant to, nobody was scored, or memory grew.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Final

import asyncpg
import httpx2
import msgspec
import uvloop
from acknowledged import SIZE
from bench import ENGINES, print_table, scratch
from crashing import Crashing
from filled import UNSETTLED
from mixture import ANSWER_SECONDS_MAX, HEADERS, Mixture, latency, pace, told, totals
from questions import offer

_SETTLED_SECONDS_MAX: Final = 3_600
_RECONCILED_SECONDS_MAX: Final = 3_600
# When, as shares of the time, what is killed.
_CRASHES: Final = ((0.25, "service"), (0.5, "postgres"), (0.75, "service"))
# What is behind after a crash is made up for.
_SHARE_MIN: Final = 0.95
_RESIDENT_MEBIBYTES_MAX: Final = 500
# Of one process, from the second to the last third of its life: caches are full by then.
_GROWTH_SHARE_MAX: Final = 0.1
# What waits while something is away and starts again is no latency of a question.
_RECOVERY_SECONDS: Final = 10.0


class Soak:
    """What is sent and asked while things are killed, and how it was answered while nothing was away."""

    def __init__(self, running: Crashing, given: argparse.Namespace) -> None:
        self._running = running
        self._given = given
        self.mixture = Mixture(running.address, running.usage, given)

    async def run(self) -> None:
        """Do all of it, to the end."""
        await asyncio.gather(self.mixture.run(), self._crash())

    async def _crash(self) -> None:
        began = time.monotonic()
        for share, what in _CRASHES:
            await asyncio.sleep(began + share * 60 * self._given.minutes - time.monotonic())
            kill = self._running.kill_service if what == "service" else self._running.kill_postgres
            await asyncio.to_thread(kill)
            since, until = self._running.away[-1]
            print(f"{what} was killed, and was back after {until - since:.1f} s", flush=True)

    def unexpected(self) -> list[str]:
        """Questions that failed though nothing was away."""
        return [fault for began, seconds, fault in self.mixture.failed if not self._is_disturbed(began, seconds)]

    def undisturbed(self, name: str) -> list[float]:
        """How long answers took that began and ended while nothing was away."""
        return [seconds for began, seconds in self.mixture.took[name] if not self._is_disturbed(began, seconds)]

    def resident_of_last_process(self) -> list[float]:
        """The MiB that the service held, second by second, since it was started last."""
        started_at = max((until for _, until in self._running.away_service), default=self.mixture.started)
        return [held for at, held in self.mixture.resident if at > started_at]

    def _is_disturbed(self, began: float, seconds: float) -> bool:
        away = self._running.away
        return any(since <= began + seconds and began < until + _RECOVERY_SECONDS for since, until in away)


def shortcomings(soak: Soak, given: argparse.Namespace) -> list[str]:
    """Where less was done than was meant to, or with more memory."""
    mixture, seconds = soak.mixture, 60 * given.minutes
    events = sum(mixture.acknowledged.events.values())
    answers = sum(len(took) for name, took in mixture.took.items() if name != f"{SIZE} events")
    found = [
        f"{done:,} {what} are less than {_SHARE_MIN:.0%} of what was meant"
        for done, what, meant in (
            (events, "events", given.events_a_second * seconds),
            (answers, "answers", given.questions_a_second * seconds),
        )
        if done < _SHARE_MIN * meant
    ]
    resident = soak.resident_of_last_process()
    third = len(resident) // 3
    if third:
        growth = median(resident[-third:]) / median(resident[third : 2 * third]) - 1
        found += [f"memory grew by {growth:.0%}"] if growth > _GROWTH_SHARE_MAX else []
    most = max(held for _, held in mixture.resident)
    return found + ([f"{most:.0f} MiB of memory"] if most > _RESIDENT_MEBIBYTES_MAX else [])


async def checked(soak: Soak, running: Crashing) -> list[str]:
    """What is not as it was acknowledged, when everything is rolled up; nothing, if all is well."""
    acknowledged = soak.mixture.acknowledged
    connection = await asyncpg.connect(running.url)
    async with asyncio.timeout(_SETTLED_SECONDS_MAX):
        # The service brings it about, so there is nothing to await but time.
        while await connection.fetchval(UNSETTLED):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    faults = await acknowledged.missing_or_doubled(connection)
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM health)"):
        faults.append("nobody was scored")
    await connection.close()
    async with httpx2.AsyncClient(base_url=running.address, headers=HEADERS, timeout=ANSWER_SECONDS_MAX) as client:
        # Nothing else was ever recorded here.
        answer = await client.post("/graphql", json=totals(30, datetime.now(UTC) + timedelta(minutes=1)))
        answered = msgspec.json.decode(answer.content)["data"]["usage"]["totals"]
    quantity = sum((Decimal(each["quantity"]) for each in answered), Decimal(0))
    if quantity != acknowledged.quantity:
        faults.append(f"a quantity of {acknowledged.quantity} acknowledged, {quantity} answered")
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


def report(soak: Soak, engine: str, given: argparse.Namespace, faults: Sequence[str]) -> None:
    """Print the tables, and what is wrong."""
    took = soak.mixture.took
    counted = [*soak.mixture.counted(), ["missing, doubled, wrong or short", f"{len(faults):,}"]]
    rows = [latency(name, len(took[name]), soak.undisturbed(name)) for name in sorted(took)]
    print_table(f"Mixed soak: {told(given, engine)}", ["", "count"], counted)
    print_table("Latency while nothing was away", ["asked", "answers", "p50 ms", "p99 ms"], rows)
    print_table("Memory of the service, MiB", ["", "median", "most"], soak.mixture.memory())
    for fault in faults[:20]:
        print(fault)


async def soaked(running: Crashing, given: argparse.Namespace) -> tuple[Soak, list[str]]:
    """Run it, and look at what is there afterwards."""
    await offer(running.address, datetime.now(UTC))
    soak = Soak(running, given)
    await soak.run()
    print(f"sent for {soak.mixture.seconds:.0f} s; waiting until everything is rolled up", flush=True)
    settled = await checked(soak, running)
    return soak, [*soak.mixture.faults, *soak.unexpected(), *settled, *shortcomings(soak, given)]


def main() -> None:
    """Soak each engine, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pace(parser, minutes=30)
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
