"""What the load tests share: a service of their own, percentiles, and a table with machine and commit."""

import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

KEY = "loadtest-key-of-32-characters-00"


@contextmanager
def service() -> Iterator[tuple[str, str]]:
    """A service of its own, as it is shipped: its address, and its database's."""
    with tempfile.TemporaryDirectory(prefix="metering-bench-") as directory:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("METERING_")}
        given = os.environ.get("METERING_DATABASE_URL")
        environment |= {"METERING_BOOTSTRAP_KEY": KEY, "METERING_LOG_LEVEL": "error", "METERING_DATA_DIR": directory}
        environment |= {"METERING_DATABASE_URL": given} if given else {}
        program = Path(sys.executable).parent / "metering"
        process = subprocess.Popen(
            [program, "serve", "--port", "0"], env=environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"Ready: (\S+)/graphql", line)
            if found is None:
                raise SystemExit(f"the service did not start: {line!r}")
            socket = Path(directory).absolute() / "postgres" / "socket"
            yield found[1], given or f"postgresql://postgres@/metering?host={socket}"
        finally:
            process.terminate()
            process.wait(30)


def cpu_seconds(program: str) -> float:
    """The processor time that all running processes of this name have used so far; it does not depend on who else runs."""
    used = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = stat.read_text().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name == program:
            used += sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK")
    return used


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, with what is needed to run it again."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(f"\n{title}\n")
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, commit {commit or 'unknown'}\n"
    )
    print(f"| {' | '.join(columns)} |")
    print(f"|{'|'.join('---' for _ in columns)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
