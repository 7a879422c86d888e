"""How alembic reaches the database: one transaction, one advisory lock, and never a long wait for a table's lock.

Several processes may start at once: the first to get the advisory lock migrates, the others then find nothing to do.
The lock timeout keeps a migration from queueing behind a long query and making every later one queue behind itself.
"""

import asyncio

import sqlalchemy as sa
from alembic import context
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from metering.store.migrate import tightening
from metering.store.tables import METADATA

LOCK = 0x6D65_7472_6D69_6772  # "metrmigr"
LOCK_TIMEOUT = "5s"


def run(connection: sa.Connection) -> None:
    """Migrate over this connection."""
    # The advisory lock may be waited for, as long as another process migrates; a table's lock may not.
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    context.configure(connection=connection, target_metadata=METADATA, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
        note_tightening(connection)


def note_tightening(connection: sa.Connection) -> None:
    """Leave with the database which migration took something away last: a release that knows it works on all that came since."""
    heads = context.get_context().get_current_heads()
    applied = context.script.walk_revisions(head=heads[0]) if heads else ()
    note = tightening(next((script.revision for script in applied if "_post_" in script.path), None))
    if note != connection.scalar(sa.text("SELECT obj_description('alembic_version'::regclass, 'pg_class')")):
        connection.execute(sa.text(f"COMMENT ON TABLE alembic_version IS '{note}'"))


async def main() -> None:
    """Connect and migrate in one transaction."""
    url = make_url(context.config.attributes["database_url"]).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(run)
    finally:
        await engine.dispose()


asyncio.run(main())
