"""Connections that count their statements for the request that sends them."""

from typing import Any

import asyncpg
from asyncpg.cursor import CursorFactory

from metering.telemetry import note_statement


class ToldConnection(asyncpg.Connection):
    """A connection as the driver makes it; what it sends is noted in the line of the request in whose context it does."""

    __slots__ = ()

    async def execute(self, *arguments: Any, **options: Any) -> str:
        """As the driver does."""
        note_statement()
        return await super().execute(*arguments, **options)

    async def executemany(self, *arguments: Any, **options: Any) -> None:
        """As the driver does."""
        note_statement()
        await super().executemany(*arguments, **options)

    async def fetch(self, *arguments: Any, **options: Any) -> list[Any]:
        """As the driver does."""
        note_statement()
        rows: list[Any] = await super().fetch(*arguments, **options)
        return rows

    async def fetchrow(self, *arguments: Any, **options: Any) -> Any:
        """As the driver does."""
        note_statement()
        return await super().fetchrow(*arguments, **options)

    async def fetchval(self, *arguments: Any, **options: Any) -> Any:
        """As the driver does."""
        note_statement()
        return await super().fetchval(*arguments, **options)

    def cursor(self, *arguments: Any, **options: Any) -> "CursorFactory[Any]":
        """As the driver does."""
        note_statement()
        return super().cursor(*arguments, **options)
