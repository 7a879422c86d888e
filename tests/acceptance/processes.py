"""Real processes for the acceptance tests: `metering serve` is started, asked, stopped and killed; nothing stays behind."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx2

from metering.store.embedded import EmbeddedServer
from tests.conftest import ADMIN_KEY, QUICK_SETTINGS, Server, bearer, clean_environment, metering_program

START_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 10.0
_POLL_SECONDS: Final = 0.02
_READY: Final = re.compile(r"Ready: (http://\S+)/graphql\n")


class Front:
    """Where a service is asked over HTTP: its own address, or that of what stands before it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = httpx2.Client(headers=bearer(ADMIN_KEY), timeout=60, trust_env=False)

    def get(self, path: str) -> httpx2.Response:
        """GET with the admin's key."""
        return self._client.get(f"{self.address}{path}")

    def post(self, path: str, body: object, *, key: str = ADMIN_KEY) -> httpx2.Response:
        """POST something as JSON."""
        return self._client.post(f"{self.address}{path}", json=body, headers=bearer(key))

    def send(self, events: object) -> Any:
        """POST events and return the receipt."""
        response = self.post("/v1/events", events)
        assert response.status_code == 200, response.text
        return response.json()

    def ask(self, query: str, **variables: object) -> Any:
        """POST a GraphQL document and return its data; errors fail the test."""
        response = self.post("/graphql", {"query": query, "variables": variables})
        assert response.status_code == 200, response.text
        answer = response.json()
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def close(self) -> None:
        """Close its connections."""
        self._client.close()


class Service(Front):
    """A `metering serve` of this test, in a process session of its own."""

    def __init__(self, directory: Path, number: int, arguments: tuple[str, ...], variables: dict[str, str]) -> None:
        self._out, self._err = directory / f"serve-{number}.out", directory / f"serve-{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [metering_program(), "serve", *arguments],
                env=clean_environment(**variables),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        # Known when it is ready.
        super().__init__("")

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rpartition(":")[2])

    @property
    def stdout(self) -> str:
        """What it has answered so far."""
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        """What it has logged so far."""
        return self._err.read_text()

    def await_ready(self) -> "Service":
        """Wait for its `Ready:` line, which tells the address."""
        found = until(self._ready_or_ended, START_SECONDS_MAX)
        assert isinstance(found, re.Match), f"exit code {self.process.returncode}, and it said:\n{self.stderr}"
        self.address = found[1]
        return self

    def _ready_or_ended(self) -> "re.Match[str] | bool | None":
        ended = self.process.poll() is not None
        return _READY.fullmatch(self.stdout) or ended

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self, seconds: float = STOP_SECONDS_MAX) -> int:
        """Its exit code; it has so many seconds to get there."""
        return self.process.wait(seconds)

    def stop(self) -> None:
        """End it as an operator does: it stops in good order, and in time."""
        self.signal(signal.SIGTERM)
        assert self.ended() == 0, self.stderr

    def kill(self) -> None:
        """End it as a crash does."""
        self.signal(signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL

    def end(self) -> None:
        """Leave nothing of it, also of its workers."""
        self.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_SECONDS_MAX)


class Home:
    """A directory of one test and the services that it starts there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.services: list[Service] = []

    def launch(self, *arguments: str, **variables: str) -> Service:
        """Start a service on a free port; on the embedded server here, where METERING_DATABASE_URL names no other."""
        variables = {
            "METERING_PORT": "0",
            "METERING_DATA_DIR": str(self.data_dir),
            "METERING_BOOTSTRAP_KEY": ADMIN_KEY,
            "METERING_LOG_LEVEL": "warning",
            **variables,
        }
        service = Service(self.directory, len(self.services), arguments, variables)
        self.services.append(service)
        return service

    def serve(self, *arguments: str, **variables: str) -> Service:
        """Start a service and wait until it is ready."""
        return self.launch(*arguments, **variables).await_ready()

    @property
    def postgres(self) -> int | None:
        """The process of the embedded server here, when it runs."""
        return EmbeddedServer(self.data_dir).pid

    def kill_postgres(self) -> None:
        """End the embedded server as a crash does."""
        pid = self.postgres
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Leave nothing running."""
        for service in self.services:
            service.end()
        if self.postgres is not None:
            server = EmbeddedServer(self.data_dir)
            server.start()  # adopts it
            server.stop()


@contextmanager
def home_in(directory: Path) -> Iterator[Home]:
    """A home whose services end with the block, whatever happens in it."""
    home = Home(directory)
    try:
        yield home
    finally:
        home.end()


@contextmanager
def server_like(server: Server, directory: Path, **settings: str) -> Iterator[EmbeddedServer]:
    """A database server of this one's engine, in a directory of its own, and durable as it is shipped; it ends with the block."""
    like = server.server
    durable = {name: value for name, value in like._settings.items() if name not in QUICK_SETTINGS}
    made = EmbeddedServer(directory, like._bin_dir, {**durable, **settings})
    made.start()
    try:
        yield made
    finally:
        made.stop()


def crash(server: EmbeddedServer) -> None:
    """End a database server of this process as a crash does."""
    assert server._launched is not None
    server._launched.kill()


def restart(server: EmbeddedServer) -> None:
    """Start a database server that has crashed."""
    assert server._launched is not None
    server._launched.wait(STOP_SECONDS_MAX)
    server.stop()
    server.start()


def until(question: Callable[[], Any], seconds: float) -> Any:
    """Ask again and again until the answer is true-ish, and return it; after so many seconds the test has failed."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"nothing came within {seconds} s"
        time.sleep(_POLL_SECONDS)
    return answer


def pending(service: Service) -> int:
    """How many entries of the pending log the refresher has yet to work off, as the service tells whoever reaches everything."""
    asked = service.ask("{ service { checks { name detail } } }")["service"]["checks"]
    checks = {check["name"]: check["detail"] for check in asked}
    found = re.search(r"([\d,]+) pending", checks["rollups"])
    assert found is not None, checks
    return int(found[1].replace(",", ""))
