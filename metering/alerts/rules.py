"""Alert rules: what figure is looked at, of whom, in which periods, and from which bound on somebody is told.

Four measures: the figure of a meter, and rated amounts, by any dimensions in calendar periods; the share of an included
quantity, and what a subscription's statement comes to, in billing periods. A budget makes a share of an amount.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from metering.alerts.crossings import Bounds
from metering.errors import ConflictError, ForbiddenError, InputIssue, InvalidInputError
from metering.events import Dimension, in_utc
from metering.input_faults import name_issues
from metering.keys import Caller
from metering.limits import Limits
from metering.meters import both, filter_json, find_definitions
from metering.periods import Bucket, Period
from metering.questions import Question, ValueFilter, ask
from metering.store.pool import Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from rating.exact import plain
from rating.money import currency_of

_KEY_FORM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """Whose usage, and in which periods: calendar buckets cut in a zone, one figure for each combination of dimensions."""

    group_by: tuple[Dimension, ...]
    filters: dict[Dimension, ValueFilter]
    bucket: Bucket
    time_zone: str

    def question(self, period: Period, accounts: frozenset[str] | None, limits: Limits) -> Question:
        """The question about a period. Raises InvalidInputError with paths that lead from `query`."""
        filters = dict(self.filters)
        if accounts is not None:
            own, bound = filters.get(Dimension.ACCOUNT), ValueFilter(tuple(sorted(accounts)))
            filters[Dimension.ACCOUNT] = bound if own is None else both(own, bound)
        return ask(period=period, zone_name=self.time_zone, group_by=self.group_by, filters=filters, limits=limits)


class Quantity(msgspec.Struct, frozen=True, kw_only=True, tag="QUANTITY"):
    """What a meter shows."""

    meter: str
    slice: Slice


class Amount(msgspec.Struct, frozen=True, kw_only=True, tag="AMOUNT"):
    """What usage, and all else that statements hold, comes to; with a budget, as a share of it."""

    currency_code: str
    slice: Slice
    budget: Decimal | None = None


class IncludedShare(msgspec.Struct, frozen=True, kw_only=True, tag="INCLUDED_SHARE"):
    """Which share of what a subscription's plan includes of a meter is used in the billing period."""

    meter: str


class StatementTotal(msgspec.Struct, frozen=True, kw_only=True, tag="STATEMENT_TOTAL"):
    """What the statement of a subscription's billing period comes to, before credits; with a budget, as a share of it."""

    currency_code: str
    budget: Decimal | None = None


Measure = Quantity | Amount | IncludedShare | StatementTotal
# Who may not see amounts is not shown these.
OF_AMOUNTS: Final = ("AMOUNT", "STATEMENT_TOTAL")
OF_USAGE: Final = ("QUANTITY", "INCLUDED_SHARE")


class RuleDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule says."""

    measure: Measure
    bounds: Bounds


class RuleOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A rule as it is put."""

    key: str
    name: str
    definition: RuleDefinition
    # None means all.
    accounts: frozenset[str] | None = None
    enabled: bool = True


class AlertRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule as it is kept."""

    key: str
    name: str
    definition: RuleDefinition
    accounts: frozenset[str] | None
    enabled: bool
    revision: int
    # Why it cannot be evaluated now.
    fault: str | None
    # Every period that was over then was looked at; None where none was yet.
    evaluated_to: datetime | None
    created_at: datetime
    changed_at: datetime

    @property
    def measure_name(self) -> str:
        """Which of the four it is."""
        return measure_name(self.definition.measure)


def measure_name(measure: Measure) -> str:
    """Which of the four a measure is."""
    return str(type(measure).__struct_config__.tag)


async def put_rule(database: Database, order: RuleOrder, key: Caller, limits: Limits) -> AlertRule:
    """Make a rule, or change it: what was raised by what it said before is closed when it is evaluated next.

    Raises InvalidInputError with every fault; ForbiddenError for a key that is bound to accounts.
    """
    if key.accounts is not None:
        raise ForbiddenError(f"The key {key.prefix} is bound to accounts; an alert rule is the operator's.")
    issues = list(_issues(order, limits))
    if issues:
        raise InvalidInputError(issues)
    cells = (
        order.key,
        order.name,
        msgspec.json.encode(order.definition).decode(),
        None if order.accounts is None else sorted(order.accounts),
        order.enabled,
        key.signature,
    )
    async with database.transaction() as connection:
        meter = getattr(order.definition.measure, "meter", None)
        if meter is not None and meter not in await find_definitions(connection, [meter]):
            message = f"There is no meter {meter!r:.60}; put it first."
            raise InvalidInputError([InputIssue((*_path(order.definition.measure), "meter"), message)])
        row = await connection.fetchrow(sql("alert_rules.lock_rule"), order.key)
        if row is not None:
            return _rule(await connection.fetchrow(sql("alert_rules.change_rule"), *cells))
        if await connection.fetchval(sql("alert_rules.count_rules")) >= limits.alert_rules_max:
            raise ConflictError(f"There are {limits.alert_rules_max:,} alert rules, and there may be no more.")
        row = await connection.fetchrow(sql("alert_rules.insert_rule"), *cells)
    if row is None:
        raise ConflictError(f"The rule {order.key!r:.60} was made just now by somebody else.")
    return _rule(row)


async def read_rules(snapshot: Snapshot, first: int, after: str | None) -> tuple[list[AlertRule], bool]:
    """The `first` rules by key, from behind the key `after` on, within the snapshot's reach; and whether there are more."""
    arguments = [*snapshot.reach.arguments(), after, first + 1]
    rows = await snapshot.fetch(sql("alert_rules.list_rules"), arguments)
    return [_rule(row) for row in rows[:first]], len(rows) > first


