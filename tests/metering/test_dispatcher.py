"""Connections of one port for several workers: shared evenly, and none lost to a worker that takes nothing or ends."""

import asyncio
import errno
import os
import resource
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, cast

import pytest
from structlog.testing import capture_logs

from metering.cli import dispatcher
from metering.cli.dispatcher import UNTAKEN_MAX, Dispatcher, WorkerLoop
from metering.telemetry import configure_logs
from tests.acceptance.processes import until

ANSWER_SECONDS_MAX: Final = 30.0


class Greeter(asyncio.Protocol):
    """Tells whoever connects the name of its worker, and what it knows of the connection."""

    def __init__(self, name: str, met: list["Greeter"]) -> None:
        self._name = name
        self._met = met

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # Of uvloop, so it is one in all but name.
        self.transport = cast("asyncio.Transport", transport)
        self.lost = asyncio.get_running_loop().create_future()
        self._met.append(self)
        connection: socket.socket = transport.get_extra_info("socket")
        delayed = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        peer = transport.get_extra_info("peername")[1]
        self.transport.write(f"{self._name} {peer} {delayed}\n".encode())

    def connection_lost(self, _: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.lost.set_result(None)


@contextmanager
def worker(door: socket.socket, name: str) -> Iterator[None]:
    """A worker that takes and greets, in a thread, with a loop of its own."""
    loop = WorkerLoop()
    told = asyncio.Event()
    met: list[Greeter] = []

    async def serve() -> None:
        receiver = await loop.create_server(lambda: Greeter(name, met), sock=door)
        await told.wait()
        receiver.close()
        await receiver.wait_closed()
        for greeter in met:
            greeter.transport.close()
        await asyncio.gather(*(greeter.lost for greeter in met))

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(run)
        try:
            yield
        finally:
            loop.call_soon_threadsafe(told.set)
        serving.result(ANSWER_SECONDS_MAX)


@contextmanager
def deaf_worker(door: socket.socket) -> Iterator[None]:
    """One that asks for connections and takes none."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(door.getsockname())
        yield


class Clients:
    """Connections to a port, opened as they are asked for."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._port = listener.getsockname()[1]
        self.open: list[socket.socket] = []

    def unaccepted(self) -> int:
        """How many wait outside."""
        told = self._listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return int.from_bytes(told[24:28], "little")

    def connect(self, count: int = 1) -> None:
        """Open so many more."""
        self.open += [socket.create_connection(("127.0.0.1", self._port)) for _ in range(count)]

    def close(self) -> None:
        """Hang up, all of them."""
        while self.open:
            self.open.pop().close()

    def greeted(self) -> Counter[str]:
        """How many each worker greeted; all of them are, or the test fails."""
        return Counter(greeting(each).split()[0] for each in self.open)


def greeting(client: socket.socket) -> str:
    """What the worker said; empty when it hung up."""
    client.settimeout(ANSWER_SECONDS_MAX)
    return client.recv(1_000, socket.MSG_PEEK).decode()


def is_greeted(client: socket.socket) -> bool:
    """Whether something has arrived."""
    client.settimeout(0)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """What is logged from now on, whatever this process logged before."""
    configure_logs("warning")
    with capture_logs() as lines:
        yield lines


Begin = Callable[[int], tuple[socket.socket, Clients]]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Begins a dispatcher for so many workers: its door, and those who connect to its port."""
    with ExitStack() as stack:

        def _begin(workers: int) -> tuple[socket.socket, Clients]:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            made = Dispatcher(listener, tmp_path, workers)
            clients = Clients(listener)
            stack.callback(clients.close)
            stack.enter_context(made.running())
            return made.door, clients

        yield _begin


def test_each_worker_has_its_turn(begin: Begin) -> None:
    """Opened one after the other or all at once, and before the last worker was there: each of three has a third of them."""
    door, clients = begin(3)
    clients.connect(5)
    with worker(door, "a"), worker(door, "b"):
        clients.connect(5)
        with worker(door, "c"):
            for _ in range(20):
                clients.connect()
                greeting(clients.open[-1])
            clients.connect(60)
            assert {"a": 30, "b": 30, "c": 30} == clients.greeted()


def test_nobody_is_let_in_before_all_workers_are_there(begin: Begin) -> None:
    """The first of two could serve, and would have all that come at the start."""
    door, clients = begin(2)
    clients.connect(4)
    with worker(door, "a"):
        with worker(door, "b"):
            assert {"a": 2, "b": 2} == clients.greeted()
        # One that ends later is not waited for.
        clients.connect(4)
        assert {"a": 6, "b": 2} == clients.greeted()


def test_connections_are_as_if_accepted(begin: Begin) -> None:
    """A worker knows who connected, and sends without delay."""
    door, clients = begin(1)
    with worker(door, "a"):
        clients.connect()
        assert f"a {clients.open[0].getsockname()[1]} False\n" == greeting(clients.open[0])


def test_who_waits_for_a_worker_that_takes_nothing(begin: Begin) -> None:
    """Few wait for it, all others are served meanwhile; when it ends, another one serves those too."""
    door, clients = begin(2)
    with worker(door, "a"):
        with deaf_worker(door):
            clients.connect(3 * UNTAKEN_MAX)
            until(lambda: sum(map(is_greeted, clients.open)) == 2 * UNTAKEN_MAX, ANSWER_SECONDS_MAX)
            clients.connect()
            assert greeting(clients.open[-1])
            assert 2 * UNTAKEN_MAX + 1 == sum(map(is_greeted, clients.open))
        assert {"a": 3 * UNTAKEN_MAX + 1} == clients.greeted()


def test_who_waited_for_workers_that_ended_is_served(begin: Begin) -> None:
    """More than one other worker has room for, and when nobody at all is left: all of them are served in the end."""
    door, clients = begin(2)
    with deaf_worker(door):
        with deaf_worker(door):
            clients.connect(2 * UNTAKEN_MAX + 5)
            until(lambda: clients.unaccepted() == 5, ANSWER_SECONDS_MAX)
        clients.connect(5)
    clients.connect(5)
    with worker(door, "a"):
        assert {"a": 2 * UNTAKEN_MAX + 15} == clients.greeted()


def test_a_worker_that_never_comes_keeps_nobody_waiting(
    begin: Begin, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while those who are there begin without it, and say so."""
    monkeypatch.setattr(dispatcher, "LAST_WORKER_SECONDS_MAX", 0.1)
    door, clients = begin(3)
    clients.connect(4)
    with worker(door, "a"), worker(door, "b"):
        assert 4 == clients.greeted().total()
    told: Any = {"event": "workers_missing", "expected": 3, "ready": 2, "log_level": "warning"}
    assert logged == [told]


def test_whoever_was_taken_stays_with_who_took_him(begin: Begin) -> None:
    """Workers come, take one and go on serving him while they take no more: everybody is greeted, and by one alone."""
    door, clients = begin(1)
    ending = threading.Event()

    def come_and_go() -> list[socket.socket]:
        taken = []
        while not ending.is_set():
            with socket.socket(socket.AF_UNIX) as channel:
                channel.connect(door.getsockname())
                _, (descriptor,), _, _ = socket.recv_fds(channel, 1, 1)
                channel.send(b"t")
            taken.append(socket.socket(fileno=descriptor))
            taken[-1].send(b"fleeting\n")
        return taken

    with worker(door, "a"), ThreadPoolExecutor(1) as pool:
        fleeting = pool.submit(come_and_go)
        for _ in range(30):
            clients.connect(10)
            clients.greeted()
        ending.set()
        while not fleeting.done():
            # The last one may wait for somebody to take.
            clients.connect()
            greeting(clients.open[-1])
        greetings = clients.greeted()
        assert len(fleeting.result()) == greetings["fleeting"]
        assert {1} == {greeting(client).count("\n") for client in clients.open}
        for connection in fleeting.result():
            connection.close()


def test_who_comes_while_no_worker_is_there_waits(begin: Begin) -> None:
    """When the only worker has ended, the next one serves those who came in between."""
    door, clients = begin(1)
    with worker(door, "a"):
        clients.connect()
        assert {"a": 1} == clients.greeted()
    clients.close()
    clients.connect(10)
    with worker(door, "b"):
        assert {"b": 10} == clients.greeted()


def test_who_waits_when_it_ends_is_hung_up_on(tmp_path: Path) -> None:
    """Nobody is left waiting for an answer that never comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Dispatcher(listener, tmp_path, 1)
        clients = Clients(listener)
        with deaf_worker(made.door), made.running():
            clients.connect()
            until(lambda: clients.unaccepted() == 0, ANSWER_SECONDS_MAX)
        assert not greeting(clients.open[0])
        clients.close()


def test_who_comes_while_no_descriptor_is_left_waits(begin: Begin, logged: list[Any]) -> None:
    """It is said in the log, and they are served when there is one again."""
    door, clients = begin(1)
    with worker(door, "a"), socket.socket() as client:
        clients.connect()
        # The worker has it, and the dispatcher no longer: nothing that is closed later makes room for another one.
        until(lambda: is_greeted(clients.open[0]) and not _are_open_twice(), ANSWER_SECONDS_MAX)
        address = clients.open[0].getpeername()
        with no_descriptors_left():
            client.connect(address)
            until(lambda: bool(logged), ANSWER_SECONDS_MAX)
        assert greeting(client).startswith("a ")
    told: Any = {"event": "connections_not_accepted", "reason": "Too many open files", "log_level": "warning"}
    assert told in logged


def test_what_could_not_be_handed_is_tried_again(
    begin: Begin, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system lets no more descriptors through for a moment, nobody is forgotten, though nothing else happens."""
    failing = iter([OSError(errno.ETOOMANYREFS, "Too many references")])
    send = socket.send_fds

    def send_or_fail(*arguments: Any) -> int:
        if (fault := next(failing, None)) is not None:
            raise fault
        return send(*arguments)

    monkeypatch.setattr(socket, "send_fds", send_or_fail)
    door, clients = begin(1)
    with worker(door, "a"):
        clients.connect()
        assert {"a": 1} == clients.greeted()
    told: Any = {"event": "connections_not_handed", "reason": "Too many references", "log_level": "warning"}
    assert logged == [told]


def _are_open_twice() -> bool:
    """Whether this process has two descriptors of the same socket."""
    opened = Counter[str]()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            opened[str(descriptor.readlink())] += 1
    return any(number > 1 for name, number in opened.items() if name.startswith("socket:"))


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """This process can open nothing more."""
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_dispatcher_that_fails_ends_its_process(tmp_path: Path) -> None:
    """Nobody would be let in any more: the process is told to end, and says why."""
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            made = Dispatcher(listener, tmp_path, 1)
            listener.close()
            with pytest.raises(ValueError, match="Invalid file"), made.running(), deaf_worker(made.door):
                until(lambda: told == [signal.SIGTERM], ANSWER_SECONDS_MAX)
    finally:
        signal.signal(signal.SIGTERM, before)
