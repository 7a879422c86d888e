"""Early warnings and their thresholds; of norms, what they were computed of; and what was measured on a day, found by the day.

Kind: pre (additive; the previous release runs on it)

A warning is written in the transaction that keeps the scores it is of, and so is the notification of it. Norms that were kept
while nobody had sent anything say that they are of no event: as soon as one is rolled up they are made anew. Lists of subjects
read what was measured on one day, and not the history of each.
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_WARNING = """
CREATE TABLE warning (
    id                 uuid NOT NULL,
    type               text COLLATE "C" NOT NULL,
    subject            text COLLATE "C" NOT NULL,
    account            text COLLATE "C",
    key                text COLLATE "C",
    about              text COLLATE "C" NOT NULL,
    as_of              date NOT NULL,
    last_on            date NOT NULL,
    evidence           jsonb NOT NULL,
    thresholds_version integer NOT NULL,
    raised_at          timestamptz NOT NULL,
    told_at            timestamptz,
    withdrawn_at       timestamptz,
    CONSTRAINT warning_pkey PRIMARY KEY (id),
    CONSTRAINT warning_days_check CHECK (as_of <= last_on),
    CONSTRAINT warning_subject_check CHECK (
        (account IS NULL) = (subject = 'EVERYONE') AND (account IS NULL) = (key IS NULL)
    )
)
"""
_WATCH = """
CREATE TABLE warning_watch (
    as_of    date NOT NULL,
    subject  text COLLATE "C" NOT NULL,
    subjects bigint NOT NULL,
    CONSTRAINT warning_watch_pkey PRIMARY KEY (as_of, subject)
)
"""
_THRESHOLDS = """
CREATE TABLE warning_thresholds (
    version    integer NOT NULL,
    thresholds jsonb NOT NULL,
    put_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    put_by     text COLLATE "C" NOT NULL,
    CONSTRAINT warning_thresholds_pkey PRIMARY KEY (version)
)
"""


def upgrade() -> None:
    """Make the tables, and let norms say what they were computed of."""
    # First, for it may take long, and what is locked from here on is locked until the end.
    op.execute("CREATE INDEX measured_of_day_idx ON measured (as_of, subject)")
    for statement in (_WARNING, _WATCH, _THRESHOLDS):
        op.execute(statement)
    op.execute("CREATE INDEX warning_account_last_on_idx ON warning (account, last_on)")
    op.execute("CREATE INDEX warning_as_of_id_idx ON warning (as_of, id)")
    op.execute(
        "ALTER TABLE health_norms ADD COLUMN events bigint, ADD COLUMN is_complete boolean NOT NULL DEFAULT true"
    )
    op.execute("UPDATE health_norms SET events = 0 WHERE norms ->> 'last_on' IS NULL")


def downgrade() -> None:
    """Remove all of it: warnings and thresholds are forgotten, and lists are read more slowly."""
    op.execute("DROP INDEX measured_of_day_idx")
    op.execute("ALTER TABLE health_norms DROP COLUMN events, DROP COLUMN is_complete")
    for table in ("warning_thresholds", "warning_watch", "warning"):
        op.execute(f"DROP TABLE {table}")
