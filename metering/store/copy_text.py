"""Rows as the text that COPY reads, made by joining strings: a fifth of what the driver takes to encode them one by one.

The text is CSV between tabs, and its quote is a control character: next to no text holds one of the two, so a whole
batch is looked at once, and only a batch that does is quoted, value by value.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final

import msgspec

from metering.store.pool import Connection

_QUOTE: Final = "\x01"
_SPECIAL: Final = ("\t", "\n", "\r", _QUOTE)

# The values of a row as PostgreSQL writes them; an empty one is NULL.
Row = tuple[str, ...]


async def copy_rows(connection: Connection, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Copy these rows, sorted: whoever copies the same rows does it in the same order, and an index likes its order too."""
    await connection.copy_to_table(
        table, source=_at_once(copy_text(rows)), columns=columns, format="csv", delimiter="\t", quote=_QUOTE
    )


async def _at_once(text: bytes) -> AsyncIterator[bytes]:
    # Not a file: the driver would read it piece by piece in another thread.
    yield text


def copy_text(rows: Sequence[Row]) -> bytes:
    """Rows, of equally many values each, as lines in order. Pure."""
    text = "\n".join(sorted(map("\t".join, rows)))
    separators = len(rows) * len(rows[0]) - 1
    if text.count("\t") + text.count("\n") > separators or "\r" in text or _QUOTE in text:
        text = "\n".join(sorted("\t".join(map(_quoted, row)) for row in rows))
    return text.encode()


def written(instant: datetime) -> str:
    """An instant as PostgreSQL reads it; by the JSON encoder, which takes a twentieth of what `isoformat` takes."""
    text: str = msgspec.to_builtins(instant)
    return text


def hexadecimal(value: bytes) -> str:
    """Bytes as PostgreSQL reads them."""
    return f"\\x{value.hex()}"


def _quoted(value: str) -> str:
    if any(special in value for special in _SPECIAL):
        return f"{_QUOTE}{value.replace(_QUOTE, _QUOTE + _QUOTE)}{_QUOTE}"
    return value
