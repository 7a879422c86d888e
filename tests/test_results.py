"""What load tests measured: every line reads, the documentation has the same figures, and its charts are drawn from them."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from math import log10
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import msgspec
import pytest

from loadtests import bench, chart
from loadtests.results import FOLDER, Line, ResultsError, Table, newest, read

ROOT: Final = Path(__file__).parents[1]
DAY: Final = datetime(2026, 11, 22, 17, 30, tzinfo=UTC)
SVG: Final = "{http://www.w3.org/2000/svg}"
LATENCY: Final = ["asked", "answers", "p50 ms", "p99 ms"]
MEMORY: Final = ["", "median", "most"]
ONES: Final = ["", "count"]


class Written(msgspec.Struct, frozen=True):
    """A table of the document, with what the text of its section last says before it: script, engine and commit."""

    script: str | None
    engine: str | None
    commit: str | None
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def written(text: str) -> Iterator[Written]:
    """Every table of a document."""
    for section in re.split(r"^## ", f"{text}\n", flags=re.MULTILINE)[1:]:
        for found in re.finditer(r"(?:^\|.*\n)+", section, re.MULTILINE):
            before = section[: found.start()]
            said = [
                re.findall(pattern, before, re.MULTILINE)
                for pattern in (
                    r"\bpython (loadtests/\w+\.py)",
                    r"^(?:### )?(PostgreSQL|TimescaleDB):?$",
                    r"\b[Cc]ommit ([0-9a-f]{7,40})\b",
                )
            ]
            script, engine, commit = (each[-1] if each else None for each in said)
            lines = [tuple(cell.strip() for cell in line[1:-1].split("|")) for line in found[0].splitlines()]
            yield Written(script, engine, commit, lines[0], tuple(lines[2:]))


def disagreements(text: str, tables: Sequence[Table]) -> list[str]:
    """What tables of a document have that the results of their commit have not. Rows may be left out, columns may not."""
    faults = []
    for shown in written(text):
        of_run = [
            table
            for table in tables
            if table.command[0] == shown.script and shown.commit and table.commit[:7] == shown.commit[:7]
        ]
        of_engine = [table for table in of_run if shown.engine in {None, table.engine} or table.engine is None]
        alike = [table for table in of_engine if table.columns == shown.columns]
        where = f"{shown.script} of commit {shown.commit}: {shown.columns}"
        missing = [set(shown.rows) - set(table.rows) for table in alike]
        if of_run and not alike:
            faults.append(f"{where}: there is no such table")
        elif missing and all(missing):
            faults += [f"{where}: {row}" for row in sorted(min(missing, key=len))]
    return faults


def line(script: str, title: str, columns: list[str], rows: list[list[str]], **other: Any) -> dict[str, Any]:
    """A line as bench.py writes it, of a made-up run."""
    return {
        "at": DAY.isoformat(),
        "command": [f"loadtests/{script}.py"],
        "machine": "2 cores, x86_64, Python 3.11.7",
        "commit": "0be0380",
        "title": title,
        "columns": columns,
        "rows": rows,
        **other,
    }


def soak(engine: str, p50: str = "20", **other: Any) -> list[dict[str, Any]]:
    """The tables of a made-up soak."""
    return [
        line("soak", f"Mixed soak: 30 minutes, {engine}", ONES, [["events acknowledged", "9,000,000"]], **other),
        line("soak", "Latency", LATENCY, [["500 events", "18,000", p50, "1,200"], ["late", "0", "", ""]], **other),
        line("soak", "Memory of the service, MiB", MEMORY, [["quarter 1", "301", "302"]], **other),
    ]


def ingest(engine: str) -> dict[str, Any]:
    """The table of a made-up measurement of ingest."""
    rows = [["COPY & <1> connection", "40,000", *[""] * 10], ["1,000 a request", "30,000", *["1"] * 10]]
    return line("ingest", f"Ingest on {engine}", list(chart._INGEST), rows)


def questions(engine: str) -> dict[str, Any]:
    """The table of a made-up measurement of questions."""
    rows = [["everyone", "200", "138.3", "240.6", "85,842.8"], ["one account", "200", "10.0", "78.4", "824.1"]]
    return line("query", f"Questions on {engine}", list(chart._QUESTIONS), rows)


def kept(folder: Path, *lines: dict[str, Any]) -> list[Table]:
    """The tables of these lines, written to files and read."""
    for each in lines:
        name = f"{each['at'][:10]}-{Path(each['command'][0]).stem}.jsonl"
        with (folder / name).open("ab") as file:
            file.write(msgspec.json.encode(each) + b"\n")
    return read(folder)


def parsed(text: str) -> ET.Element:
    """A chart, taken apart."""
    return ET.fromstring(text)  # noqa: S314 - our own drawing


def test_every_result_reads() -> None:
    """Each committed line is a table with its commit and machine, in the file of its day; its script is in the repository."""
    tables = read()

    assert sorted(path.name for path in FOLDER.glob("*")) == sorted({table.file for table in tables})
    assert [] == [table.command[0] for table in tables if not (ROOT / table.command[0]).is_file()]


def test_every_table_of_the_documentation_has_the_figures_of_its_results() -> None:
    """A table of docs/performance.md whose script and commit have results has no row that is not in them."""
    assert [] == disagreements(chart.DOCUMENT.read_text(), read())


def test_every_chart_is_drawn_from_the_results() -> None:
    """The charts of docs/ are what `make charts` draws from the committed results, and stand in the document as it puts them."""
    tables, text = read(), chart.DOCUMENT.read_text()

    assert chart.files(tables) == {path.name: path.read_text() for path in chart.CHARTS.glob("*")}
    assert chart.document(text, tables) == text


def test_what_a_load_test_prints_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that is printed while METERING_BENCH_RESULTS names a folder, which need not be there, is a line that reads."""
    folder = tmp_path / "results"
    monkeypatch.setenv("METERING_BENCH_RESULTS", str(folder))
    monkeypatch.setattr("sys.argv", ["/somewhere/loadtests/soak.py", "--engine", "TimescaleDB"])
    bench.print_table("Memory", MEMORY, [["quarter 1", "1", "2"]])
    (path,) = folder.iterdir()
    printed = msgspec.json.decode(path.read_bytes())
    # Where this is no repository of git there is no commit to name, and results of that are refused.
    path.unlink()
    (table,) = kept(folder, printed | {"commit": "0be0380"})

    assert Line.__struct_fields__ == tuple(sorted(printed, key=Line.__struct_fields__.index))
    assert ("soak", "TimescaleDB") == (table.script, table.engine)
    assert (path.name, (("quarter 1", "1", "2"),)) == (table.file, table.rows)


