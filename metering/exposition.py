"""Readings as Prometheus reads them: its text format, version 0.0.4. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from metering.metrics import METRICS, Kind, Metric, Observed, Readings

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def exposition(readings: Readings, metrics: Iterable[Metric] = METRICS) -> str:
    """The readings of these metrics, each metric with its help and kind; one without readings is left out."""
    numbers: defaultdict[str, list[tuple[tuple[str, ...], float]]] = defaultdict(list)
    observed: defaultdict[str, list[tuple[tuple[str, ...], Observed]]] = defaultdict(list)
    for labelled, value in sorted(readings.numbers.items()):
        numbers[labelled.metric].append((labelled.values, value))
    for labelled, of_histogram in sorted(readings.observed.items(), key=lambda item: item[0]):
        observed[labelled.metric].append((labelled.values, of_histogram))
    lines: list[str] = []
    for metric in metrics:
        of_metric = [
            *(f"{metric.name}{_labels(metric, values)} {_number(value)}" for values, value in numbers[metric.name]),
            *(line for values, each in observed[metric.name] for line in _histogram(metric, values, each)),
        ]
        if of_metric:
            lines += [f"# HELP {metric.name} {_escaped(metric.help)}", f"# TYPE {metric.name} {metric.kind.value}"]
            lines += of_metric
    return "".join(f"{line}\n" for line in lines)


def _histogram(metric: Metric, values: tuple[str, ...], observed: Observed) -> Iterator[str]:
    assert metric.kind is Kind.HISTOGRAM, f"{metric.name} was observed"
    bounds = [*(_number(bound) for bound in metric.bounds), "+Inf"]
    counts = list(accumulate(observed.counts))
    for bound, count in zip(bounds, counts, strict=True):
        yield f"{metric.name}_bucket{_labels(metric, values, le=bound)} {count}"
    yield f"{metric.name}_sum{_labels(metric, values)} {_number(observed.sum)}"
    yield f"{metric.name}_count{_labels(metric, values)} {counts[-1]}"


def _labels(metric: Metric, values: tuple[str, ...], **more: str) -> str:
    named = {**dict(zip(metric.labels, values, strict=True)), **more}
    inside = ",".join(f'{name}="{_escaped(value, quotes=True)}"' for name, value in named.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(text: str, *, quotes: bool = False) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quotes else escaped


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
