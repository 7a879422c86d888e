"""A service that is told to stop while streams are open: each is completed, and it ends in good order and in time."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx2
import pytest

from tests.acceptance.processes import Home, home_in
from tests.conftest import ADMIN_KEY, bearer

TOTALS: Final = (
    'subscription { usageTotals(query: { period: { from: "2026-03-01T00:00:00Z", to: "2026-04-01T00:00:00Z" } }, '
    "everySeconds: 3600) { unit } }"
)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A directory of this test's own."""
    with home_in(tmp_path) as home:
        yield home


@pytest.mark.parametrize("workers", ["1", "2"])
def test_streams_are_completed_when_the_service_stops(home: Home, workers: str) -> None:
    """SIGTERM with a stream open that would rest for an hour: `complete`, the end of the body, and exit code 0, in time."""
    service = home.serve("--workers", workers)
    headers = {"Accept": "text/event-stream", **bearer(ADMIN_KEY)}
    with (
        httpx2.Client(timeout=30, trust_env=False) as client,
        client.stream("POST", f"{service.address}/graphql", json={"query": TOTALS}, headers=headers) as response,
    ):
        lines = response.iter_lines()
        assert "event: next" == next(lines)
        assert {"usageTotals": []} == json.loads(next(lines).removeprefix("data: "))["data"]
        service.signal(signal.SIGTERM)
        assert ["event: complete", "data: "] == [line for line in lines if line]

    assert 0 == service.ended()
    assert "" == service.stderr
