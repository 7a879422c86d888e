"""Tests of events and of questions once more, through nginx, with two services behind it that take turns.

Nothing is said here of what they hold: they are those tests of three files that know of the service what a client knows.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final, cast

import httpx2
import pytest
from starlette.testclient import TestClient

from tests.acceptance.nginx import Nginx, needs_nginx, nginx_before
from tests.conftest import ENGINES, Api, Server
from tests.graphql_api import test_http as questions
from tests.graphql_api import test_usage as figures
from tests.graphql_api.serving import serving
from tests.metering.ingest import test_endpoint as events

pytestmark = needs_nginx

WAIT_SECONDS: Final = 30.0
# By these they ask for the service; here each of them is what answers behind nginx.
THE_SERVICE: Final = {"api", "web", "year"}
# Who asks for one of these too looks behind the service, or makes one of its own.
BEHIND_IT: Final = {"database_url", "url", "year_url", "servers", "monkeypatch", "caplog", "capfd"}
# Hundreds of requests each, and what they ask is asked by others too; or a header that a client does not let pass.
LEFT_OUT: Final = {
    "test_a_bad_key_is_refused_whatever_is_asked",
    "test_an_operation_answers_from_one_snapshot",
    "test_distinct_values_are_counted_for_totals_groups_and_remainder",
    "test_filters_keep_what_they_name",
    "test_groups_by_any_dimensions",
    "test_groups_by_several_dimensions_page_by_key_in_the_order_of_group_by",
    "test_groups_come_in_order_on_pages_of_every_size",
}


def of_clients(module: ModuleType) -> dict[str, Callable[..., None]]:
    """The tests of a file that see of the service what a client sees."""

    def sees(test: Callable[..., None]) -> bool:
        asked = inspect.signature(test).parameters.keys()
        return bool(asked & THE_SERVICE) and not asked & BEHIND_IT

    return {
        name: each
        for name, each in vars(module).items()
        if name.startswith("test_") and inspect.isfunction(each) and sees(each) and name not in LEFT_OUT
    }


# pytest finds them here, and gives them the fixtures of this file.
globals().update({**of_clients(events), **of_clients(questions), **of_clients(figures)})


@contextmanager
def behind_nginx(database_url: str, folder: Path) -> Iterator[tuple[Api, Nginx]]:
    """Two services on this database as one, at the address of an nginx before them."""
    chosen = {"notify_seconds": 3_600.0}
    with (
        serving(database_url, **chosen) as first,
        serving(database_url, **chosen) as second,
        nginx_before(folder / "nginx", [f"http://{first}", f"http://{second}"]) as nginx,
        httpx2.Client(base_url=nginx.address, timeout=WAIT_SECONDS, trust_env=False, follow_redirects=True) as client,
    ):
        # As far as these tests go it is one: the other would ask a service in this process.
        yield Api(cast("TestClient", client)), nginx


def took_turns(nginx: Nginx) -> bool:
    """Whether both services answered."""
    return 1 < len({line["upstream"] for line in nginx.logged()} - {"", "-"})


@pytest.fixture
def api(servers: dict[str, Server], tmp_path: Path) -> Iterator[Api]:
    """The two on a database of this test's own."""
    with servers[ENGINES[0]].cloned() as url, behind_nginx(url, tmp_path) as (both, _):
        yield both


@pytest.fixture(scope="module")
def web(servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The two, for tests that leave nothing behind."""
    with servers[ENGINES[0]].cloned() as url, behind_nginx(url, tmp_path_factory.mktemp("web")) as (both, nginx):
        yield both
        assert took_turns(nginx)


@pytest.fixture(scope="module")
def year(servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The two over the events of a year: three quarters are rolled up, and the rest came late."""
    early, late = figures.EVENTS[:180], figures.EVENTS[180:]
    with servers[ENGINES[0]].cloned() as url, behind_nginx(url, tmp_path_factory.mktemp("year")) as (both, nginx):
        assert both.send(early)["accepted"] == len(early)
        asyncio.run(figures.refresh(url))
        assert both.send(late)["accepted"] == len(late)
        yield both
        assert took_turns(nginx)


def test_every_file_has_tests_of_clients() -> None:
    """Of each of the three files there are tests here: a fixture of another name would leave none."""
    found: list[int] = [len(of_clients(module)) for module in (events, questions, figures)]

    assert all(count >= 5 for count in found), found
    assert {name for module in (events, questions, figures) for name in vars(module)} >= LEFT_OUT
