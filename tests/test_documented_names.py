"""Names that any document says (of metrics, limits, commands, options, scopes and codes) are the code's, and the code's are said.

tests/test_documentation.py compares the tables of settings, limits and metrics; here are the names between sentences, and
what has no table of its own.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec
import pytest
from cyclopts import App

from graphql_api.schema import sdl
from handbook.reference import made_pages
from metering import client, errors
from metering.cli import app
from metering.ingest import http
from metering.ingest.openapi import PROBLEMS
from metering.keys import KeyLimits, Scope
from metering.limits import Limits
from metering.metrics import METRICS, Kind

ROOT: Final = Path(__file__).parents[1]
DOCUMENTS: Final = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for pattern in ("*.md", "docs/**/*.md", "metering/*.md", "rating/*.md", "health/*.md", "loadtests/*.md")
    for path in sorted(ROOT.glob(pattern))
}
# In fences and between backticks; a line that a backslash ends goes on.
CODE: Final = re.compile(r"^```\w*\n(.*?)^```$|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
OPTION: Final = re.compile(r"(?<!\S)--[a-z][a-z-]*")


def code_of(text: str) -> Iterator[str]:
    """Every line of code in a document."""
    for block, span in CODE.findall(text):
        yield from (block or span).replace("\\\n", " ").splitlines()


def commands(within: App = app, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], frozenset[str]]]:
    """Every command, with its options; a group of commands has no options."""
    names = [name for name in within if not name.startswith("-")]
    if path and not names:
        arguments = within.assemble_argument_collection()
        yield path, frozenset(name for argument in arguments for name in argument.names if name.startswith("--"))
    elif path:
        yield path, frozenset()
    for name in names:
        yield from commands(within[name], (*path, name))


@cache
def options() -> dict[tuple[str, ...], frozenset[str]]:
    """Each command's options."""
    return dict(commands())


@cache
def groups() -> frozenset[str]:
    """What commands stand in."""
    return frozenset(first for first, *rest in options() if rest)


