"""The service behind a real port, in a thread: for clients that stream, and for those that are not written in Python."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn

from graphql_api.app import create_app
from metering.config import Settings
from metering.limits import LIMITS, Limits
from tests.conftest import ADMIN_KEY

_START_SECONDS_MAX: Final = 30.0


@contextmanager
def serving(database_url: str, limits: Limits = LIMITS, **settings: Any) -> Iterator[str]:
    """The address (host and port) of the service on this database; it stops when the block ends."""
    chosen = {"refresh_seconds": 3_600.0, "log_level": "error", "bootstrap_key": ADMIN_KEY, **settings}
    app = create_app(Settings(database_url=database_url, **chosen), limits)
    config = uvicorn.Config(app, log_level="error", lifespan="on", ws="websockets-sansio", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + _START_SECONDS_MAX
            while not server.started:
                assert thread.is_alive(), "the service did not start"
                assert time.monotonic() < deadline, "the service did not start in time"
                time.sleep(0.01)
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
