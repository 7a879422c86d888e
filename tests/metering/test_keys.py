"""API keys with limits: kept as they were made, refused with every fault, and never wider than what holds for everyone."""

import asyncio

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.config import Settings
from metering.errors import InvalidInputError
from metering.keys import NO_LIMITS, ApiKey, KeyLimits, KeyRing, Scope
from metering.limits import LIMITS
from metering.store.pool import Database
from tests.conftest import make_key
from tests.strategies import SOME

WHOLE = KeyLimits(events_per_second_max=1_000, burst_events_max=5_000, request_events_max=500, request_bytes_max=2**20)


def kept(url: str, secret: str) -> tuple[ApiKey, ApiKey]:
    """A key as it is found by its secret, and as it is listed."""

    async def read() -> tuple[ApiKey, ApiKey]:
        database = await Database.connect(Settings(database_url=url), LIMITS)
        try:
            ring = KeyRing(database)
            found = await ring.find(secret)
            assert found is not None
            return found, (await ring.list())[0]
        finally:
            await database.close()

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("source", "limits", "expected"),
    [
        (None, NO_LIMITS, NO_LIMITS),
        ("gateway", WHOLE, WHOLE),
        ("x" * 256, KeyLimits(request_events_max=1), KeyLimits(request_events_max=1)),
        (
            None,
            KeyLimits(events_per_second_max=7),
            KeyLimits(events_per_second_max=7, burst_events_max=7),
        ),
        (
            None,
            KeyLimits(events_per_second_max=10**9, burst_events_max=1),
            KeyLimits(events_per_second_max=10**9, burst_events_max=1),
        ),
    ],
    ids=["nothing", "all", "one", "a rate alone", "extremes"],
)
def test_a_key_is_kept_as_it_was_made(
    database_url: str, source: str | None, limits: KeyLimits, expected: KeyLimits
) -> None:
    """Limits and source are those that were given, nothing where nothing was; a rate alone gets a burst of a second."""
    made, secret = make_key(database_url, default_source=source, **_given(limits))

    assert (source, expected) == (made.default_source, made.limits)
    assert (made, made) == kept(database_url, secret)


def _given(limits: KeyLimits) -> dict[str, int]:
    return {name: value for name, value in msgspec.structs.asdict(limits).items() if value is not None}


def test_every_fault_of_a_key_at_once(database_url: str) -> None:
    """What cannot be a key is refused with each fault by its path, each with what would have been taken."""
    limits = KeyLimits(
        burst_events_max=0, request_events_max=LIMITS.body_events_max + 1, request_bytes_max=LIMITS.body_bytes_max + 1
    )

    async def create() -> None:
        database = await Database.connect(Settings(database_url=database_url), LIMITS)
        try:
            await KeyRing(database).create(" ", [Scope.USAGE_WRITE], default_source="a\0", limits=limits)
        finally:
            await database.close()

    with pytest.raises(InvalidInputError) as caught:
        asyncio.run(create())

    told = [(".".join(issue.path), issue.message) for issue in caught.value.issues]
    assert told == [
        ("name", "A key needs a name that says who uses it."),
        ("default_source", "A source has 1 to 256 characters, none of them NUL."),
        ("burst_events_max", "This must be 1 to 1,000,000,000 events; 0 is not."),
        ("request_events_max", "This must be 1 to 10,000 events; 10,001 is not."),
        ("request_bytes_max", "This must be 1 to 16,777,216 bytes; 16,777,217 is not."),
        ("burst_events_max", "A burst belongs to a rate; give events_per_second_max too."),
    ]


@pytest.mark.parametrize(
    "values",
    [
        "events_per_second_max = 1",
        "burst_events_max = 1",
        "events_per_second_max = 0, burst_events_max = 1",
        "request_events_max = 0",
        "request_bytes_max = -1",
    ],
)
def test_the_database_holds_no_nonsense(database_url: str, values: str) -> None:
    """What no key can be is refused by the table itself, whoever writes it there."""
    made, _ = make_key(database_url)

    async def change() -> None:
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute(f"UPDATE api_key SET {values} WHERE prefix = $1", made.prefix)
        finally:
            await connection.close()

    with pytest.raises(asyncpg.CheckViolationError):
        asyncio.run(change())


@SOME
@given(events=st.one_of(st.none(), st.integers(1, 20_000)), size=st.one_of(st.none(), st.integers(1, 2**25)))
def test_a_key_s_limits_only_narrow(events: int | None, size: int | None) -> None:
    """What holds for a request of a key is the narrower of its own limit and everyone's; all else stays."""
    narrowed = KeyLimits(request_events_max=events, request_bytes_max=size).within(LIMITS)

    assert min(events or 10_000, 10_000) == narrowed.body_events_max
    assert min(size or 16 * 2**20, 16 * 2**20) == narrowed.body_bytes_max
    assert LIMITS == msgspec.structs.replace(
        narrowed, body_events_max=LIMITS.body_events_max, body_bytes_max=LIMITS.body_bytes_max
    )
