"""Connections each of whose statements is a part of what is traced; where traces are off they are not made."""

import re
from functools import lru_cache
from typing import Any, Final

from metering.spans import Attributes, part
from metering.store.queries import all_statements
from metering.store.told_connection import ToldConnection

_ATTRIBUTES: Final[Attributes] = {"db.system.name": "postgresql"}
_ROWS: Final = "metering.rows"
# Shapes of questions are few; see the caches of the statements' builders.
_STATEMENTS_MAX: Final = 2_000
_TABLES_MAX: Final = 5
_UNTOLD: Final = re.compile(r"'(?:[^']|'')*'|--[^\n]*")
_TABLE: Final = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE|TABLE)\s+(?:ONLY\s+)?\"?([a-z_][a-z0-9_]*)\b(?!\s*\()")
_DEFINED: Final = re.compile(r"\b([a-z_][a-z0-9_]*)\s+AS\s+(?:NOT\s+)?(?:MATERIALIZED\s+)?\(")


@lru_cache(maxsize=_STATEMENTS_MAX)
def name_of(statement: str) -> str:
    """A statement of sql/*.sql by its name, `noun.verb`; one that is built by what it begins with, and the tables that it reads
    or writes: `SELECT event, usage_day`. Nothing else of its text is told.
    """
    return _names().get(statement) or _summary(statement)


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    return {text: name for name, text in all_statements().items()}


def _summary(statement: str) -> str:
    text = _UNTOLD.sub("", statement)
    verb = re.search(r"[A-Z]+", text)
    tables = sorted(set(_TABLE.findall(text)) - set(_DEFINED.findall(text)))
    return f"{verb[0] if verb else 'SQL'} {', '.join(tables[:_TABLES_MAX])}".rstrip()


def rows_of(status: str) -> Attributes:
    """How many rows were changed or copied, where the server's word for what it did ends in that: `INSERT 0 5`."""
    count = status.rpartition(" ")[2]
    return {_ROWS: int(count)} if count.isdecimal() else {}


class TracedConnection(ToldConnection):
    """A connection as the driver makes it; what it sends is a part of what it is sent for."""

    __slots__ = ()

    async def execute(self, *arguments: Any, **options: Any) -> str:
        """As the driver does."""
        with part(name_of(arguments[0]), _ATTRIBUTES) as span:
            status = await super().execute(*arguments, **options)
            if span is not None:
                span.tell(rows_of(status))
            return status

    async def executemany(self, *arguments: Any, **options: Any) -> None:
        """As the driver does."""
        with part(name_of(arguments[0]), _ATTRIBUTES):
            await super().executemany(*arguments, **options)

    async def fetch(self, *arguments: Any, **options: Any) -> list[Any]:
        """As the driver does."""
        with part(name_of(arguments[0]), _ATTRIBUTES) as span:
            rows = await super().fetch(*arguments, **options)
            if span is not None:
                span.tell({_ROWS: len(rows)})
            return rows

    async def fetchrow(self, *arguments: Any, **options: Any) -> Any:
        """As the driver does."""
        with part(name_of(arguments[0]), _ATTRIBUTES) as span:
            row = await super().fetchrow(*arguments, **options)
            if span is not None:
                span.tell({_ROWS: 0 if row is None else 1})
            return row

    async def fetchval(self, *arguments: Any, **options: Any) -> Any:
        """As the driver does."""
        with part(name_of(arguments[0]), _ATTRIBUTES):
            return await super().fetchval(*arguments, **options)

    async def copy_to_table(self, table_name: str, **options: Any) -> str:
        """As the driver does."""
        with part(f"COPY {table_name}", _ATTRIBUTES) as span:
            status: str = await super().copy_to_table(table_name, **options)
            if span is not None:
                span.tell(rows_of(status))
            return status
