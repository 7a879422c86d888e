"""Every metric once more, in plain Python over the raw events of a small world: what statements over sets are held to."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import combinations, pairwise
from math import exp, fsum, log, log2
from statistics import fmean, median
from typing import Any

import msgspec

from health.concentration import bus_factor, effective_users, gini, top_share
from health.drops import (
    TYPICAL_DISPERSION,
    baseline_of,
    four_week_change,
    four_week_z,
    one_week_change,
    one_week_z,
    own_dispersion,
)
from health.peers import PEERS_MIN
from health.people import UserActivity, champions_of
from health.scorecards import Subject
from health.silence import UNCALIBRATED, ActivityModel, fit_activity, silence
from metering.subjects import SubjectRef

Found = float | str
"""A value; or why there is none: UNKNOWN, or NOT_APPLICABLE."""

UNKNOWN = "unknown"
NOT_APPLICABLE = "not applicable"


class Use(msgspec.Struct, frozen=True):
    """An event in effect."""

    day: date
    account: str
    subscription: str | None
    user: str | None
    device: str | None
    product: str
    feature: str | None
    classification: str | None
    quantity: Decimal

    @property
    def is_use(self) -> bool:
        """Whether it counts as activity."""
        return self.quantity >= 0 and self.classification != "background"


class Sold(msgspec.Struct, frozen=True):
    """A subscription; its seats from days on, the first where it starts."""

    account: str
    key: str
    starts_on: date
    seats: tuple[tuple[date, int | None], ...]
    ends_on: date | None = None
    trial_ends_on: date | None = None
    renews_on: date | None = None
    monthly_amount: int | None = None
    currency_code: str = "EUR"


class World(msgspec.Struct, frozen=True, dict=True):
    """All that there is, as it is known before a day."""

    as_of: date
    uses: Sequence[Use]
    sold: Sequence[Sold]
    # By subject, attributes before the day, and a window before it.
    attributes: Mapping[SubjectRef, Mapping[str, Any]]
    attributes_before: Mapping[SubjectRef, Mapping[str, Any]]

    # ------------------------------------------------------------ events

    def days(self, low: int, high: int = 0) -> tuple[date, date]:
        """From so many days before the day to so many."""
        return self.as_of - timedelta(days=low), self.as_of - timedelta(days=high)

    def within(self, uses: Iterable[Use], low: int, high: int = 0) -> list[Use]:
        """The events of these days."""
        start, end = self.days(low, high)
        return [use for use in uses if start <= use.day < end]

    @cached_property
    def by_subject(self) -> Mapping[SubjectRef, list[Use]]:
        """The events of 52 weeks, of each subject."""
        found: dict[SubjectRef, list[Use]] = defaultdict(list)
        for use in self.within(self.uses, 364):
            found[of_account(use.account)].append(use)
            if use.subscription is not None:
                found[SubjectRef(Subject.SUBSCRIPTION, use.account, use.subscription)].append(use)
            if use.user is not None:
                found[of_user(use)].append(use)
        return found

    def all_of(self, ref: SubjectRef) -> list[Use]:
        """What a subject did, and its service accounts."""
        return self.by_subject.get(ref, [])

    def of(self, ref: SubjectRef) -> list[Use]:
        """What a subject did, but for service accounts."""
        return [use for use in self.all_of(ref) if use.user is None or not self.flag(of_user(use), "service_account")]

    def active_days(self, uses: Iterable[Use]) -> list[date]:
        """The days with activity."""
        return sorted({use.day for use in uses if use.is_use})

    @cached_property
    def last_on(self) -> date | None:
        """The last day on which anything came in."""
        return max((use.day for use in self.within(self.uses, 28)), default=None)

    # ------------------------------------------------------------ facts

    def flag(self, ref: SubjectRef, name: str) -> bool:
        """Whether something was said to be so."""
        return self.attributes.get(ref, {}).get(name) is True

    def said(self, ref: SubjectRef, name: str) -> Any:
        """What was said of a subject, or of its account."""
        own = self.attributes.get(ref, {}).get(name)
        return self.attributes.get(of_account(ref.account), {}).get(name) if own is None else own

    def sold_to(self, ref: SubjectRef) -> list[Sold]:
        """Subscriptions that have begun, of a subscription or an account."""
        return [
            sold
            for sold in self.sold
            if sold.account == ref.account
            and (ref.subject is not Subject.SUBSCRIPTION or sold.key == ref.key)
            and sold.starts_on < self.as_of
        ]

    def running(self, ref: SubjectRef) -> list[Sold]:
        """Those that are not over."""
        return [sold for sold in self.sold_to(ref) if sold.ends_on is None or sold.ends_on > self.as_of]

    def seats(self, ref: SubjectRef) -> int | None:
        """How many seats there are."""
        held = [seats for sold in self.running(ref) for seats in [seats_on(sold, self.as_of - timedelta(days=1))]]
        return sum(each for each in held if each is not None) if any(each is not None for each in held) else None

    def mean_seats(self, ref: SubjectRef) -> float:
        """How many there were on the average day of the window."""
        means = []
        for sold in self.running(ref):
            days = [self.as_of - timedelta(days=back) for back in range(1, 29)]
            held = [
                seats for day in days if day >= sold.starts_on for seats in [seats_on(sold, day)] if seats is not None
            ]
            means += [fmean(held)] if held else []
        return fsum(means)

    def began_on(self, ref: SubjectRef) -> date | None:
        """When a subject began."""
        if ref.subject is not Subject.USER and self.sold_to(ref):
            return min(sold.starts_on for sold in self.sold_to(ref))
        return next(iter(self.active_days(self.of(ref))), None)

    def listed(self, ref: SubjectRef, name: str) -> set[str]:
        """A list of features."""
        refs = [ref]
        if ref.subject is not Subject.SUBSCRIPTION:
            refs += [
                SubjectRef(Subject.SUBSCRIPTION, ref.account, sold.key)
                for sold in self.running(of_account(ref.account))
            ]
        return {each for one in refs for each in self.said(one, name) or ()}

    def offered(self, ref: SubjectRef) -> set[str]:
        """What a subject is entitled to."""
        said = self.listed(ref, "features")
        if said:
            return said
        whose = of_account(ref.account) if ref.subject is Subject.USER else ref
        products = {use.product for use in self.within(self.of(whose), 90) if use.is_use}
        found = set()
        lately = [use for use in self.within(self.uses, 90) if use.is_use]
        for product in products:
            accounts = {use.account for use in lately if use.product == product}
            by_feature = defaultdict(set)
            for use in lately:
                if use.product == product and use.feature is not None:
                    by_feature[use.feature].add(use.account)
            found |= {feature for feature, of in by_feature.items() if len(of) >= 0.05 * len(accounts)}
        return found

    def steps_done(self, ref: SubjectRef) -> list[date]:
        """When steps were done first, up to one that is not."""
        whose = of_account(ref.account) if ref.subject is Subject.USER else ref
        done = []
        for step in self.said(whose, "onboarding_steps") or ():
            days = self.active_days(use for use in self.of(ref) if use.feature == step)
            if not days:
                break
            done.append(days[0])
        return done

    def onboarded_on(self, ref: SubjectRef) -> date | None:
        """When onboarding is over."""
        began_on = self.began_on(ref)
        if began_on is None:
            return None
        days = self.said(ref, "onboarding_days")
        end = began_on + timedelta(days=60 if days is None else days)
        steps, done = self.said(ref, "onboarding_steps") or (), self.steps_done(ref)
        return min(end, max(done) + timedelta(days=1)) if steps and len(steps) == len(done) else end

    # ------------------------------------------------------------ people

    @cached_property
    def users_of(self) -> Mapping[str, list[SubjectRef]]:
        """Users by account, but for service accounts."""
        found: dict[str, list[SubjectRef]] = defaultdict(list)
        for ref in self.by_subject:
            if ref.subject is Subject.USER and self.of(ref):
                found[ref.account].append(ref)
        return found

    def is_done_with_setup(self, user: SubjectRef) -> bool:
        """Whether a lapse is benign."""
        days = self.active_days(self.of(user))
        return bool(days) and days[-1] < self.days(28)[0] and self.is_for_setup(user)

    def is_for_setup(self, user: SubjectRef) -> bool:
        """Whether a lapse would be benign."""
        days = self.active_days(self.of(user))
        if not days:
            return False
        role = self.attributes.get(user, {}).get("role")
        if role is not None and role in (self.said(of_account(user.account), "setup_roles") or ["setup"]):
            return True
        uses = self.of(user)
        share = sum(use.classification == "setup" for use in uses) / len(uses)
        onboarded_on = self.onboarded_on(of_account(user.account))
        return share >= 0.8 and onboarded_on is not None and days[-1] < onboarded_on + timedelta(days=14)

    def is_absent(self, user: SubjectRef) -> bool:
        """Whether nobody expects a user."""
        return self.flag(user, "deprovisioned") or self.is_done_with_setup(user)

    def members(self, ref: SubjectRef) -> dict[SubjectRef, list[Use]]:
        """Users of an account or a subscription, with what they did there."""
        found: dict[SubjectRef, list[Use]] = defaultdict(list)
        for use in self.of(ref):
            if use.user is not None:
                found[of_user(use)].append(use)
        return found

    def expected_days(self, ref: SubjectRef) -> list[int]:
        """Active days of the window, of everybody who is expected."""
        members = {user: uses for user, uses in self.members(ref).items() if self.active_days(uses)}
        counts = [
            len(self.active_days(self.within(uses, 28))) for user, uses in members.items() if not self.is_absent(user)
        ]
        active, seats = [count for count in counts if count], self.seats(ref)
        if seats is not None:
            size = max(0, seats - sum(self.is_done_with_setup(user) for user in members))
        else:
            lasts = [self.active_days(self.of(user))[-1] for user in members if not self.is_absent(user)]
            size = sum(last >= self.days(112)[0] for last in lasts) or len(lasts)
        return active + [0] * (size - len(active))

    # ------------------------------------------------------------ weeks

    def weeks(self, ref: SubjectRef) -> list[float]:
        """Events of whole weeks since onboarding, sixteen at most, the earliest first."""
        start = self.began_on(ref) if ref.subject is Subject.USER else self.onboarded_on(ref)
        if start is None:
            return []
        days = [(self.as_of - timedelta(days=1) - use.day).days for use in self.all_of(ref)]
        count = min(16, (self.as_of - start).days // 7)
        return [float(sum(day // 7 == week for day in days)) for week in range(count)][::-1]

    @cached_property
    def usual(self) -> tuple[float, float, float]:
        """The dispersion that is typical, and what all accounts do together, over four weeks and over one."""
        accounts = {of_account(use.account) for use in self.within(self.uses, 364)}
        accounts |= {of_account(sold.account) for sold in self.sold if sold.starts_on < self.as_of}
        weeks = [weeks for weeks in map(self.weeks, accounts) if len(weeks) >= 12]
        told = [own_dispersion(baseline_of(one)) for one in weeks if fmean(baseline_of(one)) > 20]
        slow = [change for one in weeks if (change := four_week_change(one)) is not None]
        fast = [change for one in weeks if (change := one_week_change(one)) is not None]
        return (
            median(told) if told else TYPICAL_DISPERSION,
            median(slow) if len(slow) >= PEERS_MIN else 0.0,
            median(fast) if len(fast) >= PEERS_MIN else 0.0,
        )

    def drop(self, ref: SubjectRef, z: Callable[..., float | None], place: int) -> Found:
        """A drop's z."""
        weeks = self.weeks(ref)
        if len(weeks) < 12:
            return UNKNOWN
        found = z(weeks, typical=self.usual[0], common_change=self.usual[place])
        assert found is not None
        return found

    def trend(self, ref: SubjectRef) -> Found:
        """By Theil and Sen."""
        logs = [log(week + 0.5) for week in self.weeks(ref)[-12:]]
        if len(logs) < 8:
            return UNKNOWN
        slopes = [(logs[late] - logs[early]) / (late - early) for early, late in combinations(range(len(logs)), 2)]
        return exp(4 * median(slopes)) - 1

    # ------------------------------------------------------------ what recurs

    @cached_property
    def gaps(self) -> Mapping[SubjectRef, list[int]]:
        """Days between active days, of each user."""
        users = [user for users in self.users_of.values() for user in users]
        found = {user: [(b - a).days for a, b in pairwise(self.active_days(self.of(user)))] for user in users}
        return {user: gaps for user, gaps in found.items() if gaps}

    def silence(self, ref: SubjectRef) -> Found:
        """How unusual it is."""
        days = self.active_days(self.of(ref))
        if len(days) < 4 or self.last_on is None:
            return UNKNOWN
        pooled = [gap for gaps in self.gaps.values() for gap in gaps]
        found = silence(
            (self.last_on - days[-1]).days, len(days) - 1, (days[-1] - days[0]).days, usual_gap_days=median(pooled)
        )
        assert found is not None
        return found

    @cached_property
    def models(self) -> Mapping[Subject, ActivityModel]:
        """Fitted on who was there a window ago."""
        found = {}
        for subject in Subject:
            recencies, active = [], []
            for ref in self.by_subject:
                days = self.active_days(self.of(ref))
                before = [day for day in days if day < self.days(28)[0]]
                if ref.subject is subject and before:
                    end = self.as_of - timedelta(days=29)
                    recencies.append((float((end - before[-1]).days), len(before) - 1.0, float((end - before[0]).days)))
                    active.append(len(days) > len(before))
            found[subject] = fit_activity(recencies, active) if recencies else UNCALIBRATED
        return found

    def p_active_next(self, ref: SubjectRef) -> Found:
        """Whether it will be active again."""
        days = self.active_days(self.of(ref))
        if not days or self.last_on is None:
            return UNKNOWN
        recency = float((self.last_on - days[-1]).days), len(days) - 1.0, float((self.last_on - days[0]).days)
        return self.models[ref.subject].p_active_next(recency)

    def cohort_position(self, ref: SubjectRef) -> Found:
        """The place among all that were once of this age."""
        began_on = self.began_on(ref)
        if began_on is None:
            return UNKNOWN
        age = (self.as_of - began_on).days
        if age > 90:
            return NOT_APPLICABLE
        others = []
        refs = {each for each in self.by_subject if each.subject is ref.subject}
        for sold in self.sold:
            refs.add(of_account(sold.account) if ref.subject is Subject.ACCOUNT else of_sold(sold))
        for other in refs - {ref}:
            start = self.began_on(other)
            if start is not None and start >= self.days(364)[0] and (self.as_of - start).days >= age:
                others.append(self.early_days(other, start, age))
        own = self.early_days(ref, began_on, age)
        if len(others) < 30:
            return UNKNOWN
        return 100 * (sum(each < own for each in others) + sum(each == own for each in others) / 2) / len(others)

    def early_days(self, ref: SubjectRef, began_on: date, age: int) -> int:
        """Active days in the first days."""
        return sum(0 <= (day - began_on).days < age for day in self.active_days(self.of(ref)))


