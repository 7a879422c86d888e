"""The audit log by who signed: an index, so that to ask for one key's changes does not read everybody's.

Kind: pre (additive; the previous release runs on it)

A key and a token sign with a name and a prefix, by either of which they are asked for. The prefix stands at the end, in brackets;
who has none, a command or a role of the database, is asked for by the whole.
"""

from alembic import op

revision = "0026"
down_revision = "0023"
branch_labels = None
depends_on = None

# As `audit.list_entries` says it.
_SIGNER = r"coalesce(substring(by FROM ' \(([^()]*)\)$'), by)"


def upgrade() -> None:
    """Make the index."""
    op.execute(f"CREATE INDEX audit_entry_signer_id_idx ON audit_entry (({_SIGNER}), id)")


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP INDEX audit_entry_signer_id_idx")
