"""The house rules that linters cannot say, each with what it is for."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from metering import errors
from metering.ingest.receipts import Code
from metering.store.held import held_by
from metering.store.queries import all_statements

ROOT = Path(__file__).parent.parent
PACKAGES = ("graphql_api", "metering", "rating", "health", "migrations")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
FUNCTION_LINES_MAX = 70
PURE = {
    "__future__",
    "calendar",
    "collections",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "functools",
    # Reads its table of currencies once, where it is imported; a table like the code around it.
    "iso4217",
    "itertools",
    "typing",
    "msgspec",
    "rating",
    "health",
}
# Scores are no money: health calculates with binary floats, and draws lots by hashes.
PURE_OF_HEALTH = {"bisect", "hashlib", "math", "statistics"}
# Where the machine's clock may be read: the edges. Everything else gets `now` as an argument.
CLOCK_READERS = {
    "metering/client.py",
    "metering/ingest/http.py",
    "metering/worker.py",
    "metering/notifier.py",
    "metering/rollups/refresh.py",
    "metering/demo/load.py",
}


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_functions_fit_a_screen() -> None:
    """No function has more than 70 lines: what does not fit a screen is not understood at a glance."""
    long = [
        f"{_name(path)}:{function.lineno} {function.name}"
        for path in [*SOURCES, *TESTS]
        for function in _functions(path)
        if (function.end_lineno or 0) - function.lineno + 1 > FUNCTION_LINES_MAX
    ]

    assert [] == long


def test_no_file_is_a_drawer() -> None:
    """No module is called utils, helpers, common, misc or base: such a name says nothing of what is inside."""
    assert [] == [_name(path) for path in SOURCES if path.stem in {"utils", "helpers", "common", "misc", "base"}]


@pytest.mark.parametrize("package", ["rating", "health"])
def test_cores_import_only_what_is_pure(package: str) -> None:
    """The functional cores import from a short list: stronger than a list of what is forbidden."""
    imported = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])

    assert set() == imported - PURE - (PURE_OF_HEALTH if package == "health" else set())


def test_rating_knows_no_float() -> None:
    """No binary float in rating: no literal, no annotation, no call. Money is decimal."""
    found = [
        f"{_name(path)}:{node.lineno}"
        for path in (ROOT / "rating").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Constant) and isinstance(node.value, float))
        or (isinstance(node, ast.Name) and node.id == "float")
    ]

    assert [] == found


# What makes a binary float of exact numbers, rounds without saying how, or reaches outside of a calculation.
IMPURE_CALLS = {"round", "pow", "open", "print", "input", "exec", "eval", "__import__", "now", "utcnow", "today"}


def test_rating_calculates_exactly_and_reaches_nowhere() -> None:
    """Rating does not divide with `/`, which rounds; and it reads no clock and no file, and calls nothing that does."""
    found = []
    for path in (ROOT / "rating").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", None)
            divides = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)
            if name in IMPURE_CALLS or divides:
                found.append(f"{_name(path)}:{getattr(node, 'lineno', 0)} {name or '/'}")

    assert [] == found


def test_the_clock_is_read_at_the_edges_only() -> None:
    """Only the named edges read the machine's clock: everything else can be tested at any time of day."""
    readers = {
        _name(path)
        for path in SOURCES
        if re.search(
            r"\b(?:datetime|dt\.datetime)\.(?:now|utcnow|today)\(|\bdate\.today\(", path.read_text(encoding="utf-8")
        )
    }

    assert CLOCK_READERS == readers


def test_only_the_configuration_reads_the_environment() -> None:
    """os.environ is read in one place; the command line alone also passes settings on to worker processes."""
    readers = {_name(path) for path in SOURCES if "os.environ" in path.read_text(encoding="utf-8")}

    assert {"metering/config.py", "metering/cli/running.py"} == readers


def test_every_statement_is_used_and_every_used_one_exists() -> None:
    """The statements of sql/*.sql and the names that code asks for are the same set."""
    used = {
        name for path in SOURCES for name in re.findall(r"\bsql\(\"([a-z_.]+)\"\)", path.read_text(encoding="utf-8"))
    }

    assert used == set(all_statements())


def test_every_statement_of_a_snapshot_says_its_reach() -> None:
    """A static statement that a snapshot runs has a line `-- reach: …`: without it no bound caller could ask it (ADR 19)."""
    run = {
        name
        for path in SOURCES
        for name in re.findall(
            r"snapshot\.(?:fetch|stream)\(\s*sql\(\"([a-z_.]+)\"\)", path.read_text(encoding="utf-8")
        )
    }
    silent = [name for name in sorted(run) if not held_by(all_statements()[name])]

    assert run
    assert [] == silent


def test_every_snapshot_of_the_service_says_its_reach() -> None:
    """Who makes a snapshot says whose rows it shows; and the shell makes none by itself, nor reaches for the database."""
    silent = []
    for path in SOURCES:
        of_shell = path.is_relative_to(ROOT / "graphql_api")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Snapshot"
            reaches = isinstance(node, ast.Attribute) and node.attr in {"database", "_database"}
            if (made and (of_shell or len(node.args) + len(node.keywords) < 2)) or (of_shell and reaches):
                silent.append(f"{_name(path)}:{node.lineno}")

    assert [] == silent


def test_every_error_stands_in_the_tree() -> None:
    """The tree in metering/errors.py's docstring shows every error class, and nothing that is none."""
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    drawn = set(re.findall(r"\b\w+Error\b", errors.__doc__ or ""))

    assert classes == drawn


def test_every_rejection_code_is_documented_in_order() -> None:
    """docs/ingest.md lists the codes of an event's rejection in their order of precedence, with the code's own words."""
    text = (ROOT / "docs" / "ingest.md").read_text(encoding="utf-8")
    source = (ROOT / "metering" / "ingest" / "receipts.py").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([a-z_]+)` \| ([^|]+) \|$", text, re.MULTILINE)
    in_code = re.findall(r'^    [A-Z_]+ = "([a-z_]+)"\n    """([^"]+)"""', source, re.MULTILINE)

    assert [code.value for code in Code] == [name for name, _ in in_code]
    assert in_code == documented


def test_every_test_says_its_claim() -> None:
    """Every test has a docstring: it is what the test claims."""
    silent = [
        f"{_name(path)} {function.name}"
        for path in TESTS
        for function in _functions(path)
        if function.name.startswith("test_") and ast.get_docstring(function) is None
    ]

    assert [] == silent