def of_account(account: str) -> SubjectRef:
    """The subject that an account is."""
    return SubjectRef(Subject.ACCOUNT, account, account)


def of_user(use: Use) -> SubjectRef:
    """The subject that a user is."""
    assert use.user is not None
    return SubjectRef(Subject.USER, use.account, use.user)


def of_sold(sold: Sold) -> SubjectRef:
    """The subject that a subscription is."""
    return SubjectRef(Subject.SUBSCRIPTION, sold.account, sold.key)


def seats_on(sold: Sold, day: date) -> int | None:
    """The seats of a subscription on a day."""
    return [seats for since, seats in sold.seats if since <= day][-1]


# ---------------------------------------------------------------- metrics


def metrics_of(world: World, ref: SubjectRef) -> dict[str, Found]:
    """Every metric of a subject that usage and contracts say."""
    if ref.subject is Subject.USER:
        found = {**of_everybody(world, ref), **of_one_user(world, ref)}
    else:
        found = {**of_everybody(world, ref), "cohort_position": world.cohort_position(ref)}
        people = of_people(world, ref)
        has_users = any(map(world.active_days, world.members(ref).values())) or not world.active_days(world.of(ref))
        found |= people if has_users else dict.fromkeys(people, NOT_APPLICABLE)
    if world.last_on is None:
        found = dict.fromkeys(found, UNKNOWN)
    began_on = world.began_on(ref)
    found["age_days"] = UNKNOWN if began_on is None else (world.as_of - began_on).days
    whose = of_account(ref.account) if ref.subject is Subject.USER else ref
    steps = world.said(whose, "onboarding_steps")
    found["activation"] = len(world.steps_done(ref)) / len(steps) if steps else NOT_APPLICABLE
    if ref.subject is not Subject.USER:
        found |= of_contracts(world, ref)
    return found


