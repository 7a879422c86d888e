"""SIGKILL in the middle of a load, again and again: what was acknowledged is there, once; the rest may be sent again.

The service is killed ten times. On the embedded engine every third time its PostgreSQL is killed with it, which is what
a crash of the machine looks like to both (but for the disk's own cache, which no test of processes can lose). Then its
PostgreSQL is killed alone, and the service lives on.
"""

import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from metering.store.embedded import EmbeddedServer
from tests.acceptance.load import LOADERS, SEED, Load
from tests.acceptance.processes import Home, Service, crash, home_in, pending, restart, server_like, until
from tests.conftest import ENGINES, Server

KILLS: Final = 6
DATABASE_KILLS: Final = 4


class Place:
    """Where the service runs: with its embedded server, or on a database that is not its own."""

    def __init__(self, home: Home, database_url: str | None) -> None:
        self.home = home
        self._variables = {} if database_url is None else {"METERING_DATABASE_URL": database_url}
        self.database_url = database_url or EmbeddedServer(home.data_dir).url()
        self.is_embedded = database_url is None

    def serve(self) -> Service:
        """Start the service; its refresher is always at work, so that it is killed at work too."""
        return self.home.serve(METERING_REFRESH_SECONDS="0.05", **self._variables)


@pytest.fixture(params=["embedded", *(engine for engine in ENGINES if engine != "postgres")])
def place(request: pytest.FixtureRequest, tmp_path: Path, servers: dict[str, Server]) -> Iterator[Place]:
    """The embedded engine as it is shipped, and TimescaleDB where it is at hand."""
    if request.param == "embedded":
        with home_in(tmp_path) as home:
            yield Place(home, None)
        return
    server = servers[request.param]
    url = server.clone()
    with home_in(tmp_path) as home:
        yield Place(home, url)
    server.drop(url)


def test_what_was_acknowledged_survives_every_kill(place: Place) -> None:
    """After each of six kills every acknowledged event is recorded, once; resending the others makes the totals exact."""
    load = Load(datetime.now(UTC))
    moments = random.Random(SEED)
    service = place.serve()

    for kill in range(KILLS):
        before = len(load.acknowledged)
        with_its_server = place.is_embedded and kill % 3 == 2
        _kill_under_load(place, service, load, moments.uniform(0.05, 0.8), with_its_server=with_its_server)
        assert [] == load.faults
        assert len(load.acknowledged) > before

        service = place.serve()
        load.check_acknowledged(service, place.database_url)

    load.resend(service)
    load.check_acknowledged(service, place.database_url)
    until(lambda: pending(service) == 0, 30)
    load.check_everything(service, place.database_url)
    service.stop()


def _kill_under_load(place: Place, service: Service, load: Load, seconds: float, *, with_its_server: bool) -> None:
    before = len(load.acknowledged)
    loaders = [threading.Thread(target=load.run, args=(service.address,)) for _ in range(LOADERS)]
    for loader in loaders:
        loader.start()
    try:
        until(lambda: len(load.acknowledged) > before or load.faults, 30)
        time.sleep(seconds)  # the moment of the kill, drawn by lot
        if with_its_server:
            place.home.kill_postgres()
    finally:
        service.kill()
        for loader in loaders:
            loader.join()


def test_the_service_outlives_every_kill_of_its_database(
    servers: dict[str, Server], engine: str, tmp_path: Path
) -> None:
    """PostgreSQL is killed under a load and started again: the service goes on by itself, and nothing is lost or doubled."""
    load = Load(datetime.now(UTC))
    with server_like(servers[engine], tmp_path / "server") as server, home_in(tmp_path) as home:
        service = home.serve(METERING_DATABASE_URL=server.url(), METERING_REFRESH_SECONDS="0.05")
        for _ in range(DATABASE_KILLS):
            with load.upon(service):
                load.await_acknowledged(5)
                crash(server)
                load.await_answers(503, 5)
                restart(server)
                load.await_acknowledged(5)
            load.check_acknowledged(service, server.url())
        load.resend(service)
        load.check_everything(service, server.url())
        service.stop()
