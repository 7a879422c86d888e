"""Lists that teams ask for: the subjects that a rule is about, page by page, each with its reasons and its account's figures.

A rule reads what was measured and scored on a day; PostgreSQL keeps to it and pages, and the reasons of a page's rows are
what the rule itself says of the same values (health/lists).
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from health.lists.conditions import Condition, Values, all_hold
from health.lists.rules import ACCOUNT_SCORE_LOWEST, QUIET_DAYS, Rule, reasons_of, with_warning_thresholds
from health.measurements import Observed
from metering.errors import InputIssue, InvalidInputError
from metering.health.customers import Customer, CustomerFilter
from metering.health.known import midnight_after
from metering.health.records import metrics_of
from metering.health.thresholds import read_thresholds_of
from metering.limits import Limits
from metering.reach import Reach
from metering.store.queries import sql
from metering.store.rule_paths import rule_paths
from metering.store.snapshot import Snapshot

# By these somebody of an account speaks with us; see docs/health.md.
_SPOKEN: Final = ("ticket", "nps", "csat", "ces", "touch")
# Before the first day on which everybody was scored, what was measured in so many days counts.
_MEASURED: Final = timedelta(days=7)


class ListPlace(msgspec.Struct, frozen=True):
    """Where a row stands: how many signs it shows, its rank (what is first is lowest), and whose it is."""

    signs: int
    rank: float | None
    account: str
    key: str


class ListAsked(msgspec.Struct, frozen=True):
    """A page of a list: as of a UTC day, so many rows, from behind a place on."""

    day: date
    first: int
    after: ListPlace | None = None


class Reason(msgspec.Struct, frozen=True):
    """Why a row is on a list: a metric with its value and threshold, and in words. `name` is of a feature, product or user."""

    metric: str
    words: str
    value: float | None = None
    threshold: float | None = None
    name: str | None = None


class ListedSubject(msgspec.Struct, frozen=True):
    """A row: whose it is, as of which day it was measured, which signs it shows, and why it is there."""

    customer: Customer
    key: str
    as_of: date
    place: ListPlace
    shown: tuple[bool, ...]
    reasons: tuple[Reason, ...]
    values: Values


class ListPage(msgspec.Struct, frozen=True):
    """A page, how many rows there are in all, and the days within which they were measured."""

    rows: tuple[ListedSubject, ...]
    total: int
    has_next: bool
    since: date


class CustomerFigures(msgspec.Struct, frozen=True):
    """An account's key figures. Amounts are of a month, by currency; the change of usage is a share, in four weeks."""

    score: float | None
    band: str
    seats: int | None
    renews_at: datetime | None
    usage_change: float | None
    amounts: Mapping[str, Decimal]


class SubscriptionAmount(msgspec.Struct, frozen=True):
    """What a subscription pays a month."""

    amount: Decimal
    currency_code: str


def shows_list(reach: Reach, rule: Rule) -> bool:
    """Whether a list is for somebody: scores are of whole accounts, and what is internal is for who sees everything."""
    return not reach.is_narrow and (reach.is_everything or not rule.is_internal)


async def rule_of_day(snapshot: Snapshot, rule: Rule, day: date, limits: Limits) -> Rule:
    """A rule with the thresholds of early warnings that were in force as a day ended; one statement where it has any.

    For who is bound to accounts with those that warnings start with: what the others are is not for them. Raises
    InvalidInputError for a day that cannot be asked for.
    """
    check_day(day, limits)
    if not rule.follows_warnings or not snapshot.reach.is_everything:
        return rule
    return with_warning_thresholds(rule, (await read_thresholds_of(snapshot, day)).thresholds)


async def list_subjects(
    snapshot: Snapshot, rule: Rule, chosen: CustomerFilter, asked: ListAsked, limits: Limits
) -> ListPage:
    """A page of the list of a rule. Two statements. Raises InvalidInputError for a day that cannot be asked for."""
    check_day(asked.day, limits)
    since = await scored_since(snapshot, asked.day)
    if not shows_list(snapshot.reach, rule) or (chosen.text is not None and "\0" in chosen.text):
        return ListPage((), 0, has_next=False, since=since)
    rows = await snapshot.fetch(sql("lists.list_subjects"), _arguments(snapshot.reach, rule, chosen, asked, since))
    found = [_listed(rule, row) for row in rows if row["key"] is not None]
    return ListPage(tuple(found[: asked.first]), rows[0]["subjects"], has_next=len(found) > asked.first, since=since)


