"""What commands share to run: the database that the settings mean, and the service itself."""

import gc
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import msgspec
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.importer import import_from_string
from uvicorn.supervisors import Multiprocess

from metering.cli.dispatcher import Dispatcher
from metering.config import Settings, environment_of
from metering.errors import AddressInUseError, MeteringError
from metering.limits import LIMITS, Limits
from metering.store.embedded import EmbeddedServer, directory_for_sockets
from metering.store.pool import Database
from metering.telemetry import configure_logs

# Named, not imported: the shell stands above us.
APP_FACTORY: Final = "graphql_api.app:create_app"
_READY_POLL_SECONDS: Final = 0.02
_READY_REQUEST_SECONDS: Final = 5.0
_GC_ALLOCATIONS: Final = 50_000
# Names the folder that worker processes share; no setting, for it is ours to make and to remove.
_SIBLINGS: Final = "_METERING_SIBLINGS"


class StartError(MeteringError):
    """The service stopped before it was ready; the log above says why."""

    code = "start"


@contextmanager
def with_database(settings: Settings) -> Iterator[Settings]:
    """Settings with an address: the one given, or that of the embedded PostgreSQL, which runs as long as it is used."""
    if settings.database_url is not None:
        yield settings
        return
    server = EmbeddedServer(settings.data_dir)
    try:
        # Inside: we may be told to stop while it starts.
        server.start()
        yield msgspec.structs.replace(settings, database_url=server.url())
    finally:
        server.stop()


@asynccontextmanager
async def unattended(settings: Settings) -> AsyncIterator[tuple[Database, Limits]]:
    """The database for work that nobody waits for, and its limits: a statement may take as long as such work needs."""
    limits = msgspec.structs.replace(LIMITS, statement_seconds_max=LIMITS.unattended_statement_seconds_max)
    database = await Database.connect(settings, limits)
    try:
        yield database, limits
    finally:
        await database.close()


def run_service(settings: Settings, on_ready: Callable[[Settings, str], None]) -> None:
    """Run the service until it is told to stop; `on_ready` gets the settings in force and the base address, in a thread."""
    ends_on_sigterm()
    with _listening(settings) as listener, with_database(settings) as running, _siblings(settings) as folder:
        migrated(running)
        os.environ.update(environment_of(running) | ({} if folder is None else {_SIBLINGS: str(folder)}))
        config = uvicorn.Config(
            _make_app,
            factory=True,
            workers=running.workers,
            log_level="error",
            access_log=False,
            lifespan="on",
            # Nothing here asks who the client behind a proxy is.
            proxy_headers=False,
            timeout_graceful_shutdown=LIMITS.shutdown_seconds_max // 2,
            # Several processes share what one of them accepts.
            loop="auto" if running.workers == 1 else "metering.cli.dispatcher:WorkerLoop",
            ws="websockets-sansio",
            ws_max_size=LIMITS.graphql_body_bytes_max,
        )
        address = f"http://{_shown_host(running.host)}:{listener.getsockname()[1]}"
        stopped = threading.Event()
        threading.Thread(target=_announce, args=(running, address, on_ready, stopped), daemon=True).start()
        try:
            started = _serve(config, listener, folder, running)
        finally:
            stopped.set()
        if not started:
            raise StartError("The service stopped before it was ready; the log above says why.")


def migrated(settings: Settings) -> None:
    """Bring the database to this release's schema."""
    # What migrates is most of what there is to import, and the other commands do not.
    from metering.store import migrate

    assert settings.database_url is not None, "with_database gives an address"
    migrate.upgrade(settings.database_url)


def ends_on_sigterm() -> None:
    """Have SIGTERM end this process so that what was begun is ended too, also where nothing listens to it yet."""
    signal.signal(signal.SIGTERM, _exit)


class _Server(uvicorn.Server):
    """A server that knows why it ended: uvicorn raises the signal again, which its loop may be too far to notice."""

    was_interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note that it is an interrupt."""
        self.was_interrupted |= sig == signal.SIGINT
        super().handle_exit(sig, frame)


def _serve(config: uvicorn.Config, listener: socket.socket, folder: Path | None, settings: Settings) -> bool:
    """Serve until told to stop. False when it could not start."""
    if folder is None:
        server = _Server(config)
        server.run(sockets=[listener])
        if server.was_interrupted:
            raise KeyboardInterrupt
        return server.started
    configure_logs(settings.log_level, settings.log_format)
    dispatcher = Dispatcher(listener, folder, config.workers)
    supervisor = Multiprocess(config, sockets=[dispatcher.door])
    with dispatcher.running():
        supervisor.run()
    return all(worker.exitcode != STARTUP_FAILURE for worker in supervisor.processes)


@contextmanager
def _siblings(settings: Settings) -> Iterator[Path | None]:
    """The folder that several worker processes share: for what they counted, and for the door of their dispatcher."""
    if settings.workers == 1:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="metering-", dir=directory_for_sockets()) as name:
        yield Path(name)


def _make_app() -> Any:
    """The application, in the process that serves it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    folder = os.environ.get(_SIBLINGS)
    app = import_from_string(APP_FACTORY)(siblings=None if folder is None else Path(folder))
    # What was imported stays: the collector need not look at it again and again. Events make no cycles, so it may be rare.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS)
    return app


def _end_after(parent: BaseProcess) -> None:
    """End this worker when the process that started it has ended: one that was killed leaves nobody on its port."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _exit(_number: int, _frame: FrameType | None) -> NoReturn:
    # uvicorn shuts down in good order on SIGTERM and then raises it again: leaving by SystemExit lets us stop the database.
    raise SystemExit(0)


def _announce(
    settings: Settings, address: str, on_ready: Callable[[Settings, str], None], stopped: threading.Event
) -> None:
    while not stopped.wait(_READY_POLL_SECONDS):
        if _is_ready(address):
            break
    if not stopped.is_set():
        on_ready(settings, address)


def _is_ready(address: str) -> bool:
    # With the standard library: another client is still being imported here while the application is, by another thread, and
    # before 3.11.8 Python fails now and then where two threads parse, as anyio does in its imports (python/cpython#106905).
    connection = HTTPConnection(address.removeprefix("http://"), timeout=_READY_REQUEST_SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
            listener.listen(2_048)
        except OSError as error:
            raise AddressInUseError(
                f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
                "Choose another with --port (0 picks a free one), or stop what listens there."
            ) from error
        yield listener


def _shown_host(host: str) -> str:
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - we ask whether it was chosen
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