def test_every_fault_of_a_file_is_told(tmp_path: Path) -> None:
    """A line that is no table, or of another day or script, is named with what is wrong; all of them at once."""
    good = line("soak", "Memory", MEMORY, [["quarter 1", "1", "2"]])
    wrong = [
        good | {"commit": "unknown"},
        good | {"at": "2026-11-22T17:30:00"},
        good | {"rows": [["quarter 1", "1"]]},
        good | {"machine": ""},
        good | {"command": []},
        good | {"host": "there"},
        good | {"at": "2026-11-23T00:00:01Z"},
        good | {"command": ["loadtests/ingest.py"]},
    ]
    (tmp_path / "2026-11-22-soak.jsonl").write_bytes(b"\n".join(msgspec.json.encode(each) for each in [good, *wrong]))
    with pytest.raises(ResultsError) as raised:
        read(tmp_path)

    told = [re.sub(r"Expected `\w+` .*- at `\$\.(\w+).*`", r"\1", each) for each in str(raised.value).splitlines()]
    named = "the name of its file should begin with"
    assert [
        "line 2: commit",
        "line 3: at",
        "line 4: each row of 'Memory' should have 3 cells, one for each column",
        "line 5: machine",
        "line 6: command",
        "line 7: Object contains unknown field `host`",
        f"line 8: {named} 2026-11-23-soak",
        f"line 9: {named} 2026-11-22-ingest",
    ] == [each.removeprefix("2026-11-22-soak.jsonl, ") for each in told]


def test_tables_are_of_the_engine_that_their_run_names(tmp_path: Path) -> None:
    """Where a title names no engine it is the one of the table before, of the same run; the newest of each engine is found."""
    later = (DAY + timedelta(hours=1)).isoformat()
    of_both = kept(
        tmp_path,
        *soak("TimescaleDB"),
        *soak("PostgreSQL", at=later, p50="30"),
        *soak("PostgreSQL", p50="10"),
        line("rate", "Rating", ["price"], [["flat"]]),
    )
    found = newest(of_both, "soak", LATENCY)

    assert [None, *["TimescaleDB"] * 3, *["PostgreSQL"] * 6] == [table.engine for table in of_both]
    assert {"PostgreSQL": "30", "TimescaleDB": "20"} == {name: table.rows[0][2] for name, table in found.items()}


def test_a_figure_that_is_not_in_the_results_is_found(tmp_path: Path) -> None:
    """Another figure, another column, and another engine's row are found in the document; what has no results is let be."""
    tables = kept(tmp_path, *soak("PostgreSQL"), *soak("TimescaleDB", p50="33"))
    head = "| asked | answers | p50 ms | p99 ms |\n|---|---|---|---|\n"

    def told(figures: str, commit: str = "0be0380", heading: str = "PostgreSQL") -> list[str]:
        lead = f"# Title\n\n## Soak\n\n`python loadtests/soak.py`\n\n### {heading}\n\nCommit {commit}:\n\n"
        return disagreements(lead + figures, tables)

    def row(p50: str) -> str:
        return f"{head}| 500 events | 18,000 | {p50} | 1,200 |\n"

    of_run = f"loadtests/soak.py of commit 0be0380: {tuple(LATENCY)}"
    fault = f"{of_run}: ('500 events', '18,000', '{{}}', '1,200')"
    assert [] == told(row("20"))
    assert [] == told(row("33"), heading="TimescaleDB")
    assert [] == told(row("21"), commit="1234567")
    assert [fault.format("21")] == told(row("21"))
    assert [fault.format("33")] == told(row("33"))
    assert ["loadtests/soak.py of commit 0be0380: ('asked', 'ms'): there is no such table"] == told(
        "| asked | ms |\n|---|---|\n| 500 events | 20 |\n"
    )


