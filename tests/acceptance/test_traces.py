"""Traces of real processes: each worker sends its own, also what is left when it is told to stop."""

from pathlib import Path
from typing import Final

import httpx2

from tests.acceptance.processes import home_in, until
from tests.collecting import collecting
from tests.conftest import ADMIN_KEY, ENGINES, Server, bearer

QUESTION: Final = {"query": "query Last { service { version } }"}
TRACE: Final = "ab" * 16
LAST: Final = {"traceparent": f"00-{TRACE}-{'cd' * 8}-01", **bearer(ADMIN_KEY)}
_PATIENCE_SECONDS: Final = 30.0


def test_every_worker_sends_its_own_spans_before_it_ends(servers: dict[str, Server], tmp_path: Path) -> None:
    """Two workers send by their own names, and the span of the last question arrives though they were told to stop at once."""
    with collecting() as collector, servers[ENGINES[0]].cloned() as url, home_in(tmp_path) as home:
        service = home.serve("--workers", "2", METERING_TRACES_URL=collector.url, METERING_DATABASE_URL=url)

        def both_told() -> bool:
            # A connection of its own each time: the kernel says which worker takes it.
            httpx2.post(f"{service.address}/graphql", json=QUESTION, headers=bearer(ADMIN_KEY), trust_env=False)
            return len({each.process for each in collector.named("query Last")}) == 2

        until(both_told, _PATIENCE_SECONDS)
        httpx2.post(f"{service.address}/graphql", json=QUESTION, headers=LAST, trust_env=False)
        service.stop()

        assert 1 == len(collector.named("query Last", TRACE))
        assert 1 == len({each.process for each in collector.named("loop refresh")})
        assert "" == service.stderr
