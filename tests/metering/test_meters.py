"""Meters: what may be put, what stays as it was put, and which usage a meter counts."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.aggregations import Aggregation
from metering.errors import ConflictError, ForbiddenError, InvalidInputError
from metering.events import Dimension
from metering.keys import ApiKey
from metering.limits import LIMITS
from metering.meters import Definition, Meter, _faults, both, find_meter, metered, put_meter, read_meters
from metering.periods import Period
from metering.questions import ValueFilter, ask
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from rating.steps import Rounding, RoundingMode
from tests.metering.catalog import BOUND_KEY, KEY, OTHER_KEY, play
from tests.strategies import MANY

NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)
CALLS: Final = Definition(
    key="api.calls",
    name="API calls",
    unit="call",
    aggregation=Aggregation.SUM,
    distinct=None,
    filters={Dimension.PRODUCT: ValueFilter(("maps", "mail")), Dimension.FEATURE: ValueFilter((None,), negated=True)},
    rounding=Rounding(RoundingMode.UP, Decimal("0.5")),
)
MONTH: Final = Period(NOW, NOW + timedelta(days=31))


def changed(**fields: Any) -> Definition:
    """CALLS with other fields."""
    return msgspec.structs.replace(CALLS, **fields)


async def put(database: Database, definition: Definition, key: ApiKey = KEY) -> Meter:
    """Put a meter."""
    return await put_meter(database, definition, key, LIMITS)


async def audit(database: Database) -> tuple[str, str, bool]:
    """Who made the one meter, who changed it last, and whether that was later."""
    async with database.connection() as connection:
        row = await connection.fetchrow("SELECT created_by, changed_by, changed_at > created_at AS later FROM meter")
    assert row is not None
    return row["created_by"], row["changed_by"], row["later"]


# ---------------------------------------------------------------- the catalog


def test_a_meter_is_kept_as_it_is_put(database_url: str) -> None:
    """Every field of a meter comes back as it was put, values of filters sorted and each once."""

    async def scenario(database: Database) -> None:
        made = await put(database, CALLS)
        users = Definition(
            key="users",
            name="Users",
            unit="user",
            aggregation=Aggregation.UNIQUE_COUNT,
            distinct=Dimension.USER,
            filters={Dimension.UNIT: ValueFilter(("call", None, "byte", "call"), negated=True)},
            rounding=None,
        )
        other = await put(database, users)
        async with Snapshot(database) as snapshot:
            found = [await find_meter(snapshot, key) for key in ("api.calls", "users", "nobody", "\0")]

        assert [made, other, None, None] == found
        assert CALLS.rounding == made.definition.rounding
        assert ValueFilter(("mail", "maps")) == made.definition.filters[Dimension.PRODUCT]
        expected = {Dimension.UNIT: ValueFilter(("byte", "call", None), negated=True)}
        assert msgspec.structs.replace(users, filters=expected) == other.definition

    play(database_url, scenario)


def test_putting_a_meter_again_changes_nothing(database_url: str) -> None:
    """The same content in any spelling is the same meter: values in another order or twice, a step with more zeros."""

    async def scenario(database: Database) -> None:
        made = await put(database, CALLS)
        filters = {
            Dimension.FEATURE: ValueFilter((None, None), negated=True),
            Dimension.PRODUCT: ValueFilter(("mail", "maps", "mail")),
        }
        spelled = changed(filters=filters, rounding=Rounding(RoundingMode.UP, Decimal("0.500")))

        assert made == await put(database, spelled, OTHER_KEY)
        assert ("finance (mk_finance)", "finance (mk_finance)", False) == await audit(database)

    play(database_url, scenario)


def test_a_meter_may_be_renamed(database_url: str) -> None:
    """Another name is taken, and on record are who made the meter and who renamed it."""

    async def scenario(database: Database) -> None:
        made = await put(database, CALLS)
        renamed = await put(database, changed(name="Requests"), OTHER_KEY)

        assert Meter(msgspec.structs.replace(made.definition, name="Requests"), made.created_at) == renamed
        assert ("finance (mk_finance)", "product (mk_product)", True) == await audit(database)

    play(database_url, scenario)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"unit": "byte"}, "another unit"),
        ({"aggregation": Aggregation.COUNT}, "another aggregation"),
        ({"aggregation": Aggregation.UNIQUE_COUNT, "distinct": Dimension.USER}, "another aggregation, distinct"),
        ({"filters": {}}, "another filter"),
        ({"filters": {Dimension.PRODUCT: ValueFilter(("maps", "mail"))}}, "another filter"),
        ({"rounding": None}, "another rounding"),
        ({"rounding": Rounding(RoundingMode.DOWN, Decimal("0.5"))}, "another rounding"),
    ],
)
def test_what_a_meter_says_does_not_change(database_url: str, fields: dict[str, Any], named: str) -> None:
    """Another content under the same key is a conflict that names what differs; the meter stays, its name too."""

    async def scenario(database: Database) -> None:
        made = await put(database, CALLS)
        with pytest.raises(ConflictError, match=named):
            await put(database, changed(name="Another", **fields))
        async with Snapshot(database) as snapshot:
            assert made == await find_meter(snapshot, CALLS.key)

    play(database_url, scenario)


def test_one_of_several_that_are_put_at_once_wins(database_url: str) -> None:
    """Of meters that are put under one key at the same time one is made; the same finds it, others are in conflict."""

    async def scenario(database: Database) -> None:
        wanted = [CALLS, changed(unit="byte"), CALLS, changed(unit="byte")]
        ended = await asyncio.gather(*(put(database, each) for each in wanted), return_exceptions=True)

        made = [each for each in ended if isinstance(each, Meter)]
        conflicts = [each for each in ended if isinstance(each, ConflictError)]
        assert (2, 2) == (len(made), len(conflicts))
        assert made[0] == made[1]

    play(database_url, scenario)


def test_meters_are_paged_by_key(database_url: str) -> None:
    """Pages follow each other by key, by its bytes, and say whether there are more."""

    async def scenario(database: Database) -> None:
        for key in ("b", "a", "B", "a.b", "a-b"):
            await put(database, changed(key=key))
        async with Snapshot(database) as snapshot:
            pages = [await read_meters(snapshot, 2, after) for after in (None, "a", "a.b", "b")]

        shown = [([meter.definition.key for meter in meters], has_next) for meters, has_next in pages]
        assert [(["B", "a"], True), (["a-b", "a.b"], True), (["b"], False), ([], False)] == shown

    play(database_url, scenario)


def test_a_key_of_some_accounts_puts_no_meter(database_url: str) -> None:
    """A meter is everyone's: a key that is bound to accounts may not put one."""

    async def scenario(database: Database) -> None:
        with pytest.raises(ForbiddenError, match="bound to accounts"):
            await put(database, CALLS, BOUND_KEY)
        async with Snapshot(database) as snapshot:
            assert ([], False) == await read_meters(snapshot, 1, None)

    play(database_url, scenario)


