"""Metrics: every number that the service tells of its own work, each with its name, kind, unit and meaning.

This is the one place where they are declared; docs/operating.md lists them, and a test compares. What a process counts itself
it counts in `Counters`, plain numbers in memory: an event must not pay for being counted. What all processes share, such as how
far the rollups are, is looked up when it is asked for (metering/gauges.py).
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, NamedTuple

import msgspec


class Kind(Enum):
    """What can be done with a metric: only a counter has a rate, only a gauge has a value of its own."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Origin(Enum):
    """Whose number it is: that of the processes that answer at one address, added up, or that of the whole service."""

    PROCESS = "these processes"
    SERVICE = "the service"


class Metric(msgspec.Struct, frozen=True):
    """A metric. Its name ends in its unit; a counter's in `_total`."""

    name: str
    kind: Kind
    origin: Origin
    help: str
    labels: tuple[str, ...] = ()
    # Upper bounds, of a histogram.
    bounds: tuple[float, ...] = ()


_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, Origin.PROCESS, help, labels)


def _seconds(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, Origin.PROCESS, help, labels, _SECONDS)


def _gauge(name: str, origin: Origin, help: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, origin, help, labels)


REQUEST_SECONDS: Final = _seconds(
    "metering_request_seconds",
    "How long requests took, by path (`other` for those that are none of ours) and HTTP status.",
    "path",
    "status",
)
EVENTS: Final = _counter(
    "metering_events_total", "Events that receipts told of: `accepted`, `duplicate` or `rejected`.", "outcome"
)
REJECTIONS: Final = _counter("metering_rejections_total", "Rejected events, by the code of the rejection.", "code")
COMMIT_SECONDS: Final = _seconds(
    "metering_commit_seconds", "How long it took to write a batch of events, from the queue to its commit."
)
UNWRITTEN: Final = _counter("metering_failed_batches_total", "Batches of events that could not be written.")
QUESTION_SECONDS: Final = _seconds(
    "metering_question_seconds",
    "How long operations over GraphQL took, by each field that they ask at the root.",
    "field",
)
STATEMENTS: Final = _counter(
    "metering_sql_statements_total", "SQL statements that requests sent, but for writing events."
)
QUEUE_EVENTS: Final = _gauge(
    "metering_queue_events", Origin.PROCESS, "Events that wait to be written, or are being written."
)
CONNECTIONS: Final = _gauge(
    "metering_connections",
    Origin.PROCESS,
    "Connections to the database, `used` and `idle`: of the pool for `requests`, and of the one for `background` work.",
    "pool",
    "state",
)
CONNECTIONS_MAX: Final = _gauge(
    "metering_connections_max", Origin.PROCESS, "How many of these connections each pool may have.", "pool"
)
PROCESSES: Final = _gauge("metering_processes", Origin.PROCESS, "Processes that answer at this address.")

DATABASE_UP: Final = _gauge(
    "metering_database_up",
    Origin.SERVICE,
    "1 where the database answered; 0 where not, and then nothing else is told of the service.",
)
ROLLUP_LAG: Final = _gauge(
    "metering_rollup_lag_seconds", Origin.SERVICE, "How long ago the time ends of which everything is rolled up."
)
TAIL_LAG: Final = _gauge(
    "metering_tail_lag_seconds", Origin.SERVICE, "How long ago the time ends of which there are figures by minute."
)
PENDING: Final = _gauge(
    "metering_pending_buckets", Origin.SERVICE, "Buckets and late events that are still to be rolled up anew."
)
DELIVERIES: Final = _gauge("metering_pending_deliveries", Origin.SERVICE, "Deliveries that are not finished.")
DELIVERY_LAG: Final = _gauge(
    "metering_delivery_lag_seconds", Origin.SERVICE, "How long ago the delivery fell due that waits longest."
)
LED: Final = _gauge("metering_background_led", Origin.SERVICE, "1 where a process does the background work, else 0.")
LOOP_LAG: Final = _gauge(
    "metering_loop_lag_seconds", Origin.SERVICE, "How far behind a loop of background work is, by its name.", "loop"
)
LOOP_SUCCESS: Final = _gauge(
    "metering_loop_success_timestamp_seconds",
    Origin.SERVICE,
    "When a loop ended a run well last, in seconds since 1970.",
    "loop",
)
LOOP_FAILURES: Final = _gauge(
    "metering_loop_failures", Origin.SERVICE, "How many runs of a loop failed since one ended well.", "loop"
)

METRICS: Final = (
    REQUEST_SECONDS, EVENTS, REJECTIONS, QUEUE_EVENTS, COMMIT_SECONDS, UNWRITTEN, QUESTION_SECONDS, STATEMENTS,
    CONNECTIONS, CONNECTIONS_MAX, PROCESSES,
    DATABASE_UP, ROLLUP_LAG, TAIL_LAG, PENDING, DELIVERIES, DELIVERY_LAG, LED, LOOP_LAG, LOOP_SUCCESS, LOOP_FAILURES,
)  # fmt: skip


class Labelled(NamedTuple):
    """A metric, by its name, of these values of its labels, in the order in which it names them."""

    metric: str
    values: tuple[str, ...]


class Observed(msgspec.Struct):
    """What a histogram holds: how many observations were at most as large as each bound and no smaller one, and those beyond
    the last; and their sum.
    """

    counts: list[int]
    sum: float = 0.0


class Readings(msgspec.Struct):
    """What metrics say at an instant."""

    numbers: dict[Labelled, float]
    observed: dict[Labelled, Observed]

    def add(self, others: "Readings") -> None:
        """Add up with those of another process."""
        for labelled, value in others.numbers.items():
            self.numbers[labelled] = self.numbers.get(labelled, 0) + value
        for labelled, theirs in others.observed.items():
            ours = self.observed.setdefault(labelled, Observed([0] * len(theirs.counts)))
            ours.counts = [mine + more for mine, more in zip(ours.counts, theirs.counts, strict=True)]
            ours.sum += theirs.sum


# A value now, for each value of the labels.
Gauge = Callable[[], Mapping[tuple[str, ...], float]]


class Counters:
    """What this process counts."""

    def __init__(self) -> None:
        # By plain tuples, which take a third of the time.
        self._counts: defaultdict[tuple[str, tuple[str, ...]], float] = defaultdict(float)
        self._observed: dict[tuple[str, tuple[str, ...]], Observed] = {}
        self._gauges: list[tuple[Metric, Gauge]] = []

    def count(self, metric: Metric, *values: str, by: float = 1) -> None:
        """Count more of this."""
        self._counts[metric.name, values] += by

    def observe(self, metric: Metric, seconds: float, *values: str) -> None:
        """Take up an observation."""
        observed = self._observed.get((metric.name, values))
        if observed is None:
            observed = self._observed[metric.name, values] = Observed([0] * (len(metric.bounds) + 1))
        observed.counts[bisect_left(metric.bounds, seconds)] += 1
        observed.sum += seconds

    def read(self, metric: Metric, gauge: Gauge) -> None:
        """Have a gauge read whenever it is asked for."""
        self._gauges.append((metric, gauge))

    def readings(self, *, gauges: bool = True) -> Readings:
        """What was counted up to now, and what gauges read."""
        readings = Readings(
            {Labelled(*name): value for name, value in self._counts.items()},
            {Labelled(*name): Observed(list(each.counts), each.sum) for name, each in self._observed.items()},
        )
        for metric, gauge in self._gauges if gauges else ():
            readings.add(Readings({Labelled(metric.name, values): value for values, value in gauge().items()}, {}))
        return readings
