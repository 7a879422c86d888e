"""Ways and users at once are what plain Python makes of the same events: late, corrected and voided ones, in every reach."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, TypeAlias

import msgspec
import pytest

from health.scorecards import Subject
from metering.errors import InvalidInputError
from metering.events import AdmittedEvent, Dimension, UsageEvent
from metering.health.users_at_once import GroupPeak, Peak, UsersAtOnce, read_users_at_once
from metering.health.ways import Place, Way, Ways, read_ways
from metering.limits import LIMITS
from metering.periods import Bucket, Period, bucket_bounds, zone_of
from metering.questions import Question, ValueFilter
from metering.reach import EVERYTHING, NOTHING, Reach
from metering.rollups.read import Key
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef
from tests.conftest import Server
from tests.metering.test_measuring import DAY, Fact, Service, midnight, play

START: Final = datetime(2026, 6, 8, 20, tzinfo=UTC)
# What may lie between two events of one user: some just long enough to end a session, some not.
GAPS: Final = [0, 1, 5, 60, 300, 600, 900, 1_799, 1_800, 1_801, 20_000]
VALUES: Final[Mapping[Dimension, Sequence[str | None]]] = {
    Dimension.SUBSCRIPTION: [None, "s", "t"],
    Dimension.DEVICE: [None, "phone"],
    Dimension.PRODUCT: ["p", "p", "q"],
    Dimension.FEATURE: [None, "f", "g", "h"],
    Dimension.CLASSIFICATION: [None, None, None, "setup", "background"],
}
KNOWN: Final[Mapping[Dimension, Sequence[str | None]]] = {
    **VALUES,
    Dimension.ACCOUNT: ["a", "b", "c"],
    Dimension.USER: ["u", "v", "robot", None],
}
REACHES: Final = [
    *(EVERYTHING, EVERYTHING, EVERYTHING, NOTHING, Reach(frozenset({"a", "c"}))),
    Reach(frozenset({"a"}), subscriptions=frozenset({"s"})),
    Reach(frozenset({"b"}), user="robot"),
]
CHANGES: Final[Sequence[dict[str, Any]]] = [
    {},
    {},
    {"user": "v"},
    {"feature": None},
    {"feature": "g"},
    {"quantity": Decimal(-2)},
]
# Of these accounts the user `robot` is no person: that was said so many days before the day, an hour before midnight.
ROBOTS: Final = {"a": 1, "b": 0}
_END: Final = START + timedelta(hours=35)

Session: TypeAlias = list[AdmittedEvent]


def drawn(rng: random.Random) -> list[UsageEvent]:
    """Two days of some users, whose ways cross; and of somebody who is not named."""
    events: list[UsageEvent] = []
    for account in ("a", "b", "c"):
        for user in ("u", "v", "robot", None):
            at = START + timedelta(seconds=rng.choice([0, 1, 600, 40_000]))
            for _ in range(80):
                at += timedelta(seconds=rng.choice(GAPS))
                if at >= _END:
                    break
                values: dict[str, Any] = {dimension.value: rng.choice(of) for dimension, of in VALUES.items()}
                quantity = rng.choice([Decimal(1), Decimal(1), Decimal(0), Decimal(-1)])
                name: dict[str, Any] = {"id": f"event {len(events)}", "source": "test", "unit": "call"}
                events.append(
                    UsageEvent(**name, **values, account=account, user=user, occurred_at=at, quantity=quantity)
                )
    return events


def asked(rng: random.Random) -> Question:
    """A question about all of it or a part, of one account or of some, by some dimensions."""
    start, end = sorted(START + timedelta(minutes=rng.randrange(-60, 35 * 60)) for _ in range(2))
    start, end = rng.choice([(START, midnight(START.date()) + timedelta(days=2)), (start, end + timedelta(seconds=1))])
    filters = {}
    for dimension in rng.sample(sorted(KNOWN, key=lambda each: each.value), rng.choice([0, 0, 0, 1, 2])):
        chosen = rng.sample(sorted(set(KNOWN[dimension]), key=str), 2)
        filters[dimension] = ValueFilter(tuple(chosen), negated=rng.random() < 0.3)
    return Question(
        period=Period(start, end),
        zone_name=rng.choice(["UTC", "Asia/Kathmandu"]),
        group_by=tuple(rng.sample(sorted(KNOWN, key=lambda each: each.value), rng.choice([0, 1, 1, 2]))),
        filters=filters,
    )


# ---------------------------------------------------------------- the same once more


def uses_of(events: Iterable[AdmittedEvent], question: Question, reach: Reach) -> list[AdmittedEvent]:
    """The uses that a question is about, in order."""
    period = question.period
    as_of = midnight((period.end - timedelta.resolution).date()) + timedelta(days=1)
    robots = {account for account, age in ROBOTS.items() if midnight(DAY) - timedelta(days=age, hours=1) < as_of}
    kept = []
    for each in events:
        said = each.event
        is_robot = said.user == "robot" and said.account in robots and not reach.is_narrow
        is_use = said.quantity >= 0 and said.classification != "background" and said.user is not None
        is_within = reach.shows(said.account, said.subscription, said.user)
        is_asked = all(
            (getattr(said, dimension.value) in chosen.values) is not chosen.negated
            for dimension, chosen in question.filters.items()
        )
        if is_use and is_within and is_asked and not is_robot and period.start <= each.occurred_at < period.end:
            kept.append(each)
    return sorted(kept, key=lambda each: (each.occurred_at, each.key))


def sessions_of(uses: Sequence[AdmittedEvent], keys: Sequence[Dimension]) -> Mapping[Key, list[Session]]:
    """The sessions of each group; each has one user."""
    of: dict[tuple[Key, str, str | None], list[Session]] = defaultdict(list)
    for use in uses:
        key = tuple(getattr(use.event, dimension.value) for dimension in keys)
        own = of[key, use.event.account, use.event.user]
        if own and use.occurred_at - own[-1][-1].occurred_at < timedelta(minutes=30):
            own[-1].append(use)
        else:
            own.append([use])
    groups: dict[Key, list[Session]] = defaultdict(list)
    for (key, _, _), sessions in of.items():
        groups[key] += sessions
    return groups


def ways_of(uses: Sequence[AdmittedEvent], zone_name: str, first: int, *, repeats: bool) -> Ways:
    """The ways, by walking each of them."""
    zone = zone_of(zone_name)
    times: Counter[tuple[Place, Place]] = Counter()
    days: dict[tuple[Place, Place], set[tuple[str, str | None, object]]] = defaultdict(set)
    usual: dict[tuple[str, str | None], Counter[tuple[Place, Place]]] = defaultdict(Counter)
    for session in sessions_of(uses, ()).get((), []):
        named = [(each, Place(each.event.product, each.event.feature)) for each in session if each.event.feature]
        for (_, before), (each, after) in pairwise(named):
            if repeats or before != after:
                times[before, after] += 1
                days[before, after].add((each.event.account, each.event.user, each.occurred_at.astimezone(zone).date()))
    for way, of_way in days.items():
        for account, user, _ in of_way:
            usual[account, user][way] += 1
    ordered = sorted(
        times, key=lambda way: (-times[way], *(each for end in way for each in (end.product, end.feature)))
    )
    users = {(each.event.account, each.event.user) for each in uses}
    active = {(each.event.account, each.event.user, each.occurred_at.astimezone(zone).date()) for each in uses}
    return Ways(
        ways=[Way(*way, times[way], len({each[:2] for each in days[way]}), len(days[way])) for way in ordered[:first]],
        all_ways=len(times),
        all_times=times.total(),
        users=len(users),
        walkers=len(usual),
        active_days=len(active),
        routine_days=sum(max(own.values()) for own in usual.values()),
    )


def there(sessions: Sequence[Session], at: datetime) -> int:
    """How many users are there at an instant: no two sessions of one user meet."""
    return sum(each[0].occurred_at <= at <= each[-1].occurred_at for each in sessions)


def peak_of(sessions: Sequence[Session]) -> Peak | None:
    """The most of them; they are first as many as somebody comes."""
    found = [Peak(there(sessions, each[0].occurred_at), each[0].occurred_at) for each in sessions]
    return min(found, key=lambda peak: (-peak.users, peak.at), default=None)


def users_at_once_of(
    uses: Sequence[AdmittedEvent], question: Question, bucket: Bucket | None, first: int
) -> UsersAtOnce:
    """Users at once, by looking at every instant at which anybody comes, and at which a bucket begins."""
    sessions = sessions_of(uses, ()).get((), [])
    groups = sessions_of(uses, question.group_by) if question.group_by else {}
    peaks = [GroupPeak(key, peak) for key, of in groups.items() if (peak := peak_of(of)) is not None]
    peaks.sort(key=lambda each: (-each.peak.users, *((value is None, value or "") for value in each.key)))
    bounds = () if bucket is None else bucket_bounds(question.period, zone_of(question.zone_name), bucket)
    comings = [each[0].occurred_at for each in sessions]
    return UsersAtOnce(
        peak=peak_of(sessions),
        groups=peaks[:first],
        all_groups=len(peaks),
        starts=list(bounds[:-1]),
        users=[
            max(there(sessions, at) for at in [start, *(at for at in comings if start <= at < end)])
            for start, end in pairwise(bounds)
        ],
    )


# ---------------------------------------------------------------- claims


def test_ways_and_users_at_once_are_the_naive_ones(servers: dict[str, Server], engine: str) -> None:
    """Whatever is asked, within whichever reach: each figure is what Python counts over the events that are in effect."""
    rng = random.Random(27)

    async def scenario(service: Service) -> None:
        events = drawn(rng)
        await service.say([Fact(_robot(account), "service_account", "true", age) for account, age in ROBOTS.items()])
        await service.record(events[: len(events) // 2])
        await service.roll_up()
        await service.record(events[len(events) // 2 :])
        for place in rng.sample(range(len(events)), 40):
            await service.correct(place, rng.choice(CHANGES))
        seen: Counter[str] = Counter()
        for _ in range(40):
            question, reach, first, repeats = (
                asked(rng),
                rng.choice(REACHES),
                rng.choice([1, 3, 100]),
                rng.random() < 0.5,
            )
            bucket = rng.choice([None, Bucket.HOUR, Bucket.DAY])
            uses = uses_of(service.in_effect.values(), question, reach)
            async with Snapshot(service.database, reach) as snapshot:
                ways = await read_ways(snapshot, question, first, LIMITS, repeats=repeats)
                at_once = await read_users_at_once(snapshot, question, bucket, first, LIMITS)
            assert ways_of(uses, question.zone_name, first, repeats=repeats) == ways, question
            assert users_at_once_of(uses, question, bucket, first) == _listed(at_once), question
            assert ways.all_times >= sum(way.times for way in ways.ways)
            seen.update(ways=len(ways.ways), routine=ways.routine_days, peak=at_once.peak.users if at_once.peak else 0)
            seen.update(empty=not uses, several=at_once.peak is not None and at_once.peak.users > 2)
        assert min(seen[name] for name in ("ways", "routine", "peak", "empty", "several")) > 3, seen

    play(servers[engine], scenario)


def _robot(account: str) -> SubjectRef:
    return SubjectRef(Subject.USER, account, "robot")


def _listed(found: UsersAtOnce) -> UsersAtOnce:
    return msgspec.structs.replace(found, starts=list(found.starts))


def test_what_is_too_much_is_refused_with_what_to_ask(servers: dict[str, Server], engine: str) -> None:
    """A period that is too long, events that are too many and events that are gone are refused, at the bound and not below it."""
    rng = random.Random(1)
    week = Question(period=Period(START, START + timedelta(days=7)), zone_name="UTC", group_by=(), filters={})

    async def scenario(service: Service) -> None:
        events = drawn(rng)
        await service.record(events)

        async def ask(**limits: int) -> None:
            async with Snapshot(service.database, EVERYTHING) as snapshot:
                await read_ways(snapshot, week, 1, msgspec.structs.replace(LIMITS, **limits), repeats=False)
                await read_users_at_once(snapshot, week, None, 1, msgspec.structs.replace(LIMITS, **limits))

        await ask(sessions_days_max=7, sessions_events_max=len(events))
        with pytest.raises(
            InvalidInputError, match="a period of 7 days, and sessions are read from 6 at most; ask for a"
        ):
            await ask(sessions_days_max=6)
        with pytest.raises(
            InvalidInputError, match=f"These are {len(events)} events, .*shorter period, or for less by a"
        ):
            await ask(sessions_events_max=len(events) - 1)
        async with service.database.connection() as connection:
            await connection.execute("UPDATE retained_range SET raw_from = '2026-06-09', taken_from = '2026-06-09'")
        with pytest.raises(InvalidInputError, match="Events before 2026-06-09T00:00:00Z are not kept any more"):
            await ask()

    play(servers[engine], scenario)
