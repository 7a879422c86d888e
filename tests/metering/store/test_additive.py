"""What a migration takes from the release before it: nothing, where it is a `pre`, as that release runs on its schema.

The catalogs are compared before and after each migration, on every engine, so it does not matter how one is written.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import alembic.script
import asyncpg
import msgspec
import pytest

from metering.store import migrate

VERSIONS: Final = Path(__file__).parents[3] / "migrations" / "versions"
# Migrations of releases that nobody ran before: what each took, with the reason. Once there is a release, nothing is added.
BEFORE_THE_FIRST_RELEASE: Final[Mapping[str, tuple[str, ...]]] = {
    # Quarters of an hour took the place of hours.
    "0007_pre_quarter_hours": ("usage_hour is gone",),
    # The same rule, by digests of the subject: subjects may be longer than an index takes. Nobody writes ON CONFLICT by it.
    "0027_pre_subject_digests": (
        "alert: UNIQUE btree (rule, subject, period_from) WHERE (resolved_at IS NULL) is gone",
        (
            "alert: UNIQUE btree (rule, period_from, hashtextextended(subject, '0'::bigint), "
            "hashtextextended(subject, '1'::bigint)) WHERE (resolved_at IS NULL) is new"
        ),
    ),
    # The tail by subscription took the place of the tail by product.
    "0030_pre_tail_by_subscription": ("usage_minute_by_product is gone",),
}

RELATIONS: Final = """
SELECT relname AS name, relkind::text AS kind FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S') AND NOT relispartition
"""
COLUMNS: Final = """
SELECT relname AS relation, attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS is_required,
    atthasdef OR attidentity <> '' OR attgenerated <> '' AS is_filled
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') AND NOT relispartition
  AND attnum > 0 AND NOT attisdropped
"""
# What may refuse a row, with the columns that it looks at: constraints, and unique indexes, which are also what ON CONFLICT
# finds, in whatever order they have their columns. That a column is required is told of the column.
RULES: Final = """
SELECT relname AS relation, pg_get_constraintdef(pg_constraint.oid) AS definition,
    ARRAY (SELECT attname::text FROM pg_attribute WHERE attrelid = conrelid AND attnum = ANY (conkey)) AS columns
FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
WHERE relnamespace = 'public'::regnamespace AND NOT relispartition AND contype IN ('c', 'f', 'x')
UNION ALL
SELECT relname,
    CASE WHEN indexprs IS NULL AND indpred IS NULL THEN 'UNIQUE (' || array_to_string(columns, ', ') || ')'
    ELSE regexp_replace(pg_get_indexdef(indexrelid), '^.* USING ', 'UNIQUE ') END,
    columns
FROM pg_index JOIN pg_class ON pg_class.oid = indrelid, LATERAL (
    SELECT coalesce(array_agg(attname::text ORDER BY attname), '{}') AS columns FROM pg_attribute
    WHERE attrelid = indrelid AND attnum = ANY (indkey::int2[])
) AS looked_at
WHERE relnamespace = 'public'::regnamespace AND NOT relispartition AND indisunique
"""
FUNCTIONS: Final = """
SELECT oid::regprocedure::text AS name, pg_get_function_result(oid) AS returns FROM pg_proc
WHERE pronamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
"""


class Shape(msgspec.Struct, frozen=True):
    """What the code of a release can rely on."""

    relations: dict[str, str]
    # By relation and name: the type, whether it must be given, and whether it is filled in.
    columns: dict[tuple[str, str], tuple[str, bool, bool]]
    # By relation and definition: the columns that are looked at.
    rules: dict[tuple[str, str], frozenset[str]]
    functions: dict[str, str]


async def read_shape(connection: "asyncpg.Connection[Any]") -> Shape:
    """What there is now."""
    return Shape(
        {row["name"]: row["kind"] for row in await connection.fetch(RELATIONS)},
        {
            (row["relation"], row["name"]): (row["type"], row["is_required"], row["is_filled"])
            for row in await connection.fetch(COLUMNS)
        },
        {(row["relation"], row["definition"]): frozenset(row["columns"]) for row in await connection.fetch(RULES)},
        {row["name"]: row["returns"] for row in await connection.fetch(FUNCTIONS)},
    )


def taken(before: Shape, after: Shape) -> Iterator[str]:
    """What code that was written for the first shape may miss in the second, a few words each."""
    for name, kind in sorted(before.relations.items()):
        if after.relations.get(name) != kind:
            yield f"{name} is gone"
    for name, returns in sorted(before.functions.items()):
        if after.functions.get(name) != returns:
            yield f"{name} is gone"
    yield from _taken_of_columns(before, after)
    kept = before.relations.keys() & after.relations.keys()
    for (relation, definition), _ in sorted(before.rules.items()):
        # A check that is gone refuses nothing more; but ON CONFLICT needs its unique index.
        if relation in kept and definition.startswith("UNIQUE") and (relation, definition) not in after.rules:
            yield f"{relation}: {definition} is gone"
    for (relation, definition), columns in sorted(after.rules.items()):
        is_of_before = any((relation, column) in before.columns for column in columns)
        if relation in kept and (relation, definition) not in before.rules and (is_of_before or not columns):
            yield f"{relation}: {definition} is new"


def _taken_of_columns(before: Shape, after: Shape) -> Iterator[str]:
    for (relation, name), (kind, was_required, was_filled) in sorted(before.columns.items()):
        if relation not in after.relations:
            continue
        if (relation, name) not in after.columns:
            yield f"{relation}.{name} is gone"
            continue
        now, is_required, is_filled = after.columns[relation, name]
        if now != kind:
            yield f"{relation}.{name} is {now}"
        if is_required and not (was_required or is_filled):
            yield f"{relation}.{name} is required"
        if is_required and was_filled and not is_filled:
            yield f"{relation}.{name} is not filled in"
    for (relation, name), (_, is_required, is_filled) in sorted(after.columns.items()):
        if (relation, name) not in before.columns and relation in before.relations and is_required and not is_filled:
            yield f"{relation}.{name} is new and required"


def migrations() -> list[Any]:
    """Every migration, the oldest first."""
    return [*alembic.script.ScriptDirectory.from_config(migrate._config("")).walk_revisions()][::-1]


def test_additive_migrations_take_nothing(empty_database_url: str) -> None:
    """After each `pre` migration everything is there that was there before, and no row of before would be refused."""

    async def shape() -> Shape:
        connection = await asyncpg.connect(empty_database_url)
        try:
            return await read_shape(connection)
        finally:
            await connection.close()

    found: dict[str, tuple[str, ...]] = {}
    before = asyncio.run(shape())
    for script in migrations():
        migrate.upgrade(empty_database_url, script.revision)
        after = asyncio.run(shape())
        name = Path(script.path).stem
        if "_pre_" in name and (lost := tuple(taken(before, after))):
            found[name] = lost
        before = after

    assert before.relations
    assert BEFORE_THE_FIRST_RELEASE == found


def test_every_migration_says_its_kind() -> None:
    """A migration's name begins with its number and its kind, and its docstring says the same kind."""
    for script in migrations():
        name = re.fullmatch(r"(\d{4})_(pre|post)_\w+", Path(script.path).stem)
        assert name is not None, script.path
        assert script.revision == name[1]
        assert f"Kind: {name[2]} " in script.doc + script.longdoc, script.path


