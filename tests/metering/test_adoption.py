"""Adoption of features, and recurring revenue: by hand, and by plain Python."""

from collections import Counter
from datetime import timedelta
from decimal import Decimal

from metering.health.adoption import read_feature_retention, read_stickiness
from metering.health.revenue import Revenue, Trials, read_revenue, read_trials
from metering.periods import Period
from metering.reach import EVERYTHING
from metering.store.snapshot import Snapshot
from tests.conftest import Server
from tests.metering.catalog import BASE, draft, order, publish, put
from tests.metering.second_measures import Use, World
from tests.metering.test_measuring import DAY, Service, crowd, events_of, midnight, play, use_of


def kept_of(world: World) -> tuple[Counter[str | None], Counter[str | None]]:
    """Users by the features of their first 14 days (and all of them, under None), and how many of these are kept."""
    users: Counter[str | None] = Counter()
    kept: Counter[str | None] = Counter()
    for refs in world.users_of.values():
        for ref in refs:
            days = world.active_days(world.of(ref))
            ages = {(day - days[0]).days for day in days}
            if not world.days(364)[0] + timedelta(days=28) <= days[0] <= world.days(84)[0]:
                continue
            tried = {use.feature for use in world.of(ref) if use.is_use and (use.day - days[0]).days < 14} | {None}
            users.update(tried)
            kept.update(tried if any(56 <= age < 84 for age in ages) else ())
    return users, kept


def retained_in(uses: list[Use], week: int) -> tuple[int, int]:
    """Users of a feature who have had it for that week, and how many used it in it."""
    days: dict[tuple[str, str | None], list[int]] = {}
    for use in uses:
        if use.is_use and use.user is not None:
            days.setdefault((use.account, use.user), []).append((DAY - use.day).days)
    whole = [ages for ages in days.values() if max(ages) >= 7 * (week + 1)]
    return len(whole), sum(any((max(ages) - age) // 7 == week for age in ages) for ages in whole)


def test_adoption_is_the_naive_one(servers: dict[str, Server], engine: str) -> None:
    """Retention by week of use, and who stays of those who tried a feature, are what Python counts over the events."""
    drawn, _ = crowd(24)

    async def scenario(service: Service) -> None:
        await service.record(events_of(drawn))
        async with Snapshot(service.database, EVERYTHING) as snapshot:
            retention = await read_feature_retention(snapshot, None, DAY)
            stickiness = await read_stickiness(snapshot, None, DAY)
        world = service.world(DAY)
        users, kept = kept_of(world)
        uses = [use_of(event) for event in service.in_effect.values()]
        for feature, weeks in retention.items():
            of_feature = [use for use in uses if use.feature == feature]
            assert [(each.users, each.active) for each in weeks] == [
                retained_in(of_feature, each.week) for each in weeks
            ]
        assert set(retention) == {use.feature for use in uses}
        assert {each.feature: (each.used, each.used_kept) for each in stickiness} == {
            feature: (count, kept[feature]) for feature, count in users.items() if feature is not None
        }
        assert {each.used + each.others for each in stickiness} == {users[None]}
        assert not any(each.is_sticky for each in stickiness if each.used < 30)

    play(servers[engine], scenario)


def test_revenue_moves_by_what_contracts_say(servers: dict[str, Server], engine: str) -> None:
    """Amounts are as they were at both ends of the period: new, grown, shrunk and lost customers add up to the difference."""
    march, june = midnight(DAY.replace(month=3, day=1)), midnight(DAY.replace(day=1))
    early, later = march - timedelta(days=60), march + timedelta(days=20)

    async def scenario(service: Service) -> None:
        await publish(service.database, draft(BASE))
        amounts = [("stays", 100), ("grows", 100), ("shrinks", 50), ("leaves", 30), ("tries", 70), ("silent", None)]
        for name, amount in amounts:
            money = None if amount is None else Decimal(amount)
            await put(service.database, order(key=name, account=name, starts_at=early, monthly_amount=money))
        await put(service.database, order(key="more", account="grows", starts_at=later, monthly_amount=Decimal(40)))
        await put(service.database, order(key="new", account="new", starts_at=later, monthly_amount=Decimal(25)))
        ended = order(key="leaves", account="leaves", starts_at=early, ends_at=later, monthly_amount=Decimal(30))
        await put(service.database, ended)
        trying = order(key="tries", account="tries", starts_at=early, trial_ends_at=later, monthly_amount=Decimal(70))
        await put(service.database, trying)
        # It was said after the period that less is paid; within it the amount was the first one.
        await put(
            service.database, order(key="shrinks", account="shrinks", starts_at=early, monthly_amount=Decimal(20))
        )
        async with service.database.connection() as connection:
            await connection.execute(
                "UPDATE subscription_change SET changed_at = $1 WHERE subscription = 'shrinks'", later
            )
        async with Snapshot(service.database, EVERYTHING) as snapshot:
            (found,) = await read_revenue(snapshot, None, Period(march, june))
            trials = await read_trials(snapshot, None, Period(early, march))
        assert found == Revenue(
            currency_code="EUR",
            start=Decimal(280),
            new=Decimal(95),
            expansion=Decimal(40),
            contraction=Decimal(30),
            churned=Decimal(30),
            end=Decimal(355),
            customers_at_start=4,
            customers_new=2,
            customers_churned=1,
            unknown=1,
        )
        assert found.end == found.start + found.new + found.expansion - found.contraction - found.churned
        assert (found.gross_retention, found.net_retention) == (Decimal(220) / 280, Decimal(260) / 280)
        assert (found.customer_churn, found.yearly) == (Decimal("0.25"), Decimal(4260))
        assert found.customer_value(Decimal("0.8")) == Decimal(224)
        assert Revenue(currency_code="EUR").net_retention is None
        assert trials == Trials(1, 1)

    play(servers[engine], scenario)