def called(line: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """The commands of ours in a line of code, or what stands in the place of one; each with its options."""
    for first, second, rest in re.findall(r"(?<![\w-])metering ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?([^|#;&]*)", line):
        path = (first, second) if second and first in groups() else (first,)
        yield path, OPTION.findall(rest)


def unknown(text: str) -> list[str]:
    """What a document names that the code does not have: metrics, limits, scopes, commands and options."""
    parts = {
        f"{each.name}_{part}" for each in METRICS if each.kind is Kind.HISTOGRAM for part in ("bucket", "sum", "count")
    }
    metrics = {each.name for each in METRICS} | parts
    limits = {field.name for kind in (Limits, KeyLimits) for field in msgspec.structs.fields(kind)}
    # A client in a producer has bounds of its own.
    limits |= inspect.signature(client.UsageClient).parameters.keys()
    faults = {name for name in re.findall(r"`(metering_\w+)`", text) if name not in metrics}
    faults |= {name for name in re.findall(r"`(\w+_(?:max|min))`", text) if name not in metrics | limits}
    faults |= {name for name in re.findall(r"\b([A-Z]+_(?:READ|WRITE))\b", text) if name not in Scope.__members__}
    for command, given in (call for line in code_of(text) for call in called(line)):
        known = options().get(command)
        name = " ".join(("metering", *command))
        faults |= {name} if known is None else {f"{name} {option}" for option in given if option not in known}
    return sorted(faults)


def refused_in(*files: str) -> set[tuple[int, str]]:
    """The statuses and codes with which these files refuse a request as a whole."""
    found = set()
    for file in files:
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("BodyError"):
                status, code = (ast.unparse(each).removeprefix("HTTPStatus.") for each in node.args[:2])
                # What is passed on is refused elsewhere.
                if code.startswith("'"):
                    found.add((int(status) if status.isdigit() else HTTPStatus[status].value, code.strip("'")))
    return found


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_document_names_what_there_is(path: str) -> None:
    """A document names no metric, limit, scope, command or option that the code does not have."""
    assert [] == unknown(DOCUMENTS[path])


def test_a_name_that_is_not_there_is_found() -> None:
    """A name of each kind is found where it is wrong, in a sentence and in a block, and not where it is right."""
    text = """`metering_events_total`, `metering_nothing_total`; `points_max`, `nothing_max`; `USAGE_READ`, `NOTHING_READ`
`metering keys list` and `metering keys lose`, `metering keys list --json`, the metering nobody does

```sh
METERING_KEY=mk_1 .venv/bin/metering import usage.csv --format csv --nothing   # --whatever
docker compose exec service metering nothing && metering export usage \\
  --from 2026-10-01 --until 2026-11-01
```
"""

    assert [
        "NOTHING_READ",
        "metering export usage --until",
        "metering import --nothing",
        "metering keys list --json",
        "metering keys lose",
        "metering nothing",
        "metering_nothing_total",
        "nothing_max",
    ] == unknown(text)


def test_every_command_and_option_is_documented() -> None:
    """Each command is called in README.md or docs/, and has its part of the reference with all of its options, and no other."""
    read = [text for path, text in DOCUMENTS.items() if path == "README.md" or path.startswith("docs/")]
    written = {command for text in read for line in code_of(text) for command, _ in called(line)}
    runnable = {command: names for command, names in options().items() if command[-1] not in groups()}
    text = app.generate_docs()
    parts = dict(re.findall(r"^##+ metering ([a-z -]+)\n(.*?)(?=^##+ |\Z)", text, re.MULTILINE | re.DOTALL))
    reference = next(page for page in made_pages() if page.path == "reference/commands.md")

    assert len(runnable) > 15
    assert [] == sorted(runnable.keys() - written)
    assert {" ".join(command) for command in options()} == parts.keys()
    assert {f"metering {name}" for name in parts} <= {heading.text for heading in reference.headings}
    for command, names in runnable.items():
        described = re.findall(r"^\* `([^`]+)`", parts[" ".join(command)], re.MULTILINE)
        assert names == {name for each in described for name in OPTION.findall(each.replace(",", " "))}


def test_every_scope_is_documented_and_needed() -> None:
    """docs/access.md has each scope in the code's order, and each is needed by a field of the schema; there are none besides."""
    section = DOCUMENTS["docs/access.md"].partition("\n## Scopes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \|", section, re.MULTILINE)
    needed = re.findall(r"@requires\(scope: \[([A-Z_, ]+)\]\)", sdl())

    assert [scope for row in rows for scope in re.findall(r"[A-Z_]+", row)] == list(Scope.__members__)
    assert set(Scope.__members__) == {scope for each in needed for scope in each.split(", ")}


def test_every_refusal_of_a_body_is_documented() -> None:
    """The statuses and codes with which ingest refuses a request are those that it describes; and so are those of GraphQL."""
    ingest = [path.relative_to(ROOT).as_posix() for path in (ROOT / "metering" / "ingest").glob("*.py")]
    described = {(status, code) for status, codes in PROBLEMS.items() for code in codes}
    of_errors = {(status, kind.code) for kind, status in http._STATUS.items() if kind is not errors.DatabaseError}
    of_errors |= {(http._STATUS[errors.DatabaseError], errors.DatabaseUnavailableError.code)}
    said = re.search(r"^The `code` of a problem is (.*)$", DOCUMENTS["docs/graphql.md"], re.MULTILINE)
    of_graphql = refused_in("graphql_api/http.py", "metering/ingest/arriving.py")

    assert refused_in(*ingest) | of_errors == described
    assert said is not None
    assert {code for _, code in of_graphql} | {"unauthenticated"} == set(re.findall(r"`(\w+)`", said[1]))


def test_every_verb_is_documented() -> None:
    """CONTRIBUTING.md has a row for each verb of the Makefile that says what it does, and none besides."""
    verbs = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"^\| `make (\w+)` \|", DOCUMENTS["CONTRIBUTING.md"], re.MULTILINE)) == verbs - {"help"}
