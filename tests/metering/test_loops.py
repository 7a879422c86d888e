"""How each loop of background work fares stands in the database, whichever process runs it."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from metering.cli.status import status
from metering.errors import DatabaseUnavailableError
from metering.limits import LIMITS
from metering.loops import LOOPS, Loop, LoopLog, read_loops, this_process
from metering.probes import Check, Status, read_readiness
from metering.store.pool import Database
from tests.metering.catalog import play

START = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        """What time it is."""
        return self.now


async def _background(database: Database) -> Check:
    (check,) = [each for each in (await read_readiness(database)).checks if each.name == "background"]
    return check


async def _loop(database: Database, name: str) -> Loop:
    (loop,) = [each for each in await read_loops(database) if each.name == name]
    return loop


def test_failures_are_counted_in_a_row_and_a_success_ends_them(database_url: str) -> None:
    """A failure is noted with its code and words, and counted until a run ends well, which is noted at once; the check
    `background` names a loop that failed three times in a row, and to outsiders tells nothing of it.
    """

    async def scenario(database: Database) -> None:
        clock = Clock()
        log = LoopLog(database, LIMITS, clock)
        assert dict.fromkeys(LOOPS) == {each.name: each.process for each in await read_loops(database)}
        for number, error in enumerate(
            [DatabaseUnavailableError("of acme"), ValueError("of acme\0"), KeyError("acme")]
        ):
            clock.now = START + number * SECOND
            assert "failed" not in (await _background(database)).detail
            await log.failed("refresh", clock.now - SECOND, error)
        failing = await _loop(database, "refresh")
        assert (3, "internal", "KeyError: 'acme'") == (failing.failures, failing.fault_code, failing.fault)
        assert (START + 2 * SECOND, None) == (failing.failed_at, failing.ran_at)
        check = await _background(database)
        assert Status.WARN is check.status
        assert "refresh failed 3 times in a row: KeyError: 'acme'" in check.detail
        assert "acme" not in str(check.for_anybody)
        clock.now = START + 3 * SECOND
        await log.ran("refresh", START + 2 * SECOND)
        going_on = await _loop(database, "refresh")
        assert (0, clock.now, START + 2 * SECOND) == (going_on.failures, going_on.ran_at, going_on.started_at)
        assert (this_process(), START - SECOND) == (going_on.process, going_on.led_since)
        assert "failed" not in (await _background(database)).detail

    play(database_url, scenario)


def test_successes_are_noted_every_few_seconds(database_url: str) -> None:
    """What goes well many times a second is noted once in five seconds; a first failure, and the success after it, at once."""

    async def scenario(database: Database) -> None:
        clock = Clock()
        log = LoopLog(database, LIMITS, clock)
        noted = []
        for number in range(12):
            clock.now = START + number * SECOND
            if number == 7:
                await log.failed("scoring", clock.now, ValueError("once"))
            else:
                await log.ran("scoring", clock.now)
            loop = await _loop(database, "scoring")
            noted.append((None if loop.ran_at is None else (loop.ran_at - START) // SECOND, loop.failures))

        assert [(0, 0)] * 5 + [(5, 0)] * 2 + [(5, 1)] + [(8, 0)] * 4 == noted

    play(database_url, scenario)


def test_status_shows_every_loop(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`metering status` has a row for each loop, those too that nobody runs; `--json` says the same to programs."""

    async def scenario(database: Database) -> None:
        await LoopLog(database, LIMITS, Clock()).failed("alerts", START, ValueError("[red]of a rule[/]"))

    play(database_url, scenario)
    monkeypatch.setenv("METERING_DATABASE_URL", database_url)
    capsys.readouterr()
    status(json=True)
    told = json.loads(capsys.readouterr().out)

    assert list(LOOPS) == [each["name"] for each in told]
    assert [(1, "internal", "2026-03-01T00:00:00Z")] == [
        (each["failures"], each["fault_code"], each["failed_at"]) for each in told if each["name"] == "alerts"
    ]
    assert {(None, None, 0)} == {
        (each["process"], each["lag_seconds"], each["failures"]) for each in told if each["name"] != "alerts"
    }
