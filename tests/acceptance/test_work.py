"""`metering work`: several may run, one leads, and whichever is killed, the work goes on."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.processes import Service, home_in, until
from tests.conftest import clean_environment, metering_program

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]
_QUICK = {"METERING_REFRESH_SECONDS": "0.05", "METERING_NOTIFY_SECONDS": "0.05", "METERING_LOG_LEVEL": "warning"}
_LOOPS = "{ service { checks { name status detail } loops { name process failures succeededAt lagSeconds } } }"


@contextmanager
def working(database_url: str, directory: Path) -> Iterator["subprocess.Popen[str]"]:
    """A `metering work` that has begun; it is killed where the test left it running."""
    process = subprocess.Popen(
        [metering_program(), "work"],
        env=clean_environment(METERING_DATABASE_URL=database_url, **_QUICK),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert f"Working: {_name(process)}\n" == process.stdout.readline()
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _name(process: "subprocess.Popen[str]") -> str:
    return f"{socket.gethostname()}:{process.pid}"


def test_another_one_takes_over_from_the_one_that_is_killed(database_url: str, tmp_path: Path, run_cli: RunCli) -> None:
    """Of two that work one does everything, and says so; when it is killed the other one does, from where it was; when that is
    stopped it ends in good order, and nobody leads any more. A service without background work tells all of it.
    """
    with home_in(tmp_path) as home:
        service = home.serve("--no-work", METERING_DATABASE_URL=database_url)
        assert ("WARN", {None}) == _told(service)
        with working(database_url, tmp_path) as first, working(database_url, tmp_path) as second:
            until(lambda: _told(service) == ("PASS", {_name(first)}), 20)
            before = _succeeded(service)
            first.kill()
            until(lambda: _told(service) == ("PASS", {_name(second)}), 20)
            until(lambda: all(at > before[name] for name, at in _succeeded(service).items()), 20)
            table = run_cli("status", METERING_DATABASE_URL=database_url, COLUMNS="200").stdout
            assert re.search(rf"refresh .* {re.escape(_name(second))} ", table)
            second.terminate()
            assert 0 == second.wait(20)
        until(lambda: _told(service)[0] == "WARN", 20)
        service.stop()


def _told(service: Service) -> tuple[str, set[str | None]]:
    """How the check `background` comes out, and which processes ran the loops last that are quick."""
    answer = service.ask(_LOOPS)["service"]
    (check,) = [each for each in answer["checks"] if each["name"] == "background"]
    return check["status"], {each["process"] for each in answer["loops"]}


def _succeeded(service: Service) -> dict[str, str]:
    """When the loops ended well last that run all the time: others rest for a minute."""
    quick = {"alerts", "deliveries", "forgetting", "refresh", "scoring"}
    return {
        each["name"]: each["succeededAt"] for each in service.ask(_LOOPS)["service"]["loops"] if each["name"] in quick
    }
