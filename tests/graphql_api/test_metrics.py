"""GET /metrics: what the service counts is what happened, and told to those who run it only."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from metering import metrics
from metering.background import CONNECTIONS as BACKGROUND_CONNECTIONS
from metering.config import Settings
from metering.exposition import CONTENT_TYPE, exposition
from metering.metrics import METRICS, Counters, Kind
from tests.acceptance.processes import until
from tests.conftest import ADMIN_KEY, ENGINES, Api, Server, bearer, running
from tests.graphql_api.worlds import MINE, TOKENS, key_for, token

SCRAPE_KEY: Final = "of-prometheus-and-nobody-else"
USAGE: Final = """
query Usage { service { status } ...more }
fragment more on Query { again: service { version } usage(query: {period: {from: "2026-09-01T00:00:00Z",
to: "2026-10-01T00:00:00Z"}}) { ... on UsageReport { totals { unit events } } } }
"""
Sample = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture(scope="module")
def api(servers: dict[str, Server]) -> Iterator[tuple[Api, str]]:
    """A service of this file's own, and the address of its database."""
    with servers[ENGINES[0]].cloned() as url, running(url, metrics_key=SCRAPE_KEY, **TOKENS) as started:
        yield started, url


def event(number: int, **values: Any) -> dict[str, Any]:
    """An event."""
    return {
        "id": str(number), "source": "gateway", "account": "acme", "product": "maps", "unit": "call", "quantity": "1",
        "occurred_at": "2026-09-02T10:00:00Z", **values,
    }  # fmt: skip


def scraped(api: Api) -> dict[Sample, float]:
    """What Prometheus makes of /metrics: every sample by its name and labels."""
    response = api.client.get("/metrics", headers=bearer(SCRAPE_KEY))
    assert (200, CONTENT_TYPE) == (response.status_code, response.headers["content-type"])
    return read(response.text)


def read(text: str) -> dict[Sample, float]:
    """The samples of a text, each once."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    read = {(each.name, tuple(sorted(each.labels.items()))): each.value for each in samples}
    assert len(samples) == len(read)
    return read


def families(text: str) -> dict[str, tuple[str, str]]:
    """The kind and the help of each metric of a text, by its name."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: (family.type, family.documentation)
        for family in text_string_to_metric_families(text)
    }


def test_what_happened_is_counted(api: tuple[Api, str]) -> None:
    """Events by what became of them, rejections by code, commits, questions by the fields of their root, and requests."""
    service, _ = api
    before = scraped(service)
    service.send([event(1), event(2), event(3)])
    service.send([event(3), event(4), event(5, unit=""), event(6, quantity="much"), event(7, unit=7)])
    service.ask(USAGE)
    service.client.get("/nothing/of/ours")
    after = scraped(service)

    def grew(name: str, **labels: str) -> float:
        sample = (name, tuple(sorted(labels.items())))
        return after.get(sample, 0) - before.get(sample, 0)

    assert (4, 1, 3) == tuple(
        grew("metering_events_total", outcome=each) for each in ("accepted", "duplicate", "rejected")
    )
    assert {"text_invalid": 1, "quantity_not_a_number": 1, "wrong_type": 1} == {
        dict(labels)["code"]: after[name, labels] for name, labels in after if name == "metering_rejections_total"
    }
    assert 2 == grew("metering_commit_seconds_count")
    assert (1, 1) == tuple(grew("metering_question_seconds_count", field=field) for field in ("service", "usage"))
    assert 2 == grew("metering_request_seconds_count", path="/v1/events", status="200")
    assert 2 == grew("metering_request_seconds_bucket", path="/v1/events", status="200", le="+Inf")
    assert 1 == grew("metering_request_seconds_count", path="other", status="404")
    assert 1 == grew("metering_request_seconds_count", path="/graphql", status="200")
    assert 1 == after["metering_processes", ()]
    assert 3 <= grew("metering_sql_statements_total")
    assert 0 == after["metering_queue_events", ()]


def test_every_metric_is_told(api: tuple[Api, str]) -> None:
    """Where something of each kind happened every metric is there, of its kind and with its help; but for batches that could
    not be written, of which there were none.
    """
    service, _ = api
    service.send([event(8), event(8), event(9, unit="")])
    service.ask(USAGE)

    def told() -> str | None:
        # The loops run once at the start, and what became of that is noted a moment later.
        text: str = service.client.get("/metrics", headers=bearer(SCRAPE_KEY)).text
        return text if 'metering_loop_lag_seconds{loop="columnstore"}' in text else None

    expected = {metric.name: (metric.kind.value, metric.help) for metric in METRICS}
    del expected[metrics.UNWRITTEN.name]

    assert expected == families(until(told, 30))


