"""What happens in the demo: a year of usage events of the `cast`, ending where the caller says.

Pure: the same end and seed give the same bytes in every run and on every machine. Hence only `Random.random` is asked
(the one draw Python promises to keep), floats are added by `fsum` (`sum` rounds by version), none goes through the C
library's mathematics, and no set is walked.
"""

import datetime as dt
import random
import zlib
from collections.abc import Callable, Container, Iterator
from functools import lru_cache, partial
from math import fsum
from typing import Final, NotRequired, TypedDict

import msgspec

from metering.demo.cast import (
    APP_VERSIONS,
    CLOUD_REGIONS,
    CUSTOMERS,
    FAMILY,
    FEATURE_CLASSIFICATIONS,
    FEATURE_LAUNCH_DAY,
    FEATURES,
    MACHINE_NAMES,
    PATTERNS,
    PEAK_HOURS,
    PLANS,
    QUANTITY_CHOICES,
    SILENT_TEAM,
    TIMED_FEATURES,
    WEEKEND,
    ZONES,
    Customer,
    Feature,
    Phone,
    Seat,
    scaled,
    written,
)

YEAR_DAYS: Final = 365
DEMO_EVENTS_ABOUT: Final = 461_000
"""Roughly how many events a year has; the weekdays and holidays it begins and ends with move the count a little."""


class UsageEventFields(TypedDict):
    """An event of the ingest contract, ready to be encoded as JSON. What has no value is left out."""

    id: str
    source: str
    occurred_at: str
    account: str
    subscription: str
    user: NotRequired[str]
    device: NotRequired[str]
    product: str
    feature: str
    classification: NotRequired[str]
    unit: str
    quantity: str
    attributes: NotRequired[dict[str, str]]


class _Day(msgspec.Struct, frozen=True):
    """A UTC day of the demo's year, counted from 0."""

    index: int
    date: dt.date
    text: str


_Course = Callable[[_Day], Iterator[UsageEventFields]]
"""An account's part of the story: its events of a day, asked day after day."""


def demo_events(
    through: dt.date, *, seed: int = 2013, accounts: Container[str] | None = None
) -> Iterator[UsageEventFields]:
    """The events of the 365 days before `through` (exclusive, UTC), day by day, all accounts of a day together.

    Those of some accounts alone are the same as among all.
    """
    first_date = through - dt.timedelta(days=YEAR_DAYS)
    makers: dict[str, Callable[[], _Course]] = {
        customer.account: partial(_customer_course, customer, through, seed) for customer in CUSTOMERS
    }
    makers[SILENT_TEAM.account] = partial(_team_course, through, seed)
    makers[FAMILY.account] = partial(_family_course, through, seed)
    courses = [make() for account, make in makers.items() if accounts is None or account in accounts]
    for index in range(YEAR_DAYS):
        date = first_date + dt.timedelta(days=index)
        day = _Day(index, date, date.isoformat())
        for course in courses:
            yield from course(day)


# ---------------------------------------------------------------- one event

_MINUTES: Final = tuple(f"T{hour:02d}:{minute:02d}:" for hour in range(24) for minute in range(60))
_SECONDS: Final = tuple(f"{second:02d}." for second in range(60))
_MILLISECONDS: Final = tuple(f"{millisecond:03d}Z" for millisecond in range(1000))


def _run_name(account: str, through: dt.date, seed: int) -> str:
    """What an account's ids begin with. It holds the end of the year: a demo made on another day is other events."""
    return f"{zlib.crc32(f'{account}/{through.isoformat()}/{seed}'.encode()):08x}"


def _dice(account: str, seed: int) -> random.Random:
    """The account's own chance, so that a change to one account leaves the others as they were."""
    return random.Random(f"{seed}/{account}")  # noqa: S311 - a story, not a secret


def _template(
    feature: Feature,
    *,
    account: str,
    subscription: str,
    source: str,
    user: str | None = None,
    device: str | None = None,
    classification: str | None = None,
    attributes: dict[str, str] | None = None,
) -> UsageEventFields:
    """An event but for its id, time and quantity: `_event` copies it, which is faster than building each anew."""
    template: UsageEventFields = {
        "id": "",
        "source": source,
        "occurred_at": "",
        "account": account,
        "subscription": subscription,
        "product": feature.product,
        "feature": feature.name,
        "unit": feature.unit,
        "quantity": "",
    }
    if user is not None:
        template["user"] = user
    if device is not None:
        template["device"] = device
    if classification is not None:
        template["classification"] = classification
    if attributes is not None:
        template["attributes"] = attributes
    return template


