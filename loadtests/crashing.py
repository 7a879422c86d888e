"""A service and its PostgreSQL that are killed without a word, and started again at the same address."""

import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from bench import Usage, launch, server_of

from metering.store.embedded import EmbeddedServer
from metering.store.migrate import upgrade

_SERVICE_STOPS_SECONDS_MAX: Final = 30


class Crashing:
    """Both, running."""

    def __init__(self, engine: str, directory: Path) -> None:
        self._server: EmbeddedServer = server_of(engine, directory)
        self._service: subprocess.Popen[str] | None = None
        self.address = ""
        # When each was away, as moments of the monotonic clock.
        self.away: list[tuple[float, float]] = []
        # And of these the service alone.
        self.away_service: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        self._server.start()
        upgrade(self.url)
        self._launch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._service is not None:
            self._service.terminate()
            self._service.wait(_SERVICE_STOPS_SECONDS_MAX)
        self._server.stop()

    @property
    def url(self) -> str:
        """The database's address."""
        return self._server.url()

    def usage(self) -> Usage:
        """What the service uses that runs now."""
        assert self._service is not None, "it was started"
        return Usage(self._service.pid)

    def postgres_usage(self) -> Usage:
        """What PostgreSQL uses that runs now."""
        assert self._server.pid is not None, "it was started"
        return Usage(self._server.pid)

    def kill_service(self) -> None:
        """End the service as a crash does, and start it again. Takes as long as that takes."""
        assert self._service is not None, "it was started"
        since = time.monotonic()
        self._service.kill()
        self._service.wait()
        self._launch()
        self.away_service.append((since, time.monotonic()))
        self.away.append(self.away_service[-1])

    def kill_postgres(self) -> None:
        """End PostgreSQL as a crash does, with all that it was about, and start it again, which recovers what was committed."""
        assert self._server.pid is not None, "it was started"
        since = time.monotonic()
        os.kill(self._server.pid, signal.SIGKILL)
        # It looks whether one is left, and waits for what still holds its files.
        self._server.stop()
        self._server.start()
        self.away.append((since, time.monotonic()))

    def _launch(self) -> None:
        port = urlsplit(self.address).port or 0
        self._service, self.address = launch(self.url, port)