def check_day(day: date, limits: Limits) -> None:
    """Raise InvalidInputError for a day that cannot be asked for."""
    if not limits.asked_from_min.date() <= day < limits.asked_to_max.date():
        message = f"This must be from {limits.asked_from_min:%F} on and before {limits.asked_to_max:%F}."
        raise InvalidInputError([InputIssue(("asOf",), message)])


async def scored_since(snapshot: Snapshot, day: date) -> date:
    """From which day on there is what was measured last of everybody, up to a day. One statement."""
    (scored,) = await snapshot.fetch(sql("lists.find_scored_day"), [day])
    since: date | None = scored["as_of"]
    return day - _MEASURED if since is None else since


async def read_figures(
    snapshot: Snapshot, accounts: Sequence[str], since: date, day: date
) -> dict[str, CustomerFigures]:
    """The key figures of accounts within reach, of what was measured from one day on and up to another. One statement."""
    rows = await snapshot.fetch(sql("lists.read_figures"), [accounts, since, day, midnight_after(day)])
    return {
        row["account"]: CustomerFigures(
            score=row["score"],
            band=row["band"],
            seats=row["seats"],
            renews_at=row["renews_at"],
            usage_change=row["usage_change"],
            amounts={} if row["amounts"] is None else _AMOUNTS.decode(row["amounts"]),
        )
        for row in rows
    }


async def read_amounts(snapshot: Snapshot, subscriptions: Sequence[str]) -> dict[str, SubscriptionAmount]:
    """What subscriptions within reach pay a month, where it was told. One statement."""
    rows = await snapshot.fetch(
        sql("subscriptions.list_subscriptions"), [subscriptions, None, None, len(subscriptions)]
    )
    return {
        row["key"]: SubscriptionAmount(row["monthly_amount"], row["currency_code"])
        for row in rows
        if row["monthly_amount"] is not None
    }


_AMOUNTS: Final = msgspec.json.Decoder(dict[str, Decimal])


def _arguments(reach: Reach, rule: Rule, chosen: CustomerFilter, asked: ListAsked, since: date) -> list[object]:
    accounts, _, _ = reach.arguments()
    paths, after = rule_paths(rule), asked.after
    return [
        *(accounts, rule.subject.value, since, asked.day, paths.of_metrics, paths.of_facts, paths.signs),
        *(paths.thresholds, rule.signs_min, rule.rank.metric, -1 if rule.rank.descending else 1),
        *(rule.reads(ACCOUNT_SCORE_LOWEST), rule.reads(QUIET_DAYS)),
        None if chosen.bands is None else [band for band in chosen.bands if "\0" not in band],
        *(chosen.attributes, chosen.text, chosen.renews_before),
        *((None, None, None, None) if after is None else (after.account, after.key, after.signs, after.rank)),
        *(asked.first + 1, midnight_after(asked.day), _SPOKEN),
    ]


def _listed(rule: Rule, row: Any) -> ListedSubject:
    metrics = metrics_of(row["facts"])
    values = {name: found.value for name, found in metrics.items() if isinstance(found, Observed)}
    conditions = reasons_of(rule, values)
    assert conditions is not None, "the rule says the same in PostgreSQL"
    return ListedSubject(
        customer=Customer(row["account"], row["name"], row["attributes"]),
        key=row["key"],
        as_of=row["as_of"],
        place=ListPlace(row["signs"], row["place"], row["account"], row["key"]),
        shown=tuple(all_hold(sign, values) for sign in rule.signs),
        reasons=tuple(_reason(each, values) for each in conditions),
        values=values,
    )


def _reason(condition: Condition, values: Values) -> Reason:
    return Reason(
        metric=condition.metric,
        words=condition.told(values),
        value=values.get(condition.metric),
        threshold=condition.threshold,
    )
