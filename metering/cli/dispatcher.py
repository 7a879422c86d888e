"""Connections of one port for several worker processes: one process accepts them and hands them out in turn.

Where workers accept for themselves, from a socket that they share, whoever happens to be awake takes what comes: one of two had
all four connections of a client, and the other one nothing to do.
"""

import asyncio
import os
import select
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from metering.telemetry import logger

# What waits for a worker that takes nothing cannot be given to another one while it lives: it is handed no more than these.
UNTAKEN_MAX: Final = 32
# Workers start at once, and are ready within moments of each other; one that is not keeps nobody waiting for longer.
LAST_WORKER_SECONDS_MAX: Final = 10.0
# Until there may be a descriptor, or memory, again.
_PAUSE_SECONDS: Final = 1.0
_HANDED: Final = b"h"
_TAKEN: Final = b"t"


class _Worker(msgspec.Struct, eq=False):
    """A worker that asked for connections, and those that it was handed and has not taken yet."""

    channel: socket.socket
    untaken: deque[socket.socket]

    @property
    def has_room(self) -> bool:
        return len(self.untaken) < UNTAKEN_MAX


class Dispatcher:
    """Accepts what comes at a listening socket, and shares it out among the workers who have knocked at `door`.

    It begins when as many have as are expected, or a while after the first. Then each has its turn. A worker that takes nothing
    is passed over, and what one had not taken when it ended goes to another. While nobody has room connections wait where the
    system lets them wait, before they are accepted.
    """

    def __init__(self, listener: socket.socket, folder: Path, workers: int) -> None:
        self._listener = listener
        self._listener.settimeout(0)
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(str(folder / "door"))
        self.door.listen()
        self.door.settimeout(0)
        self._expected = workers
        self._begins_at: float | None = None
        # Whose turn it is comes first.
        self._workers: deque[_Worker] = deque()
        # Accepted, and nobody's: those of a worker that has ended.
        self._waiting: deque[socket.socket] = deque()
        self._selector = selectors.DefaultSelector()
        self._ending, self._end = socket.socketpair()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hand out connections, in a thread, as long as this is entered; then the port is closed."""
        with ThreadPoolExecutor(1, "dispatcher") as pool:
            dispatching = pool.submit(self._run)
            dispatching.add_done_callback(_end_if_it_failed)
            try:
                yield
            finally:
                self._end.close()
            dispatching.result()

    def _run(self) -> None:
        with self._selector, self._listener, self.door, self._ending:
            self._selector.register(self._ending, selectors.EVENT_READ)
            self._selector.register(self.door, selectors.EVENT_READ, self._admit)
            try:
                while self._act():
                    self._hand_out()
                    self._attend()
            finally:
                for worker in self._workers:
                    worker.channel.close()
                    self._waiting += worker.untaken
                for connection in self._waiting:
                    connection.close()

    def _act(self) -> bool:
        """Wait for something to do, and do it; False when it is time to end."""
        # What could not be handed to somebody with room is tried again, also where nothing else happens.
        is_stuck = bool(self._waiting) and self._next() is not None
        ready = [key for key, _ in self._selector.select(_PAUSE_SECONDS if is_stuck else self._patience_seconds())]
        if any(key.fileobj is self._ending for key in ready):
            return False
        try:
            for key in ready:
                key.data()
        except OSError as error:
            # No descriptor is left, or no memory. Whoever knocked is still there, and is let in when there is.
            self._pause(error)
        return True

    def _patience_seconds(self) -> float | None:
        """For how long to wait for the last worker; None when nobody waits for that."""
        return None if self._begins_at is None else max(0.0, self._begins_at - time.monotonic())

    def _pause(self, error: OSError) -> None:
        logger().warning("connections_not_accepted", reason=error.strerror)
        select.select([self._ending], [], [], _PAUSE_SECONDS)

    def _attend(self) -> None:
        """Look at who waits outside, or do not: as there is somebody with room for them."""
        wanted = self._has_begun() and not self._waiting and self._next() is not None
        attended = self._listener in self._selector.get_map()
        if wanted and not attended:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        elif attended and not wanted:
            self._selector.unregister(self._listener)

    def _has_begun(self) -> bool:
        """Whether it was ever time to let anybody in: workers may end later, and the others go on."""
        if self._expected and len(self._workers) < self._expected:
            if self._patience_seconds() != 0.0:
                return False
            logger().warning("workers_missing", expected=self._expected, ready=len(self._workers))
        self._expected, self._begins_at = 0, None
        return True

    def _admit(self) -> None:
        channel, _ = self.door.accept()
        channel.settimeout(0)
        worker = _Worker(channel, deque())
        self._selector.register(channel, selectors.EVENT_READ, lambda: self._hear(worker))
        self._workers.append(worker)
        if self._expected and self._begins_at is None:
            self._begins_at = time.monotonic() + LAST_WORKER_SECONDS_MAX

    def _next(self) -> _Worker | None:
        """Whose turn it is."""
        return next((worker for worker in self._workers if worker.has_room), None)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            # Whoever it was did not wait.
            return
        self._waiting.append(connection)

    def _hand_out(self) -> None:
        """Hand what waits to workers with room: to the one whose last turn is longest ago."""
        while self._waiting and (worker := self._next()) is not None:
            try:
                socket.send_fds(worker.channel, [_HANDED], [self._waiting[0].fileno()])
            except (BrokenPipeError, ConnectionResetError):
                # It has ended, and may have said before what it had taken.
                self._hear(worker)
                continue
            except OSError as error:
                # The system has as many descriptors under way as it allows.
                logger().warning("connections_not_handed", reason=error.strerror)
                return
            worker.untaken.append(self._waiting.popleft())
            self._workers.remove(worker)
            self._workers.append(worker)

    def _hear(self, worker: _Worker) -> None:
        """Let go here of what the worker has taken; the end of its channel says that it has ended."""
        if worker not in self._workers:
            return
        try:
            taken = worker.channel.recv(UNTAKEN_MAX)
        except ConnectionResetError:
            taken = b""
        if not taken:
            self._dismiss(worker)
        for _ in taken:
            worker.untaken.popleft().close()

    def _dismiss(self, worker: _Worker) -> None:
        """Forget a worker that has ended; what it had not taken waits for another one."""
        self._selector.unregister(worker.channel)
        worker.channel.close()
        self._workers.remove(worker)
        self._waiting += worker.untaken
        worker.untaken.clear()


def _end_if_it_failed(dispatching: Future[None]) -> None:
    # Better to end, and be started anew, than to let nobody in.
    if dispatching.exception() is not None:
        os.kill(os.getpid(), signal.SIGTERM)


class WorkerLoop(uvloop.Loop):
    """The event loop of a worker process: it serves what a dispatcher hands out, where it would accept for itself."""

    async def create_server(self, protocol_factory: Any, *_: Any, sock: socket.socket, **__: Any) -> Any:  # type: ignore[override]
        """Serve the connections handed out at `sock`, a dispatcher's door."""
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(sock.getsockname())
        channel.settimeout(0)
        return _Receiver(self, protocol_factory, channel)


