"""Credits that accounts are granted, and the ledger in which they are drawn down.

Kind: pre (additive; the previous release runs on it)

Every entry is one amount that one pot gives and another takes, so entries are balanced by their form. They are only added,
and a grant's balance is moved by them alone; below what the grant allows it does not go. See docs/adr/0018.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_GRANT = """
CREATE TABLE credit_grant (
    id            bigint GENERATED ALWAYS AS IDENTITY,
    account       text COLLATE "C" NOT NULL,
    key           text COLLATE "C" NOT NULL,
    currency_code text COLLATE "C",
    meter         text COLLATE "C",
    amount        numeric NOT NULL,
    meters        text[] COLLATE "C" NOT NULL,
    priority      integer NOT NULL,
    overdraft_max numeric NOT NULL,
    effective_at  timestamptz NOT NULL,
    expires_at    timestamptz,
    note          text COLLATE "C",
    granted_at    timestamptz NOT NULL DEFAULT now(),
    granted_by    text COLLATE "C" NOT NULL,
    voided_at     timestamptz,
    voided_by     text COLLATE "C",
    void_reason   text COLLATE "C",
    balance       numeric NOT NULL DEFAULT 0,
    CONSTRAINT credit_grant_pkey PRIMARY KEY (id),
    CONSTRAINT credit_grant_account_key_key UNIQUE (account, key),
    CONSTRAINT credit_grant_unit_check CHECK ((currency_code IS NULL) <> (meter IS NULL)),
    CONSTRAINT credit_grant_amount_check CHECK (amount > 0 AND overdraft_max >= 0 AND priority >= 0),
    CONSTRAINT credit_grant_period_check CHECK (effective_at < expires_at),
    CONSTRAINT credit_grant_balance_check CHECK (balance >= -overdraft_max),
    CONSTRAINT credit_grant_void_check CHECK (
        (voided_at IS NULL) = (voided_by IS NULL) AND (voided_at IS NULL) = (void_reason IS NULL)
    )
)
"""
_ENTRY = """
CREATE TABLE credit_entry (
    id           bigint GENERATED ALWAYS AS IDENTITY,
    grant_id     bigint NOT NULL,
    source       text COLLATE "C" NOT NULL,
    target       text COLLATE "C" NOT NULL,
    amount       numeric NOT NULL,
    worth        numeric,
    statement_id bigint,
    drawn_id     bigint,
    effective_at timestamptz NOT NULL,
    booked_at    timestamptz NOT NULL DEFAULT now(),
    booked_by    text COLLATE "C" NOT NULL,
    CONSTRAINT credit_entry_pkey PRIMARY KEY (id),
    CONSTRAINT credit_entry_grant_id_fkey FOREIGN KEY (grant_id) REFERENCES credit_grant (id),
    CONSTRAINT credit_entry_statement_id_fkey FOREIGN KEY (statement_id) REFERENCES statement (id),
    CONSTRAINT credit_entry_drawn_id_fkey FOREIGN KEY (drawn_id) REFERENCES credit_entry (id),
    CONSTRAINT credit_entry_amount_check CHECK (amount > 0 AND worth > 0),
    CONSTRAINT credit_entry_pots_check CHECK (
        (source, target) IN (('ISSUED', 'GRANT'), ('GRANT', 'STATEMENT'), ('STATEMENT', 'GRANT'))
    ),
    CONSTRAINT credit_entry_statement_check CHECK (
        (source = 'ISSUED') = (statement_id IS NULL) AND (source = 'ISSUED') = (worth IS NULL)
        AND (source <> 'STATEMENT' OR drawn_id IS NOT NULL) AND (source <> 'ISSUED' OR drawn_id IS NULL)
    )
)
"""
_MOVE_BALANCES = """
CREATE FUNCTION credit_move_balances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE credit_grant SET balance = balance + moved.amount
    FROM (
        SELECT grant_id, sum(CASE WHEN target = 'GRANT' THEN amount ELSE -amount END) AS amount
        FROM booked GROUP BY grant_id
    ) AS moved
    WHERE credit_grant.id = moved.grant_id;
    RETURN NULL;
END
$$
"""
_REFUSE = """
CREATE FUNCTION credit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger of credits is only added to, and balances are moved by its entries alone';
END
$$
"""


def upgrade() -> None:
    """Make the tables, and what keeps them right; and room for what was drawn on a statement."""
    for statement in (_GRANT, _ENTRY, _MOVE_BALANCES, _REFUSE):
        op.execute(statement)
    op.execute("CREATE INDEX credit_entry_grant_id_effective_at_idx ON credit_entry (grant_id, effective_at)")
    op.execute("CREATE INDEX credit_entry_statement_id_idx ON credit_entry (statement_id)")
    op.execute("CREATE INDEX credit_entry_drawn_id_idx ON credit_entry (drawn_id)")
    op.execute(
        "CREATE TRIGGER credit_entry_moves_balances AFTER INSERT ON credit_entry REFERENCING NEW TABLE AS booked "
        "FOR EACH STATEMENT EXECUTE FUNCTION credit_move_balances()"
    )
    op.execute(
        "CREATE TRIGGER credit_entry_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON credit_entry "
        "FOR EACH STATEMENT EXECUTE FUNCTION credit_refuse_change()"
    )
    # Inside of the trigger above the depth is one more.
    op.execute(
        "CREATE TRIGGER credit_grant_balance_stays BEFORE UPDATE OF balance ON credit_grant "
        "FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION credit_refuse_change()"
    )
    op.execute("ALTER TABLE statement ADD COLUMN credits jsonb NOT NULL DEFAULT '[]'")


def downgrade() -> None:
    """Remove all of it: what was granted and drawn is forgotten."""
    op.execute("ALTER TABLE statement DROP COLUMN credits")
    op.execute("DROP TABLE credit_entry")
    op.execute("DROP TABLE credit_grant")
    op.execute("DROP FUNCTION credit_move_balances")
    op.execute("DROP FUNCTION credit_refuse_change")
