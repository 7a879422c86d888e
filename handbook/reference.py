"""Pages that are made from the code: settings, limits, codes, commands and the schema; and a list of all headings."""

import ast
import inspect
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeGuard

import msgspec

from graphql_api.codes import Code as RequestCode
from graphql_api.schema import sdl
from handbook.page import Page
from metering import errors
from metering.cli import app
from metering.config import PREFIX, Settings
from metering.ingest.openapi import PROBLEMS
from metering.ingest.receipts import Code as EventCode
from metering.limits import LIMITS, Limits

_FORMS: Final[Mapping[Any, str]] = {
    bool: "true or false",
    float: "number",
    int: "whole number",
    str: "text",
    Path: "path",
    type(None): "",
}


def made_pages() -> tuple[Page, ...]:
    """The pages that are made from the code alone."""
    return (
        Page("reference/settings.md", _settings()),
        Page("reference/limits.md", _limits()),
        Page("reference/codes.md", _codes()),
        Page("reference/commands.md", app.generate_docs().replace("# metering\n", "# Commands\n", 1)),
        Page("reference/schema.md", f"# The GraphQL schema\n\n```graphql\n{sdl()}\n```\n"),
    )


def headings_of(pages: Sequence[Page]) -> Page:
    """A page with every heading of these, to be searched with the browser's own search."""
    lines = ["# All headings"]
    for page in pages:
        target = page.path if page.path.startswith("reference/") else f"../{page.path}"
        lines += ["", f"## {page.title}", ""]
        # The path of a page that is made stands beside this one's; those of others begin at the repository.
        target = target.removeprefix("reference/")
        lines += [f"* [{_plain(heading.text)}]({target}#{heading.anchor})" for heading in page.headings]
    return Page("reference/headings.md", "\n".join(lines) + "\n")


def _settings() -> str:
    rows = []
    for field in msgspec.structs.fields(Settings):
        default = "unset" if field.default is None else f"`{field.default}`"
        rows.append((f"`{PREFIX}{field.name.upper()}`", _form(field.type), default))
    lead = "What each is for, and its bounds, stand in [Operating](../docs/operating.md#settings)."
    return f"# Settings\n\n{lead}\n\n{_table(('variable', 'form', 'default'), rows)}"


def _form(kind: Any) -> str:
    if kind in _FORMS:
        return _FORMS[kind]
    parts = getattr(kind, "__args__", ())
    if all(isinstance(part, str) for part in parts):
        return ", ".join(f"`{part}`" for part in parts)
    return " or ".join(form for part in parts if (form := _form(part)))


def _limits() -> str:
    rows = [(f"`{field.name}`", _shown(getattr(LIMITS, field.name))) for field in msgspec.structs.fields(Limits)]
    lead = "What each bounds, and in which unit, stands in [Operating](../docs/operating.md#limits)."
    return f"# Limits\n\n{lead}\n\n{_table(('limit', 'value'), rows)}"


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return f"{value:,}" if isinstance(value, int) else str(value)


def _codes() -> str:
    kinds = {kind.code: kind for kind in vars(errors).values() if _is_told(kind)}
    of_errors = [
        (f"`{code}`", " ".join((kind.__doc__ or "").split()), "yes" if kind.retryable else "")
        for code, kind in sorted(kinds.items())
    ]
    of_events = [(f"`{name}`", said) for name, said in _members(EventCode)]
    of_bodies = [(str(status), ", ".join(f"`{code}`" for code in codes)) for status, codes in PROBLEMS.items()]
    of_requests = [(f"`{code}`",) for code in RequestCode]
    return "\n\n".join(
        [
            "# Codes",
            "## Events that are refused",
            "An event with several faults is refused with the first of them in this order ([Ingest](../docs/ingest.md)).",
            _table(("code", "meaning"), of_events),
            "## Requests with events that are refused",
            "Nothing of such a request is written ([Ingest](../docs/ingest.md#answers)).",
            _table(("status", "codes"), of_bodies),
            "## Errors",
            "Over HTTP as they stand here, over GraphQL in capital letters ([GraphQL](../docs/graphql.md)).",
            _table(("code", "meaning", "may succeed later"), of_errors),
            "## Of GraphQL alone",
            _table(("code",), of_requests),
        ]
    )


def _is_told(kind: object) -> TypeGuard[type[errors.MeteringError]]:
    """Whether this is an error with a code of its own; some get theirs where they are raised."""
    has_code = isinstance(kind, type) and issubclass(kind, errors.MeteringError) and "code" in vars(kind)
    return has_code and kind is not errors.MeteringError


def _members(kind: type[Enum]) -> Iterable[tuple[str, str]]:
    """The values of an enumeration, each with the docstring below it."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(kind)).body if isinstance(node, ast.ClassDef))
    for member, said in pairwise(body):
        if isinstance(member, ast.Assign) and isinstance(member.targets[0], ast.Name) and isinstance(said, ast.Expr):
            assert isinstance(said.value, ast.Constant), "what follows a member is its docstring"
            yield kind[member.targets[0].id].value, str(said.value.value)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown takes as it stands."""
    return "".join(f"\\{each}" if each in "\\`*_[]<>" else each for each in text)
