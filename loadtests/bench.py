"""What the load tests share: an engine and a service of their own, what they use, and a table with machine and commit."""

import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from metering.store.embedded import EmbeddedServer
from metering.store.migrate import upgrade

KEY = "loadtest-key-of-32-characters-00"
TIMESCALEDB_BIN = os.environ.get("METERING_TEST_TIMESCALEDB_BIN")
ENGINES = ("PostgreSQL", "TimescaleDB") if TIMESCALEDB_BIN else ("PostgreSQL",)


class Usage:
    """What a process and those that it started have used so far; it does not depend on who else runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu_seconds(self) -> float:
        """Processor time, of those that live."""
        return sum(sum(map(int, fields[11:13])) for fields in self._family()) / os.sysconf("SC_CLK_TCK")

    def resident_mebibytes(self) -> float:
        """Memory held now; what processes share counts for each."""
        return sum(int(fields[21]) for fields in self._family()) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def _family(self) -> list[list[str]]:
        """The fields of /proc/<pid>/stat from the third on, of each process."""
        stats: dict[int, list[str]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                stats[int(stat.parent.name)] = stat.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
        return [fields for pid, fields in stats.items() if self._descends(pid, stats)]

    def _descends(self, pid: int, stats: dict[int, list[str]]) -> bool:
        while pid in stats:
            if pid == self._pid:
                return True
            pid = int(stats[pid][1])
        return False


@contextmanager
def database(engine: str, directory: Path) -> Iterator[tuple[str, Usage]]:
    """A server of this engine with a migrated database, its files in a directory that may hold one already."""
    server = server_of(engine, directory)
    server.start()
    try:
        upgrade(server.url())
        assert server.pid is not None, "it was started"
        yield server.url(), Usage(server.pid)
    finally:
        server.stop()


def server_of(engine: str, directory: Path) -> EmbeddedServer:
    """A server of this engine, its files in a directory; not started."""
    if engine == "PostgreSQL":
        return EmbeddedServer(directory)
    assert TIMESCALEDB_BIN is not None, "only then it is one of ENGINES"
    extra = {"shared_preload_libraries": "timescaledb", "timescaledb.telemetry_level": "off"}
    return EmbeddedServer(directory, Path(TIMESCALEDB_BIN), extra)


@contextmanager
def service(database_url: str, **settings: str) -> Iterator[tuple[str, Usage]]:
    """A service as it is shipped, on this database: its address, and what it uses."""
    process, address = launch(database_url, **settings)
    try:
        yield address, Usage(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def launch(database_url: str, port: int = 0, **settings: str) -> tuple[subprocess.Popen[str], str]:
    """Start a service as it is shipped, on this database, and wait until it is ready: its process and its address."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("METERING_")}
    environment |= {"METERING_BOOTSTRAP_KEY": KEY, "METERING_LOG_LEVEL": "error", "METERING_DATABASE_URL": database_url}
    environment |= {f"METERING_{name.upper()}": value for name, value in settings.items()}
    program = Path(sys.executable).parent / "metering"
    process = subprocess.Popen(
        [program, "serve", "--port", str(port)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"Ready: (\S+)/graphql", line)
    if found is None:
        process.kill()
        process.wait(30)
        raise SystemExit(f"the service did not start: {line!r}")
    return process, found[1]


@contextmanager
def scratch(engine: str) -> Iterator[Path]:
    """A directory for an engine's files: one that stays, under METERING_BENCH_DIR, or else a temporary one."""
    kept = os.environ.get("METERING_BENCH_DIR")
    if kept:
        yield Path(kept) / engine.lower()
    else:
        with tempfile.TemporaryDirectory(prefix="metering-bench-") as directory:
            yield Path(directory)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, with what is needed to run it again; and as a line of JSON where METERING_BENCH_RESULTS is a folder."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    commit = found.stdout.strip() or "unknown"
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"\n{title}\n\n{machine}, commit {commit}\n")
    print(f"| {' | '.join(columns)} |")
    print(f"|{'|'.join('---' for _ in columns)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    kept = os.environ.get("METERING_BENCH_RESULTS")
    if kept:
        script, today = Path(sys.argv[0]), datetime.now(UTC)
        Path(kept).mkdir(parents=True, exist_ok=True)
        line = {"at": f"{today:%FT%TZ}", "command": [f"loadtests/{script.name}", *sys.argv[1:]], "machine": machine,
                "commit": commit, "title": title, "columns": list(columns), "rows": [list(row) for row in rows]}  # fmt: skip
        with (Path(kept) / f"{today:%F}-{script.stem}.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
