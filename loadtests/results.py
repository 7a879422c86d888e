"""What load tests measured, as it is kept in results/: a file for each day and script, a table a line (bench.py writes them)."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec

FOLDER: Final = Path(__file__).parent / "results"
ENGINES: Final = ("PostgreSQL", "TimescaleDB")

_Commit = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{7,40}\Z")]
_Named = Annotated[str, msgspec.Meta(min_length=1)]
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_Command = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
_Columns = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class ResultsError(Exception):
    """Lines of the results are not as they should be: every fault, a line each."""


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table as it stands in a file; `command` begins with the script's path in the repository, cells are as printed."""

    at: _Instant
    command: _Command
    machine: _Named
    commit: _Commit
    title: _Named
    columns: _Columns
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"each row of {self.title!r} should have {len(self.columns)} cells, one for each column")


class Table(Line, frozen=True, kw_only=True):
    """A table with the name of the file that it stands in, and the engine that was measured, where it was one alone."""

    file: str
    engine: str | None

    @property
    def script(self) -> str:
        """What measured it, as `ingest`."""
        return Path(self.command[0]).stem


_DECODER: Final = msgspec.json.Decoder(Line)


def read(folder: Path = FOLDER) -> list[Table]:
    """Every table of every file, files by name; none where there is no folder.

    Raises ResultsError with every line that is no table, and every one that stands in a file of another day or script.
    """
    tables: list[Table] = []
    faults: list[str] = []
    for path in sorted(folder.glob("*.jsonl")):
        lines: list[Line] = []
        for number, text in enumerate(path.read_bytes().splitlines(), 1):
            try:
                lines.append(_DECODER.decode(text))
            except msgspec.DecodeError as error:
                faults.append(f"{path.name}, line {number}: {error}")
                continue
            if not path.name.startswith(_begins(lines[-1])):
                faults.append(
                    f"{path.name}, line {number}: the name of its file should begin with {_begins(lines[-1])}"
                )
        tables += _tables(path.name, lines)
    if faults:
        raise ResultsError("\n".join(faults))
    return tables


def newest(tables: Sequence[Table], script: str, columns: Sequence[str]) -> Mapping[str, Table]:
    """The newest table that a script printed with these columns, of each engine that it measured."""
    found = {
        table.engine: table
        for table in sorted(tables, key=lambda table: table.at)
        if table.script == script and table.columns == tuple(columns)
    }
    return {engine: found[engine] for engine in ENGINES if engine in found}


def _begins(line: Line) -> str:
    return f"{line.at:%F}-{Path(line.command[0]).stem}"


def _tables(file: str, lines: Sequence[Line]) -> Iterator[Table]:
    """With their engines: a title or a command names it, or else the table before, where it is of the same run."""
    before: dict[tuple[tuple[str, ...], str], str | None] = {}
    for line in lines:
        run = (line.command, line.commit)
        named = [engine for engine in ENGINES if engine in line.title or engine in line.command]
        engine = named[0] if named else before.get(run)
        before[run] = engine
        yield Table(**msgspec.structs.asdict(line), file=file, engine=engine)