def rules_of(rows: Sequence[Any]) -> list[AlertRule]:
    """Rows of the table `alert_rule`."""
    return [_rule(row) for row in rows]


def shown_measure(measure: Measure) -> dict[str, Any]:
    """A measure as the API takes it."""
    given: dict[str, Any] = {}
    if isinstance(measure, Quantity | IncludedShare):
        given["meter"] = measure.meter
    else:
        given["currencyCode"] = measure.currency_code
        given["budget"] = None if measure.budget is None else plain(measure.budget)
    if isinstance(measure, Quantity | Amount):
        cut = measure.slice
        given["groupBy"] = [dimension.name for dimension in cut.group_by]
        given["filter"] = filter_json(cut.filters)
        given |= {"bucket": cut.bucket.value, "timeZone": cut.time_zone}
    return {_FIELDS[type(measure)]: given}


# The fields of the API's input that the measures are.
_FIELDS: Final[dict[type, str]] = {
    Quantity: "quantity",
    Amount: "amount",
    IncludedShare: "includedShare",
    StatementTotal: "statementTotal",
}
_DEFINITION: Final = msgspec.json.Decoder(RuleDefinition)


def _rule(row: Any) -> AlertRule:
    return AlertRule(
        key=row["key"],
        name=row["name"],
        definition=_DEFINITION.decode(row["definition"]),
        accounts=None if row["accounts"] is None else frozenset(row["accounts"]),
        enabled=row["enabled"],
        revision=row["revision"],
        fault=row["fault"],
        evaluated_to=None if row["evaluated_to"] is None else in_utc(row["evaluated_to"]),
        created_at=in_utc(row["created_at"]),
        changed_at=in_utc(row["changed_at"]),
    )


# ---------------------------------------------------------------- faults


def _path(measure: Measure) -> tuple[str, ...]:
    return ("input", "measure", _FIELDS[type(measure)])


def _issues(order: RuleOrder, limits: Limits) -> Iterator[InputIssue]:
    if not _KEY_FORM.fullmatch(order.key) or len(order.key) > limits.name_chars_max:
        message = (
            f"A rule's key has 1 to {limits.name_chars_max} letters, digits and the signs _ . : - "
            "and begins with a letter or a digit; letters are those of ASCII."
        )
        yield InputIssue(("input", "key"), message)
    yield from name_issues(order.name, ("input", "name"), limits)
    if order.accounts is not None:
        if not 0 < len(order.accounts) <= limits.filter_values_max:
            message = f"A rule is about 1 to {limits.filter_values_max:,} accounts; leave them out for all."
            yield InputIssue(("input", "accounts"), message)
        for account in sorted(order.accounts):
            yield from name_issues(account, ("input", "accounts"), limits)
    bounds = order.definition.bounds
    for name, bound in (("threshold", bounds.threshold), ("resolveBelow", bounds.resolve_below)):
        yield from _number_issues(bound, ("input", name), limits)
    if bounds.resolve_below > bounds.threshold:
        message = "This must not be more than `threshold`: what was just raised would be resolved at once."
        yield InputIssue(("input", "resolveBelow"), message)
    yield from _measure_issues(order.definition.measure, limits)


def _measure_issues(measure: Measure, limits: Limits) -> Iterator[InputIssue]:
    path = _path(measure)
    if isinstance(measure, Amount | StatementTotal):
        if currency_of(measure.currency_code) is None:
            message = f"{measure.currency_code!r:.60} is no currency of ISO 4217 that has a minor unit."
            yield InputIssue((*path, "currencyCode"), message)
        if measure.budget is not None:
            yield from _number_issues(measure.budget, (*path, "budget"), limits)
    if isinstance(measure, Quantity | Amount):
        any_period = Period(limits.asked_from_min, limits.asked_to_max)
        try:
            measure.slice.question(any_period, None, limits)
        except InvalidInputError as error:
            yield from (InputIssue((*path, *issue.path[1:]), issue.message) for issue in error.issues)


def _number_issues(number: Decimal, path: tuple[str, ...], limits: Limits) -> Iterator[InputIssue]:
    whole_max = limits.quantity_digits_max - limits.quantity_fraction_digits_max
    # The exponent is looked at before the digits are written out: 1E+999999999 would be a gigabyte of zeros.
    fits = number > 0 and -limits.quantity_fraction_digits_max <= number.adjusted() < whole_max
    if not fits or len(plain(number).partition(".")[2]) > limits.quantity_fraction_digits_max:
        message = (
            f"This must be more than zero, with {whole_max} digits before the point and "
            f"{limits.quantity_fraction_digits_max} after it."
        )
        yield InputIssue(path, message)