class _Receiver:
    """Takes what is handed out, until it is closed. As much of an asyncio.Server as uvicorn asks for."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.Protocol], channel: socket.socket
    ) -> None:
        self._loop = loop
        self._factory = factory
        self._channel = channel
        self._beginning: set[asyncio.Task[Any]] = set()
        loop.add_reader(channel, self._take)

    def _take(self) -> None:
        try:
            handed, descriptors, _flags, _address = socket.recv_fds(self._channel, len(_HANDED), 1)
        except ConnectionResetError:
            handed, descriptors = b"", []
        if not handed:
            self.close()
            return
        if not descriptors:
            # Nobody holds the connection any more when we have said that we do.
            logger().warning("connection_cut", reason="this process may open nothing more")
        for descriptor in descriptors:
            beginning = self._loop.create_task(self._begin(socket.socket(fileno=descriptor)))
            self._beginning.add(beginning)
            beginning.add_done_callback(self._beginning.discard)
        try:
            self._channel.send(_TAKEN)
        except BrokenPipeError:
            self.close()

    async def _begin(self, connection: socket.socket) -> None:
        try:
            _, protocol = await self._loop.connect_accepted_socket(self._factory, connection)
        except OSError as error:
            # Whoever it was has gone.
            connection.close()
            logger().info("connection_lost", reason=error.strerror)
            return
        if self._is_closed:
            # Those that were open when we closed have been told.
            protocol.shutdown()  # type: ignore[attr-defined]

    @property
    def _is_closed(self) -> bool:
        return self._channel.fileno() < 0

    def close(self) -> None:
        """Take no more."""
        if not self._is_closed:
            self._loop.remove_reader(self._channel)
            self._channel.close()

    async def wait_closed(self) -> None:
        """There is nothing to wait for: connections that were taken are served on."""