def test_what_has_no_results_has_no_chart(tmp_path: Path) -> None:
    """A chart appears when its results do, wherever its place is, and goes with them; a place too few or too many is told."""
    text = chart.DOCUMENT.read_text()
    bare = chart.document(text, [])
    tables = kept(tmp_path, *soak("PostgreSQL"))
    shown = chart.document(text, tables)

    assert {} == chart.files([])
    assert {"soak.svg"} == chart.files(tables).keys()
    assert "](charts/" not in bare
    assert ["charts/soak.svg"] == re.findall(r"\]\((charts/\w+\.svg)\)", shown)
    assert "* [2026-11-22-soak.jsonl](../loadtests/results/2026-11-22-soak.jsonl): PostgreSQL, 2 cores" in shown
    assert bare == chart.document(shown, [])
    with pytest.raises(ValueError, match="no chart other; the chart soak should have one place"):
        chart.document(text.replace("<!-- chart: soak -->", "<!-- chart: other -->"), tables)


def test_charts_show_every_figure(tmp_path: Path) -> None:
    """Bars are as long as their values, or their magnitudes; each has its value beside it, and the words have them all."""
    lines = [*soak("PostgreSQL"), ingest("PostgreSQL"), ingest("TimescaleDB"), questions("TimescaleDB")]
    tables = kept(tmp_path, *lines)
    drawn = {name: parsed(text) for name, text in chart.files(tables).items()}
    bars = {
        name: [
            (float(each.attrib["width"]), float(each.attrib["y"]))
            for each in root.iter(f"{SVG}rect")
            if each.get("height") == "15"
        ]
        for name, root in drawn.items()
    }

    # 622 pixels are 40,000 events/s, or the five powers of ten from one to 100,000 ms.
    assert [622.0, 466.5] * 2 == [width for width, _ in bars["ingest.svg"]]
    assert [width for width, _ in bars["questions.svg"]] == [
        pytest.approx(622 * log10(value) / 5, abs=0.06) for value in (138.3, 85_842.8, 10, 824.1)
    ]
    # Two of latency, none where nothing was answered, two of memory.
    assert 4 == len(bars["soak.svg"])
    for name, root in drawn.items():
        beside = {(float(each.attrib["y"]) - 12, each.text) for each in root.iter(f"{SVG}text")}
        words = root.findtext(f"{SVG}desc") or ""
        shown = [text for _, top in bars[name] for y, text in beside if y == pytest.approx(top)]
        assert len(bars[name]) == len(shown)
        assert [] == [text for text in shown if text and text not in words]
        assert root.findtext(f"{SVG}title")


def test_panels_of_one_unit_are_drawn_to_one_scale(tmp_path: Path) -> None:
    """What is half as fast on the one engine as on the other has bars that are half as long."""
    slower = ingest("TimescaleDB") | {"rows": [["1,000 a request", "20,000", *["1"] * 10]]}
    root = parsed(chart.files(kept(tmp_path, ingest("PostgreSQL"), slower))["ingest.svg"])

    bars = [float(each.attrib["width"]) for each in root.iter(f"{SVG}rect") if each.get("height") == "15"]
    assert [622.0, 466.5, 311.0] == bars


def test_charts_load_nothing_and_are_the_same_each_time(tmp_path: Path) -> None:
    """A chart has no address but SVG's own name, knows light and dark, and stays in its frame; order changes nothing."""
    tables = kept(tmp_path, *soak("TimescaleDB"), questions("PostgreSQL"), ingest("PostgreSQL"))
    files = chart.files(tables)

    assert {"ingest.svg", "questions.svg", "soak.svg"} == files.keys()
    assert files == chart.files([*reversed(tables)])
    for text in files.values():
        root = parsed(text)
        height = float(root.attrib["height"])
        assert ["http://www.w3.org/2000/svg"] == re.findall(r"\w+://[^\"]+", text)
        assert re.search(r"href|url\(|@import|@font-face|<script", text) is None
        assert "prefers-color-scheme: dark" in text
        assert root.get("role") == "img"
        assert {each.get("id") for each in root} >= set(root.attrib["aria-labelledby"].split())
        assert [] == [each for each in root.iter(f"{SVG}text") if not 0 < float(each.attrib["y"]) < height]
        assert [] == [each for each in root.iter(f"{SVG}rect") if float(each.attrib["width"]) > 760]