def test_both_pools_are_told(api: tuple[Api, str], servers: dict[str, Server]) -> None:
    """Connections for requests and those of the background work are told apart, each with its own bound; who works holds one
    for as long as it leads. A process that only serves has no pool for work.
    """
    service, _ = api

    def of_leader() -> dict[Sample, float] | None:
        told = connections(scraped(service))
        return told if told["metering_connections", (("pool", "background"), ("state", "used"))] else None

    working = until(of_leader, 30)
    with servers[ENGINES[0]].cloned() as url, running(url, metrics_key=SCRAPE_KEY, work=False) as only_serving:
        serving = connections(scraped(only_serving))

    def bounds(told: dict[Sample, float]) -> dict[str, float]:
        return {labels[0][1]: value for (name, labels), value in told.items() if name == "metering_connections_max"}

    requests = Settings().pool_connections
    assert {"requests": requests, "background": BACKGROUND_CONNECTIONS} == bounds(working)
    assert {"requests": requests} == bounds(serving)
    assert {"requests", "background"} == {labels[0][1] for _, labels in working}
    assert {"requests"} == {labels[0][1] for _, labels in serving}


def connections(told: dict[Sample, float]) -> dict[Sample, float]:
    """Of the samples those of connections."""
    return {sample: value for sample, value in told.items() if sample[0].startswith("metering_connections")}


def test_metrics_are_for_those_who_run_the_service(api: tuple[Api, str]) -> None:
    """The key of the settings opens it, and a key that reaches everything; no other key or token, nor none."""
    service, url = api
    tried = {
        "none": {},
        "wrong": bearer("of-prometheus-and-nobody-els"),
        "not ASCII": {"Authorization": "Bearer sésame".encode()},
        "not bearer": {"Authorization": f"Basic {SCRAPE_KEY}"},
        "bound": bearer(key_for(url, MINE)),
        "token": bearer(token(accounts=[MINE], scope="USAGE_READ")),
        "admin": bearer(ADMIN_KEY),
        "scrape": bearer(SCRAPE_KEY),
    }
    answered = {name: service.client.get("/metrics", headers=headers) for name, headers in tried.items()}

    assert {
        "none": 401, "wrong": 401, "not ASCII": 401, "not bearer": 401, "bound": 403, "token": 403,
        "admin": 200, "scrape": 200,
    } == {name: response.status_code for name, response in answered.items()}  # fmt: skip
    assert all(("metering_" in response.text) == (response.status_code == 200) for response in answered.values())


def test_the_empty_key_opens_nothing(servers: dict[str, Server]) -> None:
    """Where the settings name no key, an empty bearer token is none."""
    with servers[ENGINES[0]].cloned() as url, running(url) as service:
        assert 401 == service.client.get("/metrics", headers={"Authorization": "Bearer "}).status_code


def test_it_answers_while_the_database_is_away(servers: dict[str, Server]) -> None:
    """With the database gone the key of the settings still shows what the process counted, and that the database is away."""
    server = servers[ENGINES[0]]
    url = server.clone()
    with running(url, metrics_key=SCRAPE_KEY) as service:
        service.send([event(1)])
        server.drop(url)
        told = scraped(service)

    assert 0 == told["metering_database_up", ()]
    assert 1 == told["metering_events_total", (("outcome", "accepted"),)]
    assert not [name for name, _ in told if name.startswith(("metering_loop", "metering_rollup", "metering_pending"))]


def test_histograms_hold_what_they_say() -> None:
    """A bucket counts what is at most its bound, also what meets it; what is beyond all bounds counts in the last one."""
    counters = Counters()
    for seconds in (0.001, 0.0011, 0.5, 30.0, 31.0):
        counters.observe(metrics.COMMIT_SECONDS, seconds)
    told = read(exposition(counters.readings()))
    counts = {labels[0][1]: value for (name, labels), value in told.items() if name.endswith("_bucket")}

    assert {"0.001": 1, "0.0025": 2, "0.25": 2, "0.5": 3, "10": 3, "30": 4, "+Inf": 5} == {
        bound: counts[bound] for bound in ("0.001", "0.0025", "0.25", "0.5", "10", "30", "+Inf")
    }
    assert 5 == told["metering_commit_seconds_count", ()]
    assert told["metering_commit_seconds_sum", ()] == pytest.approx(61.5021)


def test_labels_are_told_as_they_are() -> None:
    """Whatever a label holds, Prometheus reads that, and no line of it becomes another sample."""
    counters = Counters()
    odd = 'a "quoted" \\ back\nmetering_events_total 1'
    counters.count(metrics.REJECTIONS, odd)

    assert {("metering_rejections_total", (("code", odd),)): 1} == read(exposition(counters.readings()))


def test_names_say_their_unit() -> None:
    """Each name is there once; a counter ends in `_total`, and nothing else does; a histogram is one of times, in seconds."""
    assert len(METRICS) == len({metric.name for metric in METRICS})
    for metric in METRICS:
        assert metric.name.startswith("metering_")
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert (metric.kind is Kind.HISTOGRAM) <= metric.name.endswith("_seconds")
        assert bool(metric.bounds) == (metric.kind is Kind.HISTOGRAM)
