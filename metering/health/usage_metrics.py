"""What usage says of a subject, as metrics: each observed, unknown or not applicable (health/measurements.py).

Zero is observed only while events come in from anybody at all; otherwise nobody knows.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from math import log
from statistics import median
from typing import Final, TypeAlias

import msgspec

from health.measurements import Measurement, NotApplicable, Observed, Unknown
from health.people import UserActivity, champions_lost, champions_of
from health.scorecards import Subject
from health.silence import GAPS_MIN, silence
from metering.health.conventions import (
    CHAMPION,
    CORE_FEATURES,
    DEPROVISIONED,
    FEATURES,
    ONBOARDING_STEPS,
    PROVISIONED,
    SERVICE_ACCOUNT,
)
from metering.health.gathering import BASELINE_DAYS, WINDOW_DAYS, FeatureUse, Gathered, Life, People
from metering.health.norms import COHORT_DAYS, Norms
from metering.subjects import SubjectRef

Metrics: TypeAlias = Iterator[tuple[str, Measurement]]

NOBODY_SENDS: Final = Unknown("no events came in from anybody in 28 days")
_NEVER: Final = Unknown("never active")
_NO_PERSON: Final = NotApplicable("a service account is no person")
_NOT_EXPECTED: Final = NotApplicable("not expected: done with the set-up, or without access")
_NO_USERS: Final = NotApplicable("no event names a user")
_NO_ACTIVE_USER: Final = NotApplicable("no active user")
_NO_SEATS: Final = NotApplicable("no seats are sold")
_NO_CORE: Final = Unknown("no core features are named")
_FEW_WEEKS: Final = Unknown("fewer than eight whole weeks since onboarding")
_EVENTS_FOR_FEATURES: Final = 20
_EVENTS_FOR_MIX: Final = 200
_EVENTS_FOR_TROUBLE: Final = 20
_USERS_FOR_SHARES: Final = 3
_BASELINE_DAYS_MIN: Final = 56
_SETUP_SHARE: Final = 0.8
_SETUP_GRACE: Final = timedelta(days=14)
INTERVALS: Final = (1, 7, 14, 28)
_INTERVAL_SHARE: Final = 0.8

_NO_USE: Final = FeatureUse(0.0, 0.0, [], [], [], 0, [], None, None)
_NO_LIFE: Final = Life(date.min)


class Usage:
    """The metrics of usage, of what was gathered of accounts, against norms."""

    def __init__(self, gathered: Gathered, norms: Norms) -> None:
        self._all = gathered
        self._norms = norms
        self._provisioned: dict[str, list[SubjectRef]] = {}
        # What is asked of each user of an account, or more than once of a user.
        self._now: dict[str, list[UserActivity]] = {}
        self._carrying: dict[str, frozenset[str]] = {}
        self._shared: dict[tuple[str, str], frozenset[str]] = {}
        self._gaps: dict[SubjectRef, float | None] = {}
        for user in gathered.conventions.users(PROVISIONED):
            self._provisioned.setdefault(user.account, []).append(user)
        everybody = (user for users in gathered.users_of.values() for user in users)
        # Needed for the set-up, and done with it.
        self._benign = frozenset(user for user in everybody if self._is_done_with_setup(user))
        # Users who are not expected: these, and who has no access any more.
        self.absent = self._benign | frozenset(gathered.conventions.users(DEPROVISIONED))

    def of(self, ref: SubjectRef) -> Metrics:
        """Every metric of a subject that is made of usage."""
        found = self._of_user(ref) if ref.subject is Subject.USER else self._of_customer(ref)
        instead: Measurement | None = NOBODY_SENDS if self._norms.last_on is None else None
        if ref.subject is Subject.USER and self._all.conventions.flag(ref, SERVICE_ACCOUNT):
            instead = _NO_PERSON
        for name, measurement in found:
            yield name, measurement if instead is None else instead
        yield "activation", self._activation(ref)
        began_on = self._all.began_on(ref)
        yield "age_days", _NEVER if began_on is None else Observed(float((self._all.as_of - began_on).days))
        if ref.subject is not Subject.USER:
            yield "time_to_value_days", self._time_to_value(ref)

    # ------------------------------------------------------------ everybody

    def _of_everybody(self, ref: SubjectRef) -> Metrics:
        use, life = self._all.uses.get(ref, _NO_USE), self._life(ref)
        yield "active_days", Observed(float(life.count(WINDOW_DAYS)))
        yield "features_used", Observed(float(len(use.used)))
        offered, core = self._offered(ref), self._listed(ref, CORE_FEATURES)
        yield "breadth", _share(use, offered) if offered else Unknown("no features are known to be entitled to")
        yield "breadth_core", _share(use, core) if core else _NO_CORE
        if use.feature_events < _EVENTS_FOR_FEATURES or use.effective is None:
            yield "effective_features", Unknown("fewer than 20 events with a feature")
        else:
            yield "effective_features", Observed(use.effective)
        few = min(use.feature_events, use.feature_events_before) < _EVENTS_FOR_MIX
        known = None if few else use.divergence
        yield (
            "mix_shift",
            Unknown("fewer than 200 events with a feature, now or before") if known is None else Observed(known),
        )
        weeks = self._all.weeks.get(ref)
        for name in ("drop_z", "drop_z_week", "trend"):
            value: float | None = None if weeks is None else getattr(weeks, name)
            yield name, _FEW_WEEKS if value is None else Observed(value)
        yield "p_active_next", self._p_active_next(ref)

    def _p_active_next(self, ref: SubjectRef) -> Measurement:
        life = self._life(ref)
        last_on = self._heard_on(life)
        if life.first_on is None or life.last_on is None or last_on is None:
            return _NEVER
        recency = float((last_on - life.last_on).days), len(life.days) - 1.0, float((last_on - life.first_on).days)
        return Observed(self._norms.model(ref.subject.value).p_active_next(recency))

    def _heard_on(self, life: Life) -> date | None:
        """The last day on which anything came in: from anybody as the norms were computed, or from this subject since."""
        last_on = self._norms.last_on
        return last_on if last_on is None or life.last_on is None else max(last_on, life.last_on)

    def _life(self, ref: SubjectRef) -> Life:
        return self._all.lives.get(ref, _NO_LIFE)

    def _listed(self, ref: SubjectRef, name: str) -> frozenset[str]:
        """A list of features; of an account also those of its running contracts."""
        own = frozenset(self._all.conventions.listed(ref, name))
        return own if ref.subject is Subject.SUBSCRIPTION else own | self._listed_of(ref.account, name)

    def _listed_of(self, account: str, name: str) -> frozenset[str]:
        if (account, name) not in self._shared:
            contracts = self._all.contracts_of.get(account, [])
            running = [each for each in contracts if not self._all.contracts[each].is_over]
            refs = [SubjectRef(Subject.ACCOUNT, account, account), *running]
            listed = (feature for each in refs for feature in self._all.conventions.listed(each, name))
            self._shared[account, name] = frozenset(listed)
        return self._shared[account, name]

    def _offered(self, ref: SubjectRef) -> frozenset[str]:
        """What a subject is entitled to: as was said; otherwise what the products are used for that its account uses."""
        said = self._listed(ref, FEATURES)
        if said:
            return said
        whose = SubjectRef(Subject.ACCOUNT, ref.account, ref.account) if ref.subject is Subject.USER else ref
        products = self._all.uses.get(whose, _NO_USE).products
        return frozenset(feature for product in products for feature in self._norms.offered.get(product, ()))

    def _activation(self, ref: SubjectRef) -> Measurement:
        steps = self._steps(ref)
        if not steps:
            return NotApplicable("there is no onboarding checklist")
        return Observed(len(self._done(ref, steps)) / len(steps))

    def _steps(self, ref: SubjectRef) -> Sequence[str]:
        account = SubjectRef(Subject.ACCOUNT, ref.account, ref.account)
        return self._all.conventions.listed(account if ref.subject is Subject.USER else ref, ONBOARDING_STEPS)

    def _done(self, ref: SubjectRef, steps: Sequence[str]) -> list[date]:
        """The days on which steps were done first, up to the first one that is not done."""
        use = self._all.uses.get(ref, _NO_USE)
        first = dict(zip(use.features, use.first_uses, strict=True))
        done: list[date] = []
        for step in steps:
            if step not in first:
                break
            done.append(first[step])
        return done

    # ------------------------------------------------------------ users

    def _of_user(self, ref: SubjectRef) -> Metrics:
        yield from self._of_everybody(ref)
        life = self._life(ref)
        yield "active_days_share_of_own", self._share_of_own(life)
        surprise = self._silence(ref)
        silent = Unknown("fewer than three gaps") if surprise is None else Observed(surprise)
        # Who is needed for the set-up alone lapses one day: that is no silence, from its first day on.
        yield "silence", _NOT_EXPECTED if ref in self.absent or self._is_for_setup(ref) else silent
        gap = self._gap(ref)
        yield "median_gap_days", Unknown("no gap yet") if gap is None else Observed(gap)
        yield "expected", Observed(0.0 if ref in self.absent else 1.0)
        yield "champion", Observed(1.0 if ref.key in self._champions(ref.account) else 0.0)
        if life.window_events < _EVENTS_FOR_TROUBLE:
            yield "trouble_share", Unknown("fewer than 20 events")
        else:
            yield "trouble_share", Observed(life.trouble_events / life.window_events)

    def _champions(self, account: str) -> frozenset[str]:
        """Who carries an account now."""
        if account not in self._carrying:
            now = self._activities_now(account)
            named = (SubjectRef(Subject.USER, account, each.user) for each in now)
            said = [self._all.conventions.flag(user, CHAMPION) for user in named]
            self._carrying[account] = champions_of(
                [msgspec.structs.replace(each, champion=flag) for each, flag in zip(now, said, strict=True)],
                self._all.thresholds,
            )
        return self._carrying[account]

    def _gap(self, ref: SubjectRef) -> float | None:
        if ref not in self._gaps:
            gaps = self._life(ref).gaps()
            self._gaps[ref] = float(median(gaps)) if gaps else None
        return self._gaps[ref]

    def _share_of_own(self, life: Life) -> Measurement:
        if life.first_on is None:
            return _NEVER
        window_start = self._all.as_of - timedelta(days=WINDOW_DAYS)
        days = (window_start - max(life.first_on, self._all.as_of - timedelta(days=BASELINE_DAYS))).days
        if days < _BASELINE_DAYS_MIN:
            return Unknown("fewer than eight weeks before the last four")
        baseline = life.count(BASELINE_DAYS, WINDOW_DAYS)
        if not baseline:
            return NotApplicable("no active day in the twelve weeks before the last four")
        return Observed(life.count(WINDOW_DAYS) / (baseline * WINDOW_DAYS / days))

    def _silence(self, ref: SubjectRef) -> float | None:
        life = self._life(ref)
        last_on = self._heard_on(life)
        if life.first_on is None or life.last_on is None or last_on is None or len(life.days) <= GAPS_MIN:
            return None
        gaps_total = float((life.last_on - life.first_on).days)
        silent = float((last_on - life.last_on).days)
        return silence(silent, len(life.days) - 1, gaps_total, usual_gap_days=self._norms.usual_gap_days)

    # ------------------------------------------------------------ accounts and subscriptions

    def _of_customer(self, ref: SubjectRef) -> Metrics:
        yield from self._of_everybody(ref)
        yield "cohort_position", self._cohort_position(ref)
        # Activity that names no user says nothing about people; none at all says that nobody was there.
        people = self._all.people.get(ref, People())
        is_of_people = self._has_users(ref) or not self._life(ref).days
        of_people = list(self._of_people(ref, people))
        if ref.subject is Subject.ACCOUNT:
            of_people += self._of_account(ref, people)
        for name, measurement in of_people:
            yield name, measurement if is_of_people else _NO_USERS

    def _has_users(self, ref: SubjectRef) -> bool:
        return any(self._life(user).days for user in self._members(ref))

    def _members(self, ref: SubjectRef) -> list[SubjectRef]:
        """The users of an account; those that were active on a subscription."""
        users = self._all.users_of.get(ref.account, [])
        return [user for user in users if ref.subject is Subject.ACCOUNT or ref.key in self._life(user).subscriptions]

    def _of_people(self, ref: SubjectRef, people: People) -> Metrics:
        active, seats = people.active, self._all.seats(ref)
        yield "active_users", Observed(float(active))
        means = [each.mean_seats for each in self._all.running(ref) if each.mean_seats is not None]
        held = sum(means)
        yield "seat_utilisation", Observed(active / held) if held and seats else _NO_SEATS
        yield "unused_seats", Observed(float(max(0, seats - active))) if seats else _NO_SEATS
        yield "cost_per_active_ratio", self._cost_ratio(seats, active)
        amount = self._all.monthly_amount(ref)
        yield "cost_per_active", amount if not isinstance(amount, Observed) else self._by_active(amount.value, active)
        yield "stickiness", _NO_ACTIVE_USER if people.stickiness is None else Observed(people.stickiness)
        is_anybody_expected = self.expected(ref) > 0 or people.median_days > 0
        yield "median_l28", Observed(people.median_days) if is_anybody_expected else NotApplicable("nobody is expected")
        yield "median_events", _NO_ACTIVE_USER if people.median_events is None else Observed(people.median_events)
        for name in ("power_users", "core_users", "casual_users"):
            yield name, Observed(float(getattr(people, name)))
        yield "several_devices_share", Observed(people.several_devices / active) if active else _NO_ACTIVE_USER
        began_on = self._all.began_on(ref)
        if began_on is None or (self._all.as_of - began_on).days < 2 * WINDOW_DAYS:
            yield "growth_users", Unknown("fewer than eight weeks since it began")
        else:
            yield "growth_users", Observed(log(active + 0.5) - log(people.active_before + 0.5))

    def _cost_ratio(self, seats: int | None, active: int) -> Measurement:
        if not seats:
            return _NO_SEATS
        # What is paid for cancels out: amount / active by amount / seats.
        return self._by_active(float(seats), active)

    def _by_active(self, amount: float, active: int) -> Measurement:
        return Observed(amount / active) if active else Unknown("no active user")

    def _of_account(self, ref: SubjectRef, people: People) -> Metrics:
        few = people.active < _USERS_FOR_SHARES or people.top_share is None
        yield "top_share", NotApplicable("fewer than three active users") if few else Observed(people.top_share or 0.0)
        yield "effective_users", _NO_ACTIVE_USER if people.effective is None else Observed(people.effective)
        yield "bus_factor", Observed(float(people.bus_factor)) if people.active else _NO_ACTIVE_USER
        yield (
            "gini",
            NotApplicable("fewer than two users, or no usage") if people.gini is None else Observed(people.gini),
        )
        yield from self._lifecycle(ref, people)
        users = self._all.users_of.get(ref.account, [])
        yield "dormant_users", Observed(float(sum(self._is_dormant(user) for user in users)))
        provisioned = self._provisioned.get(ref.account, [])
        never = sum(not self._life(user).days for user in provisioned)
        yield "never_used_users", Observed(float(never)) if provisioned else Unknown("nobody said who has access")
        yield "usage_interval_days", self._usage_interval(users)
        yield "champion_lost", self._champion_lost(ref, users)

    def _lifecycle(self, ref: SubjectRef, people: People) -> Metrics:
        start = self._all.as_of - timedelta(days=WINDOW_DAYS)
        firsts = [self._life(user).first_on for user in self._all.users_of.get(ref.account, [])]
        new = sum(first_on is not None and first_on >= start for first_on in firsts)
        yield "users_new", Observed(float(new))
        yield "users_retained", Observed(float(people.retained))
        yield "users_resurrected", Observed(float(people.active - people.retained - new))
        yield "users_dormant", Observed(float(people.active_before - people.retained))

    def _is_dormant(self, user: SubjectRef) -> bool:
        life = self._life(user)
        return bool(life.days) and not life.count(WINDOW_DAYS) and user not in self.absent

    def _usage_interval(self, users: Sequence[SubjectRef]) -> Measurement:
        gaps = [gap for user in users if (gap := self._gap(user)) is not None]
        if not gaps:
            return Unknown("no user came twice")
        covering = (days for days in INTERVALS if sum(gap <= days for gap in gaps) >= _INTERVAL_SHARE * len(gaps))
        return Observed(float(next(covering, INTERVALS[-1])))

    def _champion_lost(self, ref: SubjectRef, users: Sequence[SubjectRef]) -> Measurement:
        before = self._activities(users, is_before=True)
        now = self._activities_now(ref.account)
        lost = champions_lost(ref.account, before, now, as_of=self._all.as_of, thresholds=self._all.thresholds)
        return Observed(1.0, users=tuple(str(each.evidence["user"]) for each in lost)) if lost else Observed(0.0)

    def _activities_now(self, account: str) -> list[UserActivity]:
        if account not in self._now:
            self._now[account] = self._activities(self._all.users_of.get(account, []), is_before=False)
        return self._now[account]

    def _activities(self, users: Sequence[SubjectRef], *, is_before: bool) -> list[UserActivity]:
        """Users as they are, or as they were a window ago."""
        as_of = self._all.as_of - timedelta(days=WINDOW_DAYS if is_before else 0)
        found = []
        for user in users:
            life, use = self._life(user), self._all.uses.get(user, _NO_USE)
            if life.first_on is None or life.first_on >= as_of:
                continue
            found.append(
                UserActivity(
                    user=user.key,
                    active_days=life.count(2 * WINDOW_DAYS, WINDOW_DAYS) if is_before else life.count(WINDOW_DAYS),
                    tenure_days=(as_of - life.first_on).days,
                    features=use.used_before if is_before else len(use.used),
                    silence=None if is_before else self._silence(user),
                    deprovisioned=not is_before and bool(self._all.conventions.flag(user, DEPROVISIONED)),
                    champion=self._all.champions_before.get(user) if is_before else None,
                    expected=user not in self.absent,
                )
            )
        return found

    def _cohort_position(self, ref: SubjectRef) -> Measurement:
        began_on = self._all.began_on(ref)
        if began_on is None:
            return _NEVER
        age_days = (self._all.as_of - began_on).days
        if not 0 < age_days <= COHORT_DAYS:
            return NotApplicable("older than 90 days")
        place = self._norms.place(ref.subject.value, age_days, len(self._life(ref).ages(began_on, age_days)))
        return Unknown("too few others of the same age") if place is None else Observed(place)

    def _time_to_value(self, ref: SubjectRef) -> Measurement:
        core, began_on = self._listed(ref, CORE_FEATURES), self._all.began_on(ref)
        if not core:
            return _NO_CORE
        if began_on is None:
            return _NEVER
        use = self._all.uses.get(ref, _NO_USE)
        firsts = [first for name, first in zip(use.features, use.first_uses, strict=True) if name in core]
        if not firsts:
            return Unknown(f"not yet, after {(self._all.as_of - began_on).days} days")
        return Observed(float(max(0, (min(firsts) - began_on).days)))

    # ------------------------------------------------------------ what statements are given

    def onboarded_on(self, ref: SubjectRef) -> date | None:
        """The first day after the onboarding of an account or a subscription: when every step was done, or its days are over."""
        began_on = self._all.began_on(ref)
        if began_on is None:
            return None
        ends = [began_on + timedelta(days=self._all.conventions.onboarding_days(ref))]
        steps = self._steps(ref)
        done = self._done(ref, steps)
        if steps and len(done) == len(steps):
            ends.append(max(done) + timedelta(days=1))
        return min(ends)

    def weeks(self, ref: SubjectRef) -> int:
        """How many whole weeks before the day tell how a subject usually is."""
        start = self._life(ref).first_on if ref.subject is Subject.USER else self.onboarded_on(ref)
        earliest = self._all.as_of - timedelta(days=BASELINE_DAYS)
        return 0 if start is None else max(0, (self._all.as_of - max(start, earliest)).days // 7)

    def _is_done_with_setup(self, user: SubjectRef) -> bool:
        return not self._life(user).count(WINDOW_DAYS) and self._is_for_setup(user)

    def _is_for_setup(self, user: SubjectRef) -> bool:
        """Whether a user was there for the set-up: by its role, or by what it did up to the end of the onboarding."""
        life = self._life(user)
        if life.last_on is None:
            return False
        if self._all.conventions.is_for_setup(user):
            return True
        if life.setup_events < _SETUP_SHARE * life.events:
            return False
        onboarded_on = self.onboarded_on(SubjectRef(Subject.ACCOUNT, user.account, user.account))
        return onboarded_on is not None and life.last_on < onboarded_on + _SETUP_GRACE

    def expected(self, ref: SubjectRef) -> int:
        """How many users are expected: seats less those who are done with the set-up.

        Where no seats are sold: who was there in the last 16 weeks; if nobody was, whoever was before.
        """
        seats = self._all.seats(ref)
        users = self._members(ref)
        if seats is not None:
            gone = [user for user in users if user in self._benign]
            return max(0, seats - len(gone))
        since = self._all.as_of - timedelta(days=BASELINE_DAYS)
        lasts = [last_on for user in users if user not in self.absent and (last_on := self._life(user).last_on)]
        return sum(last_on >= since for last_on in lasts) or len(lasts)


def _share(use: FeatureUse, of: frozenset[str]) -> Measurement:
    return Observed(len(of & set(use.used)) / len(of))


def metrics_of(found: Metrics) -> Mapping[str, Measurement]:
    """Metrics by name."""
    return dict(found)