def of_everybody(world: World, ref: SubjectRef) -> dict[str, Found]:
    """What all kinds of subjects have."""
    now = world.within(world.of(ref), 28)
    used = {use.feature for use in now if use.is_use}
    offered, core = world.offered(ref), world.listed(ref, "core_features")
    mix = Counter(use.feature for use in now if use.feature is not None)
    before = Counter(use.feature for use in world.within(world.of(ref), 112, 28) if use.feature is not None)
    shares = [count / mix.total() for count in mix.values()]
    return {
        "active_days": len(world.active_days(now)),
        "features_used": len(used - {None}),
        "breadth": len(used & offered) / len(offered) if offered else UNKNOWN,
        "breadth_core": len(used & core) / len(core) if core else UNKNOWN,
        "effective_features": exp(-fsum(p * log(p) for p in shares)) if mix.total() >= 20 else UNKNOWN,
        "mix_shift": divergence(mix, before) if min(mix.total(), before.total()) >= 200 else UNKNOWN,
        "drop_z": world.drop(ref, four_week_z, 1),
        "drop_z_week": world.drop(ref, one_week_z, 2),
        "trend": world.trend(ref),
        "p_active_next": world.p_active_next(ref),
    }


def divergence(now: Counter[Any], before: Counter[Any]) -> float:
    """Jensen and Shannon's, of shares to which half an event each was added."""
    features = [*(now | before)]
    p, q = ([(of[each] + 0.5) / (of.total() + len(features) / 2) for each in features] for of in (now, before))
    m = [(one + other) / 2 for one, other in zip(p, q, strict=True)]

    def entropy(shares: Sequence[float]) -> float:
        return -fsum(share * log2(share) for share in shares)

    return entropy(m) - (entropy(p) + entropy(q)) / 2


