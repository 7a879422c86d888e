"""Draw the charts of docs/performance.md from results/: `make charts`. What has no results has no chart, and no place there.

Of each engine the newest results are drawn. A chart stands in the document between `<!-- chart: NAME -->` and
`<!-- end of chart -->`; a test draws all of them anew and compares.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from loadtests.bars import Bar, Chart, Group, Panel, svg
from loadtests.results import Table, newest, read

_ROOT: Final = Path(__file__).parents[1]
DOCUMENT: Final = _ROOT / "docs" / "performance.md"
CHARTS: Final = _ROOT / "docs" / "charts"
_PLACE: Final = re.compile(r"(<!-- chart: (\w+) -->\n).*?(<!-- end of chart -->\n)", re.DOTALL)

_INGEST: Final = (
    "", "events/s", "of the best COPY", "of INSERT batches", "of single INSERTs",
    "p50 ms", "p99 ms", "CPU µs/event: service", "PostgreSQL", "client", "service MiB", "tail behind, s",
)  # fmt: skip
_QUESTIONS: Final = ("question", "asked", "p50 ms", "p99 ms", "raw SQL p50 ms")
_LATENCY: Final = ("asked", "answers", "p50 ms", "p99 ms")
_MEMORY: Final = ("", "median", "most")
# A table, and the panel that it becomes.
_Drawn = tuple[Table, Panel]


def ingest(tables: Sequence[Table]) -> Iterator[_Drawn]:
    """Events/s of the service beside what PostgreSQL does with the same rows."""
    for table in newest(tables, "ingest", _INGEST).values():
        # Latency is the service's alone: what PostgreSQL does by itself has none.
        groups = tuple(Group(row[0], (_bar(row[1], 1 if row[5] else 0),)) for row in table.rows)
        series = ("the database alone", "through POST /v1/events")
        yield table, _panel(table, "events/s", series, groups)


def questions(tables: Sequence[Table]) -> Iterator[_Drawn]:
    """How long half of the answers take at most, beside the same as SQL over the events; by powers of ten."""
    for table in newest(tables, "query", _QUESTIONS).values():
        groups = tuple(Group(row[0], (_bar(row[2], 0), _bar(row[4], 1))) for row in table.rows)
        yield table, _panel(table, "ms", ("p50 over GraphQL", "p50 as SQL over the events"), groups, by_tens=True)


def soak(tables: Sequence[Table]) -> Iterator[_Drawn]:
    """Latency of everything that was asked, by powers of ten, and the service's memory in each quarter of the time."""
    memory = newest(tables, "soak", _MEMORY)
    for engine, table in newest(tables, "soak", _LATENCY).items():
        yield table, _panel(table, "ms", ("p50", "p99"), _pairs(table, 2), by_tens=True)
        if engine in memory:
            yield memory[engine], _panel(memory[engine], "MiB", ("median", "most"), _pairs(memory[engine], 1))


KINDS: Final[Mapping[str, tuple[str, Callable[[Sequence[Table]], Iterator[_Drawn]]]]] = {
    "ingest": ("Events a second, durable", ingest),
    "questions": ("Usage questions while events come in", questions),
    "soak": ("Everything at once, with kills of the service and of PostgreSQL", soak),
}


def charts(tables: Sequence[Table]) -> dict[str, tuple[Chart, list[Table]]]:
    """By name: each chart that there are results for, and the tables it is drawn from."""
    drawn = {name: (title, list(draw(tables))) for name, (title, draw) in KINDS.items()}
    return {
        name: (Chart(name, title, tuple(panel for _, panel in parts)), [table for table, _ in parts])
        for name, (title, parts) in drawn.items()
        if parts
    }


def files(tables: Sequence[Table]) -> dict[str, str]:
    """Every chart as a file: its name and what is in it."""
    return {f"{name}.svg": svg(chart) for name, (chart, _) in charts(tables).items()}


def document(text: str, tables: Sequence[Table]) -> str:
    """The document with every chart in its place. Raises ValueError with the charts that have none, and places of no chart."""
    drawn = charts(tables)
    places = [name for _, name, _ in _PLACE.findall(text)]
    faults = [f"there is no chart {name}" for name in places if name not in KINDS]
    faults += [f"the chart {name} should have one place" for name in KINDS if places.count(name) != 1]
    if faults:
        raise ValueError("; ".join(faults))

    def placed(place: re.Match[str]) -> str:
        name = place[2]
        return place[1] + (_shown(*drawn[name]) if name in drawn else "") + place[3]

    return _PLACE.sub(placed, text)


def _shown(chart: Chart, tables: Sequence[Table]) -> str:
    """The chart as Markdown, and what it is drawn from."""
    sources = {
        f"* [{table.file}](../loadtests/results/{table.file}): {table.engine}, {table.machine}, commit {table.commit}, "
        f"`{' '.join(table.command)}`\n": None
        for table in tables
    }
    words = chart.description.replace("[", "(").replace("]", ")")
    return (
        f"\n![{chart.title}. {words}](charts/{chart.name}.svg)\n\nDrawn by `make charts` from\n\n{''.join(sources)}\n"
    )


def _panel(
    table: Table, unit: str, series: tuple[str, ...], groups: tuple[Group, ...], *, by_tens: bool = False
) -> Panel:
    heading = table.title if table.engine is None or table.engine in table.title else f"{table.title}, {table.engine}"
    note = f"{table.at:%F}, {table.machine}, commit {table.commit}"
    if by_tens:
        note += "; by powers of ten"
    return Panel(heading=heading, note=note, unit=unit, series=series, groups=groups, is_logarithmic=by_tens)


def _pairs(table: Table, first: int) -> tuple[Group, ...]:
    """Two bars for each row, of two columns beside each other; where nothing was measured there is none."""
    return tuple(
        Group(row[0], tuple(_bar(row[first + series], series) for series in (0, 1) if row[first + series]))
        for row in table.rows
    )


def _bar(shown: str, series: int) -> Bar:
    return Bar(float(shown.replace(",", "")), shown, series)


def main() -> None:
    """Write every chart, take away what is none any more, and put them into the document."""
    tables = read()
    written = files(tables)
    text = document(DOCUMENT.read_text(encoding="utf-8"), tables)
    CHARTS.mkdir(exist_ok=True)
    for path in CHARTS.glob("*.svg"):
        if path.name not in written:
            path.unlink()
    for name, drawn in written.items():
        (CHARTS / name).write_text(drawn, encoding="utf-8")
    DOCUMENT.write_text(text, encoding="utf-8")
    print(f"{len(written)} charts: {', '.join(sorted(written)) or 'there are no results to draw'}")


if __name__ == "__main__":
    main()
