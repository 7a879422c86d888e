"""What is retained, told in one row; and on TimescaleDB a columnstore for events that are old enough.

Kind: pre (additive; the previous release runs on it)

Nothing is dropped or converted by the migration. The previous release does not look at the row, so a retention is set when
every process runs this one. See docs/adr/0010.
"""

from alembic import op

from metering.store.engine import MIGRATED_AS

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_COLUMNSTORE = {
    # By account, because every question but an operator's is one account's.
    "event": ("account", "occurred_at, key"),
    # By day too, and in order of the key: a name is then looked up in one batch of rows.
    "event_identity": ("account, day", "key"),
}


def upgrade() -> None:
    """Make the row, and let chunks of events and identities be converted."""
    op.execute(
        """
        CREATE TABLE retained_range (
            taken_from         timestamptz NOT NULL,
            raw_from           timestamptz NOT NULL,
            rollups_from       timestamptz NOT NULL,
            raw_dropped_to     timestamptz NOT NULL,
            rollups_dropped_to timestamptz NOT NULL,
            CONSTRAINT retained_range_order_check CHECK (
                rollups_dropped_to <= rollups_from AND rollups_from <= raw_from
                AND raw_dropped_to <= raw_from AND raw_from <= taken_from
            )
        )
        """
    )
    op.execute("CREATE UNIQUE INDEX retained_range_one_row_idx ON retained_range ((true))")
    # The first instant of the calendar: nothing was dropped yet.
    op.execute(
        "INSERT INTO retained_range SELECT first, first, first, first, first "
        "FROM (VALUES (timestamptz '0001-01-01 00:00+00')) AS calendar (first)"
    )
    if _on_timescaledb():
        for table, (segments, order) in _COLUMNSTORE.items():
            op.execute(
                f"ALTER TABLE {table} SET (timescaledb.enable_columnstore = true, "
                f"timescaledb.segmentby = '{segments}', timescaledb.orderby = '{order}')"
            )


def downgrade() -> None:
    """Convert back what was converted, and forget what is retained: what was dropped is then answered with nothing."""
    if _on_timescaledb():
        for table in _COLUMNSTORE:
            op.execute(f"SELECT decompress_chunk(chunk, if_compressed => true) FROM show_chunks('{table}') AS chunk")
            op.execute(f"ALTER TABLE {table} SET (timescaledb.enable_columnstore = false)")
    op.execute("DROP TABLE retained_range")


def _on_timescaledb() -> bool:
    return bool(op.get_bind().exec_driver_sql(MIGRATED_AS).scalar() == "timescaledb")