def of_one_user(world: World, ref: SubjectRef) -> dict[str, Found]:
    """What users have."""
    days = world.active_days(world.of(ref))
    share: Found = UNKNOWN
    if days:
        start, end = max(days[0], world.days(112)[0]), world.days(28)[0]
        if (end - start).days >= 56:
            baseline = sum(start <= day < end for day in days)
            now = sum(day >= end for day in days)
            share = now / (baseline * 28 / (end - start).days) if baseline else NOT_APPLICABLE
    now = world.within(world.of(ref), 28)
    trouble = sum(use.classification in {"error", "failure", "help"} for use in now)
    return {
        "expected": 0.0 if world.is_absent(ref) else 1.0,
        "champion": float(ref.key in champions_now(world, ref.account)),
        "trouble_share": trouble / len(now) if len(now) >= 20 else UNKNOWN,
        "active_days_share_of_own": share,
        "silence": NOT_APPLICABLE if world.is_absent(ref) or world.is_for_setup(ref) else world.silence(ref),
        "median_gap_days": median(world.gaps[ref]) if ref in world.gaps else UNKNOWN,
    }


def of_people(world: World, ref: SubjectRef) -> dict[str, Found]:
    """What the users of an account or a subscription make of it."""
    members = world.members(ref)
    now = {user: days for user, uses in members.items() if (days := world.active_days(world.within(uses, 28)))}
    before = {user for user, uses in members.items() if world.active_days(world.within(uses, 56, 28))}
    events = [float(len(world.within(members[user], 28))) for user in now]
    l28 = [len(days) for days in now.values()]
    active, seats, mean_seats = len(now), world.seats(ref), world.mean_seats(ref)
    expected, began_on = world.expected_days(ref), world.began_on(ref)
    several = [
        len({use.device for use in world.within(members[user], 28) if use.is_use and use.device is not None}) > 1
        for user in now
    ]
    found: dict[str, Found] = {
        "active_users": active,
        "seat_utilisation": active / mean_seats if seats and mean_seats else NOT_APPLICABLE,
        "unused_seats": max(0, seats - active) if seats else NOT_APPLICABLE,
        "cost_per_active_ratio": (seats / active if active else UNKNOWN) if seats else NOT_APPLICABLE,
        "stickiness": fmean(l28) / 28 if l28 else NOT_APPLICABLE,
        "median_l28": median(expected) if expected else NOT_APPLICABLE,
        "median_events": median(events) if events else NOT_APPLICABLE,
        "power_users": sum(days >= 20 for days in l28),
        "core_users": sum(8 <= days < 20 for days in l28),
        "casual_users": sum(days < 8 for days in l28),
        "several_devices_share": fmean(several) if several else NOT_APPLICABLE,
        "growth_users": UNKNOWN
        if began_on is None or (world.as_of - began_on).days < 56
        else log((active + 0.5) / (len(before) + 0.5)),
    }
    amount = of_contracts(world, ref)["monthly_amount"]
    found["cost_per_active"] = amount if isinstance(amount, str) else (amount / active if active else UNKNOWN)
    return (
        found if ref.subject is not Subject.ACCOUNT else {**found, **of_whole_account(world, ref, now, before, events)}
    )