def _event(
    template: UsageEventFields, run: str, number: int, day: _Day, minute: float, quantity: str
) -> UsageEventFields:
    """A template with its id, its time (`minute` of the UTC day, with a fraction) and its quantity."""
    whole = int(minute)
    second, millisecond = divmod(int((minute - whole) * 60_000), 1000)
    event = template.copy()
    event["id"] = f"{run}-{day.index}-{number}"
    event["occurred_at"] = day.text + _MINUTES[whole] + _SECONDS[second] + _MILLISECONDS[millisecond]
    event["quantity"] = quantity
    return event


def _classification(feature: Feature, *, peak: bool) -> str | None:
    """What kind of usage an ordinary event of a feature is."""
    if feature.name in TIMED_FEATURES:
        return "peak" if peak else "off_peak"
    return FEATURE_CLASSIFICATIONS.get(feature.name, "billable")


# ---------------------------------------------------------------- the hours of a day

_SLOT_MINUTES: Final = 30  # half an hour, for India's sake
_WHEEL_SLOTS: Final = 512


class _Rhythm(msgspec.Struct, frozen=True):
    """How a UTC day is used by people with a clock of their own."""

    volume: float  # 1 is an ordinary working day
    wheel: tuple[int, ...]  # the minutes at which busy half hours begin, each as often as it is busy
    peak: frozenset[int]  # those of them within peak hours; only ever asked, never walked


@lru_cache(maxsize=64)
def _rhythm(zone_name: str, pattern: str, date: dt.date) -> _Rhythm:
    """The rhythm of a UTC day, which holds parts of two local days."""
    zone, one_day = ZONES[zone_name], dt.timedelta(days=1)
    quiet = (1.0, 1.0, 1.0)  # machines know no holidays
    if pattern != "machines":
        quiet = (zone.quiet(date - one_day), zone.quiet(date), zone.quiet(date + one_day))
    return _rhythm_of_kind(pattern, zone.offset_minutes(date), date.weekday(), quiet)