TAKES: Final = [
    ("DROP TABLE key_allowance", ["key_allowance is gone"]),
    ("ALTER TABLE api_key RENAME TO key", ["api_key is gone"]),
    ("DROP FUNCTION usage_of_days", ["usage_of_days"]),
    ("ALTER TABLE api_key DROP COLUMN replaces", ["api_key.replaces is gone"]),
    ("ALTER TABLE api_key RENAME COLUMN replaces TO follows", ["api_key.replaces is gone"]),
    ("ALTER TABLE api_key ALTER COLUMN replaces TYPE varchar(20)", ["api_key.replaces is character varying(20)"]),
    ("ALTER TABLE api_key ALTER COLUMN replaces SET NOT NULL", ["api_key.replaces is required"]),
    ("ALTER TABLE api_key ALTER COLUMN created_at DROP DEFAULT", ["api_key.created_at is not filled in"]),
    ("ALTER TABLE api_key ADD COLUMN new text NOT NULL", ["api_key.new is new and required"]),
    ("ALTER TABLE api_key ADD CHECK (name <> 'x')", ["api_key: CHECK ((name <> 'x'::text)) is new"]),
    ("CREATE UNIQUE INDEX ON api_key (name)", ["api_key: UNIQUE (name) is new"]),
    ("CREATE UNIQUE INDEX ON api_key (lower(name))", ["api_key: UNIQUE btree (lower(name)) is new"]),
    ("ALTER TABLE api_key DROP CONSTRAINT api_key_digest_key", ["api_key: UNIQUE (digest) is gone"]),
    # And what is additive takes nothing.
    ("ALTER TABLE api_key ADD COLUMN new text NOT NULL DEFAULT ''", []),
    ("ALTER TABLE api_key ADD COLUMN new int CHECK (new > 0)", []),
    ("ALTER TABLE api_key ALTER COLUMN name DROP NOT NULL", []),
    ("ALTER TABLE api_key DROP CONSTRAINT api_key_rate_check", []),
    ("CREATE TABLE new (id int PRIMARY KEY CHECK (id > 0))", []),
    ("CREATE INDEX ON api_key (name)", []),
]


@pytest.fixture(scope="module")
def url(servers: dict[str, Any]) -> Iterator[str]:
    """A database that nothing is changed in."""
    with servers["postgres"].cloned() as address:
        yield address


@pytest.mark.parametrize(("statement", "expected"), TAKES, ids=[statement for statement, _ in TAKES])
def test_what_a_change_takes_is_seen(url: str, statement: str, expected: list[str]) -> None:
    """What is dropped, renamed, narrowed or newly required is named; what is only added is not."""

    async def run() -> list[str]:
        connection = await asyncpg.connect(url)
        try:
            before = await read_shape(connection)
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(statement)
            after = await read_shape(connection)
            await transaction.rollback()
        finally:
            await connection.close()
        return list(taken(before, after))

    found = asyncio.run(run())
    assert len(expected) == len(found), found
    assert all(each in seen for each, seen in zip(expected, found, strict=True)), found