def of_whole_account(
    world: World,
    ref: SubjectRef,
    now: Mapping[SubjectRef, Sequence[date]],
    before: set[SubjectRef],
    events: Sequence[float],
) -> dict[str, Found]:
    """What accounts have."""
    l28 = [float(len(days)) for days in now.values()]
    users = world.users_of.get(ref.account, [])
    firsts = {user: days[0] for user in users if (days := world.active_days(world.of(user)))}
    new = {user for user, first in firsts.items() if first >= world.days(28)[0]}
    provisioned = [
        user
        for user in world.attributes
        if user.subject is Subject.USER and user.account == ref.account and world.flag(user, "provisioned")
    ]
    gaps = [median(world.gaps[user]) for user in users if user in world.gaps]
    covering = [days for days in (1, 7, 14, 28) if gaps and sum(gap <= days for gap in gaps) / len(gaps) >= 0.8]
    padded = [*events, *[0.0] * ((world.seats(ref) or 0) - len(events))]

    def or_not(value: float | None) -> Found:
        return NOT_APPLICABLE if value is None else value

    return {
        "top_share": or_not(top_share(events, 1)),
        "effective_users": or_not(effective_users(l28)),
        "bus_factor": or_not(bus_factor(l28)),
        "gini": or_not(gini(padded)),
        "users_new": len(new),
        "users_retained": len(now.keys() & before),
        "users_resurrected": len(now.keys() - before - new),
        "users_dormant": len(before - now.keys()),
        "dormant_users": len([user for user in firsts if user not in now and not world.is_absent(user)]),
        "never_used_users": len([user for user in provisioned if user not in firsts]) if provisioned else UNKNOWN,
        "usage_interval_days": (covering or [28])[0] if gaps else UNKNOWN,
        "champion_lost": champion_lost(world, users),
    }


