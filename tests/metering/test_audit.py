"""The audit log by who signed: the entries that are meant, and no more of the log read than these."""

import asyncio
from typing import Any, Final

import msgspec

from metering.config import Settings
from metering.limits import LIMITS
from metering.store.pool import Connection, Database
from metering.store.queries import sql

# Few of some, between very many of another.
SIGNED: Final = {
    "front desk (mk_few)": 3,
    "front (desk) (mk_few)": 2,
    "mk_few": 1,
    "metering demo": 2,
    "(mk_few) without one": 2,
    "batch (mk_many)": 20_000,
}
OF_FEW: Final = sum(SIGNED.values()) - SIGNED["batch (mk_many)"]
# What is asked for, and whose entries are meant.
MEANT: Final = {
    "mk_few": ["front desk (mk_few)", "front (desk) (mk_few)", "mk_few"],
    "front (desk) (mk_few)": ["front (desk) (mk_few)"],
    "metering demo": ["metering demo"],
    "mk_many": ["batch (mk_many)"],
    "desk": [],
}
FILL: Final = """
INSERT INTO audit_entry (by, kind, action)
SELECT by, 'METER', 'CHANGED' FROM unnest($1::text[], $2::integer[]) AS signed (by, times), generate_series(1, times) AS place
ORDER BY hashint4(place), by
"""
FIRST: Final = 5


def test_who_signed_is_looked_up(database_url: str) -> None:
    """By a prefix, a signature or a command, PostgreSQL finds the newest by the index, whether or not it knows the table."""

    async def scenario() -> None:
        database = await Database.connect(Settings(database_url=database_url), LIMITS)
        try:
            async with database.connection() as connection:
                await connection.execute(FILL, list(SIGNED), list(SIGNED.values()))
                for by, signatures in MEANT.items():
                    await check(connection, by, signatures)
                await connection.execute("ANALYZE audit_entry")
                for by, signatures in MEANT.items():
                    await check(connection, by, signatures)
        finally:
            await database.close()

    asyncio.run(scenario())


async def check(connection: Connection, by: str, signatures: list[str]) -> None:
    """Compare what is found with what is signed so, and look at how it is found."""
    arguments = [None, None, None, by, None, None, None, FIRST]
    found = [row["id"] for row in await connection.fetch(sql("audit.list_entries"), *arguments)]
    meant = "SELECT id FROM audit_entry WHERE by = ANY ($1::text[]) ORDER BY id DESC LIMIT $2"
    assert found == [row["id"] for row in await connection.fetch(meant, signatures, FIRST)]
    explained = await connection.fetchval(
        f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql('audit.list_entries')}", *arguments
    )
    nodes = nodes_of(msgspec.json.decode(explained)[0]["Plan"])
    # Where nearly all entries are meant, the newest of all are as good a way to them.
    assert by == "mk_many" or "audit_entry_signer_id_idx" in {node.get("Index Name") for node in nodes}
    # Some that end alike are looked at as well.
    assert sum(node.get("Rows Removed by Filter", 0) for node in nodes) <= OF_FEW


def nodes_of(plan: Any) -> list[Any]:
    """A plan's nodes."""
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes_of(part))]