# ---------------------------------------------------------------- faults

UNIQUE: Final = {"aggregation": Aggregation.UNIQUE_COUNT, "distinct": Dimension.USER}


def faults(definition: Definition) -> list[str]:
    """The paths of everything that is wrong with a meter."""
    return [".".join(issue.path) for issue in _faults(definition, LIMITS)]


def unit(*values: str | None, negated: bool = False) -> dict[str, Any]:
    """A filter by unit."""
    return {"filters": {Dimension.UNIT: ValueFilter(values, negated)}}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        *(({"key": key}, "key") for key in ("", " a", "-a", "a b", "ä", "a\n", "a" * 257, "a/b", "a\0")),
        *(({"name": name}, "name") for name in ("", "  ", "n" * 257, "a\0b")),
        *(({"unit": name}, "unit") for name in ("", "\t", "u" * 257, "\0")),
        ({"aggregation": Aggregation.UNIQUE_COUNT}, "distinct"),
        ({"distinct": Dimension.USER}, "distinct"),
        ({"filters": {Dimension.PRODUCT: ValueFilter(())}}, "filter.product.in"),
        ({"filters": {Dimension.FEATURE: ValueFilter((), negated=True)}}, "filter.feature.notIn"),
        ({"filters": {Dimension.CLASSIFICATION: ValueFilter(("",))}}, "filter.classification.in"),
        ({"filters": {Dimension.PRODUCT: ValueFilter(("a\0",))}}, "filter.product.in"),
        ({"filters": {Dimension.PRODUCT: ValueFilter(("p" * 257,))}}, "filter.product.in"),
        ({"filters": {Dimension.PRODUCT: ValueFilter(tuple(map(str, range(1_001))))}}, "filter.product.in"),
        (unit("call", "byte"), "filter.unit.in"),
        (unit("call", None), "filter.unit.in"),
        (unit(None), "filter.unit.in"),
        (unit("call", negated=True), "filter.unit.notIn"),
        *(
            ({"rounding": Rounding(RoundingMode.UP, Decimal(step))}, "rounding.step")
            for step in ("0", "-1", "1E-19", "1E+20", "1E+999999", "1E-999999", "0.0000000000000000015")
        ),
    ],
)
def test_each_fault_is_named(fields: dict[str, Any], path: str) -> None:
    """What cannot be a meter is told by the path to what is wrong with it, and nothing else."""
    assert [f"input.{path}"] == faults(changed(**fields))