def champions_now(world: World, account: str) -> frozenset[str]:
    """Who carries an account."""
    now = []
    for user in world.users_of.get(account, []):
        days = world.active_days(world.of(user))
        uses = world.within(world.of(user), 28)
        if days:
            now.append(
                UserActivity(
                    user=user.key,
                    active_days=len(world.active_days(uses)),
                    tenure_days=(world.as_of - days[0]).days,
                    features=len({use.feature for use in uses if use.is_use} - {None}),
                    deprovisioned=world.flag(user, "deprovisioned"),
                    champion=world.attributes.get(user, {}).get("champion"),
                )
            )
    return champions_of(now)


def champion_lost(world: World, users: Sequence[SubjectRef]) -> float:
    """Whether somebody who carried the account a window ago is without access, or silent."""
    before = []
    for user in users:
        uses = world.of(user)
        days = world.active_days(uses)
        end = world.days(28)[0]
        if days and days[0] < end:
            champion = world.attributes_before.get(user, {}).get("champion")
            before.append(
                UserActivity(
                    user=user.key,
                    active_days=len(world.active_days(world.within(uses, 56, 28))),
                    tenure_days=(end - days[0]).days,
                    features=len({use.feature for use in world.within(uses, 56, 28) if use.is_use} - {None}),
                    champion=champion,
                )
            )
    for key in champions_of(before):
        (user,) = (each for each in users if each.key == key)
        silent = world.silence(user)
        if world.flag(user, "deprovisioned") or (not isinstance(silent, str) and silent >= 4):
            return 1.0
    return 0.0


def of_contracts(world: World, ref: SubjectRef) -> dict[str, Found]:
    """What is sold."""
    running, seats = world.running(ref), world.seats(ref)
    none: Found = UNKNOWN if running else NOT_APPLICABLE
    amounts = [sold.monthly_amount for sold in running if sold.monthly_amount is not None]
    renewals = [sold.renews_on for sold in running if sold.renews_on is not None]
    trials = [sold.trial_ends_on for sold in running if sold.trial_ends_on and sold.trial_ends_on >= world.as_of]
    began_on, core = world.began_on(ref), world.listed(ref, "core_features")
    core_days = world.active_days(use for use in world.of(ref) if use.feature in core)
    one_currency = len({sold.currency_code for sold in running}) == 1
    return {
        "seats": NOT_APPLICABLE if seats is None else seats,
        "monthly_amount": sum(amounts) if amounts and one_currency else none,
        "renewal_days": (min(renewals) - world.as_of).days if renewals else none,
        "trial_days_left": (min(trials) - world.as_of).days if trials else NOT_APPLICABLE,
        "time_to_value_days": UNKNOWN if not core_days or began_on is None else max(0, (core_days[0] - began_on).days),
    }