@lru_cache(maxsize=2048)
def _rhythm_of_kind(pattern: str, offset_minutes: int, weekday: int, quiet: tuple[float, float, float]) -> _Rhythm:
    """Days of the same kind share their rhythm; there are far fewer kinds than days."""
    workday, weekend = PATTERNS[pattern]
    weights: list[float] = []
    peak: list[int] = []
    for start in range(0, 24 * 60, _SLOT_MINUTES):
        days, minute = divmod(start + offset_minutes, 24 * 60)
        working = (weekday + days) % 7 not in WEEKEND
        weights.append(int((workday if working else weekend)[minute // 60]) * quiet[days + 1])
        if working and minute // 60 in PEAK_HOURS:
            peak.append(start)
    total = fsum(weights)
    wheel: list[int] = []
    reached = 0.0
    for slot, weight in enumerate(weights):
        reached += weight
        wheel += [slot * _SLOT_MINUTES] * (int(reached / total * _WHEEL_SLOTS + 0.5) - len(wheel))
    ordinary = sum(int(digit) for digit in workday) * 60 / _SLOT_MINUTES
    return _Rhythm(total / ordinary, tuple(wheel), frozenset(peak))


# ---------------------------------------------------------------- the crowd

_LINES: Final = 64
_MACHINES_SHARE: Final = 0.3  # of the events of a customer which has any
_JOINERS_SHARE: Final = 0.15  # of a customer's people come during the year
_LEAVERS_SHARE: Final = 0.12  # ... and leave
_TELLERS_SHARE: Final = 0.25  # of the people have an app which tells its version
_SETTLED_PEOPLE: Final = 2  # the most eager of each customer neither come nor leave


class _Line(msgspec.Struct, frozen=True):
    """A thing someone does: its event within and outside peak hours, and the quantities to choose from."""

    peak: UsageEventFields
    off_peak: UsageEventFields
    quantities: tuple[str, ...]


class _Actor(msgspec.Struct, frozen=True, kw_only=True):
    """A person or a machine of a customer."""

    pattern: str
    daily_events: float
    presence: float  # the chance of being there on a day
    start_day: int
    end_day: int  # exclusive
    away_from: int  # two weeks of holiday
    lines: tuple[_Line, ...]
    lines_before_launch: tuple[_Line, ...]


class _Play(msgspec.Struct, frozen=True, kw_only=True):
    """A customer with all it needs to act, day after day."""

    customer: Customer
    run: str
    dice: random.Random
    actors: tuple[_Actor, ...]
    start_day: int
    end_day: int  # exclusive
    launch_day: int


def _customer_course(customer: Customer, through: dt.date, seed: int) -> _Course:
    """A customer of the crowd, from the day it joined to the day it left."""
    dice = _dice(customer.account, seed)
    contract_age_days = (through - SILENT_TEAM.contract_start(through)).days
    play = _Play(
        customer=customer,
        run=_run_name(customer.account, through, seed),
        dice=dice,
        actors=(*_people(customer, dice), *_machines(customer, dice)),
        start_day=0 if customer.joined_days_ago is None else YEAR_DAYS - customer.joined_days_ago,
        end_day=YEAR_DAYS if customer.left_days_ago is None else YEAR_DAYS - customer.left_days_ago,
        launch_day=YEAR_DAYS - contract_age_days + FEATURE_LAUNCH_DAY,
    )
    return partial(_customer_day, play)


def _customer_day(play: _Play, day: _Day) -> Iterator[UsageEventFields]:
    """What a customer does on a day."""
    if not play.start_day <= day.index < play.end_day:
        return
    chance = play.dice.random
    volume = _volume(play, day.index) * (0.85 + 0.3 * chance())
    trial = day.index < play.start_day + play.customer.trial_days
    number = 0
    for actor in play.actors:
        if chance() >= actor.presence or not _there(actor, day.index):
            continue
        rhythm = _rhythm(play.customer.zone, actor.pattern, day.date)
        lines = actor.lines if day.index >= play.launch_day else actor.lines_before_launch
        for _ in range(int(actor.daily_events * volume * rhythm.volume / actor.presence + chance())):
            start = rhythm.wheel[int(chance() * _WHEEL_SLOTS)]
            line = lines[int(chance() * _LINES)]
            template = line.peak if start in rhythm.peak else line.off_peak
            quantity = line.quantities[int(chance() * QUANTITY_CHOICES)]
            event = _event(template, play.run, number, day, start + chance() * _SLOT_MINUTES, quantity)
            if trial:
                event["classification"] = "trial"
            number += 1
            yield event


def _volume(play: _Play, index: int) -> float:
    """How large a customer is on a day: it grows or declines, starts slowly, and fades before it leaves."""
    volume = 1 + play.customer.growth_percent / 100 * (index / YEAR_DAYS - 0.5)
    if play.start_day > 0:
        volume *= min(1.0, (index - play.start_day + 7) / 30)
    if play.end_day < YEAR_DAYS:
        volume *= min(1.0, (play.end_day - index) / 60)
    return volume


def _there(actor: _Actor, index: int) -> bool:
    """Whether an actor is with the customer, and not on holiday, on a day."""
    return actor.start_day <= index < actor.end_day and not actor.away_from <= index < actor.away_from + 14


def _people(customer: Customer, dice: random.Random) -> Iterator[_Actor]:
    """The people of a customer: a few do most, some come or leave during the year."""
    share = 1 - (_MACHINES_SHARE if customer.machines else 0)
    eagerness = [1 / (rank + 2) for rank in range(customer.people)]
    names = customer.names(int(100 * dice.random()), int(100 * dice.random()))
    for rank, (name, nickname) in enumerate(names):
        moves, when = dice.random(), int(YEAR_DAYS * dice.random())
        settled = rank < _SETTLED_PEOPLE
        lines, earlier = _person_lines(customer, f"{name}@{customer.account}.example", nickname, dice)
        yield _Actor(
            pattern=customer.pattern,
            daily_events=customer.daily_events * share * eagerness[rank] / fsum(eagerness),
            presence=max(0.4, 0.97 - 0.04 * rank),
            start_day=when if not settled and moves < _JOINERS_SHARE else 0,
            end_day=when if not settled and moves > 1 - _LEAVERS_SHARE else YEAR_DAYS,
            away_from=int(YEAR_DAYS * dice.random()),
            lines=lines,
            lines_before_launch=earlier,
        )


def _person_lines(
    customer: Customer, user: str, nickname: str, dice: random.Random
) -> tuple[tuple[_Line, ...], tuple[_Line, ...]]:
    """What a person does, at a desk and on the way; and the same before `timeline` was launched."""
    products = customer.products.split()
    deck = [feature for feature in FEATURES if feature.product in products for _ in range(feature.people)]
    version = APP_VERSIONS[int(dice.random() * len(APP_VERSIONS))]
    attributes = {"app_version": version} if dice.random() < _TELLERS_SHARE else None

    @lru_cache
    def line(feature: Feature, *, at_desk: bool) -> _Line:
        if feature.product == "api":
            return _line(customer, feature, source="cairn-api", user=user)
        if at_desk:
            return _line(customer, feature, source="cairn-web", user=user, device=f"{nickname}-laptop")
        device = f"{nickname}-phone"
        return _line(customer, feature, source="cairn-app", user=user, device=device, attributes=attributes)

    does = [deck[int(dice.random() * len(deck))] for _ in range(_LINES)]
    at_desk = [dice.random() * 100 < feature.desk_percent for feature in does]
    tasks = next(feature for feature in FEATURES if feature.name == "tasks")
    did = [tasks if feature.name == "timeline" else feature for feature in does]
    return (
        tuple(line(feature, at_desk=desk) for feature, desk in zip(does, at_desk, strict=True)),
        tuple(line(feature, at_desk=desk) for feature, desk in zip(did, at_desk, strict=True)),
    )


def _line(
    customer: Customer,
    feature: Feature,
    *,
    source: str,
    user: str | None = None,
    device: str | None = None,
    attributes: dict[str, str] | None = None,
) -> _Line:
    """One thing a person or a machine does."""
    plan = next(plan for more_than, plan in PLANS if customer.people > more_than)
    peak, off_peak = (
        _template(
            feature,
            account=customer.account,
            subscription=f"{customer.account}-{feature.product}-{plan}",
            source=source,
            user=user,
            device=device,
            classification=customer.classification or _classification(feature, peak=at_peak),
            attributes=attributes,
        )
        for at_peak in (True, False)
    )
    return _Line(peak, off_peak, feature.quantities())


def _machines(customer: Customer, dice: random.Random) -> Iterator[_Actor]:
    """The machines of a customer: they have no user, and every second integration names no device either."""
    kinds = [product for product in customer.products.split() if product in MACHINE_NAMES]
    for rank in range(customer.machines):
        product, number = kinds[rank % len(kinds)], rank // len(kinds) + 1
        deck = [feature for feature in FEATURES if feature.product == product for _ in range(feature.machines)]
        line = lru_cache(
            partial(
                _line,
                customer,
                source="cairn-api" if product == "api" else "cairn-edge",
                device=None if product == "api" and number % 2 else f"{MACHINE_NAMES[product]}-{number:02d}",
                attributes={"region": CLOUD_REGIONS[ZONES[customer.zone].region]} if product == "storage" else None,
            )
        )
        lines = tuple(line(deck[int(dice.random() * len(deck))]) for _ in range(_LINES))
        yield _Actor(
            pattern="machines",
            daily_events=customer.daily_events * _MACHINES_SHARE / customer.machines,
            presence=1.0,
            start_day=0,
            end_day=YEAR_DAYS,
            away_from=YEAR_DAYS,
            lines=lines,
            lines_before_launch=lines,
        )


# ---------------------------------------------------------------- the team that falls silent

_OUTDOORS_DESK_PERCENT: Final = 50  # what is done at a desk less often than this, the team does on the phone


class _TeamPlay(msgspec.Struct, frozen=True, kw_only=True):
    """The silent team with all it needs to act. It knows no holidays: whatever its end, the story reads the same."""

    run: str
    dice: random.Random
    start: dt.date
    templates: dict[tuple[str, str], tuple[UsageEventFields, tuple[str, ...]]]  # by user and feature


def _team_course(through: dt.date, seed: int) -> _Course:
    """The silent team, from the first day of its contract."""
    features = [feature for feature in FEATURES if feature.product == SILENT_TEAM.product]
    play = _TeamPlay(
        run=_run_name(SILENT_TEAM.account, through, seed),
        dice=_dice(SILENT_TEAM.account, seed),
        start=SILENT_TEAM.contract_start(through),
        templates={
            (seat.user, feature.name): (_seat_template(seat, feature), feature.quantities())
            for seat in SILENT_TEAM.seats
            for feature in features
        },
    )
    return partial(_team_day, play)


def _seat_template(seat: Seat, feature: Feature) -> UsageEventFields:
    """What a seat does with a feature: on the phone what is done outdoors, at the desk the rest."""
    at_desk = feature.desk_percent >= _OUTDOORS_DESK_PERCENT
    nickname = seat.user.partition(".")[0]
    return _template(
        feature,
        account=SILENT_TEAM.account,
        subscription=SILENT_TEAM.subscription,
        source="cairn-web" if at_desk else "cairn-app",
        user=seat.user,
        device=f"{nickname}-laptop" if at_desk else f"{nickname}-phone",
        classification=_classification(feature, peak=True),
    )


def _team_day(play: _TeamPlay, day: _Day) -> Iterator[UsageEventFields]:
    """What the team does on a day, seat by seat, each along its path through the product."""
    contract_day = (day.date - play.start).days
    if contract_day < 0 or day.date.weekday() in WEEKEND:
        return
    chance = play.dice.random
    opening = 8 * 60 - ZONES[SILENT_TEAM.zone].offset_minutes(day.date)
    number = 0
    for seat in SILENT_TEAM.seats:
        if seat.last_day is not None and contract_day > seat.last_day:
            continue
        phase = [phase for phase in seat.phases if phase.first_day <= contract_day][-1]
        if chance() * 10 >= phase.days_of_ten and contract_day != seat.last_day:
            continue
        count = int(phase.daily_events * (0.8 + 0.4 * chance()))
        for step, minute in enumerate(sorted(opening + 570 * chance() for _ in range(count))):
            feature = phase.path[step % len(phase.path) if phase.steady else int(chance() * len(phase.path))]
            template, quantities = play.templates[seat.user, feature]
            yield _event(template, play.run, number, day, minute, quantities[int(chance() * QUANTITY_CHOICES)])
            number += 1


# ---------------------------------------------------------------- the family and its bill


class _FamilyUse(msgspec.Struct, frozen=True):
    """One event of the family, but for its name."""

    template: UsageEventFields
    minute: float
    quantity: str


def _family_course(through: dt.date, seed: int) -> _Course:
    """The family. Each month is written as a whole, so that the months differ by the story and not by chance."""
    by_date: dict[dt.date, list[_FamilyUse]] = {}
    dice = _dice(FAMILY.account, seed)
    jump_start, _ = FAMILY.jump_month(through)
    month = (through - dt.timedelta(days=YEAR_DAYS)).replace(day=1)
    while month < through:
        end = (month + dt.timedelta(days=31)).replace(day=1)
        for phone in FAMILY.phones:
            jumps = month == jump_start and phone.device == FAMILY.jumping_device
            for date, use in _phone_month(phone, month, end, dice, jumps=jumps):
                by_date.setdefault(date, []).append(use)
        month = end
    return partial(_family_day, _run_name(FAMILY.account, through, seed), by_date)


def _family_day(run: str, by_date: dict[dt.date, list[_FamilyUse]], day: _Day) -> Iterator[UsageEventFields]:
    """What the family does on a day."""
    for number, use in enumerate(by_date.get(day.date, ())):
        yield _event(use.template, run, number, day, use.minute, use.quantity)


def _phone_month(
    phone: Phone, start: dt.date, end: dt.date, dice: random.Random, *, jumps: bool
) -> Iterator[tuple[dt.date, _FamilyUse]]:
    """What a phone uses in a month: about the same as ever, and in the month of the jump the jump on top."""
    for feature in FEATURES:
        if feature.product != FAMILY.product:
            continue
        ordinary, places = scaled(phone.monthly()[feature.name])
        total = (ordinary * (980 + int(41 * dice.random())) + 500) // 1000
        if jumps:
            total += scaled(FAMILY.jump.get(feature.name, "0"))[0]
        off_peak, peak = (_phone_template(phone, feature, peak=at_peak) for at_peak in (False, True))
        for part in _parts(total, feature, dice):
            date = start + dt.timedelta(days=int(dice.random() * (end - start).days))
            rhythm = _rhythm(FAMILY.zone, FAMILY.pattern, date)
            slot = rhythm.wheel[int(dice.random() * _WHEEL_SLOTS)]
            minute = slot + dice.random() * _SLOT_MINUTES
            yield date, _FamilyUse(peak if slot in rhythm.peak else off_peak, minute, written(part, places))


def _phone_template(phone: Phone, feature: Feature, *, peak: bool) -> UsageEventFields:
    """What a phone does with a feature."""
    return _template(
        feature,
        account=FAMILY.account,
        subscription=FAMILY.subscription,
        source="carrier",
        user=phone.user,
        device=phone.device,
        classification=_classification(feature, peak=peak),
    )


def _parts(total: int, feature: Feature, dice: random.Random) -> list[int]:
    """A total as parts of about the size of the feature's events; none is nothing, and together they are the total."""
    least, _ = scaled(feature.least)
    most, _ = scaled(feature.most)
    count = max(1, total // (least + (most - least) // 4))
    weights = [0.2 + dice.random() for _ in range(count)]
    sum_of_weights = fsum(weights)
    parts: list[int] = []
    reached, given = 0.0, 0
    for weight in weights:
        reached += weight
        upto = int(reached / sum_of_weights * (total - count) + 0.5)
        parts.append(1 + upto - given)
        given = upto
    return parts