def test_all_faults_are_named_at_once(database_url: str) -> None:
    """A meter that is wrong in every way is refused with all of it."""
    filters = {Dimension.UNIT: ValueFilter(("call", "byte")), Dimension.PRODUCT: ValueFilter(())}
    nothing = Rounding(RoundingMode.UP, Decimal(0))
    wrong = changed(key="", name="", unit="", distinct=Dimension.USER, filters=filters, rounding=nothing)
    expected = ["key", "name", "unit", "distinct", "filter.unit.in", "filter.product.in", "rounding.step"]

    async def scenario(database: Database) -> None:
        with pytest.raises(InvalidInputError) as raised:
            await put(database, wrong)
        assert [f"input.{path}" for path in expected] == [".".join(issue.path) for issue in raised.value.issues]

    play(database_url, scenario)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"key": "A:b_c.d-1" + "x" * 247, "name": "ä \U0001f680", "unit": "GB month"},
        unit("call", "byte") | UNIQUE,
        unit("call", negated=True) | UNIQUE,
        unit("call", "byte", None) | {"aggregation": Aggregation.COUNT},
        unit("GB"),
        unit("GB", "GB"),
        *(
            {"rounding": Rounding(RoundingMode.UP, Decimal(step))}
            for step in ("1E-18", "1E+19", "0.500000000000000000000", "99999999999999999999.999999999999999999")
        ),
    ],
)
def test_what_may_be_put(fields: dict[str, Any]) -> None:
    """What is counted may be of any units; quantities are of one, which may have another name than the figure's."""
    assert [] == faults(changed(**fields))


# ---------------------------------------------------------------- which usage a meter counts

values = st.sampled_from([None, "a", "b", "c"])
value_filters = st.builds(ValueFilter, st.lists(values, max_size=4).map(tuple), st.booleans())


@MANY
@given(value_filters, value_filters, values)
def test_both_filters_keep_what_each_of_them_keeps(one: ValueFilter, other: ValueFilter, value: str | None) -> None:
    """Two filters put together keep a value when the one and the other keep it."""

    def keeps(chosen: ValueFilter) -> bool:
        return (value in chosen.values) is not chosen.negated

    assert keeps(both(one, other)) == (keeps(one) and keeps(other))


@pytest.mark.parametrize("aggregation", Aggregation)
def test_quantities_are_of_one_unit(aggregation: Aggregation) -> None:
    """Where quantities are brought together, events of the meter's unit count; a filter by unit says otherwise."""
    question = ask(
        period=MONTH,
        zone_name="UTC",
        group_by=[],
        filters={Dimension.USER: ValueFilter(("ana",))},
        limits=LIMITS,
    )
    counts = aggregation in {Aggregation.COUNT, Aggregation.UNIQUE_COUNT}
    expected = {Dimension.USER: ValueFilter(("ana",))}
    own = {} if counts else {Dimension.UNIT: ValueFilter(("call",))}

    of_unit = metered(question, changed(aggregation=aggregation, filters={}))
    of_other = metered(question, changed(aggregation=aggregation, **unit("GB")))

    assert expected | own == of_unit.filters
    assert expected | {Dimension.UNIT: ValueFilter(("GB",))} == of_other.filters
