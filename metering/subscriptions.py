"""Subscriptions: who is on which plan, from when on, with how many seats; put as facts, read as rating needs them.

What billing periods are counted from stays as it was first put. Plan, version and seats are *terms*, which hold from an
instant on; a put that says others takes effect from an instant, which may be in the past or in the future, and what was put
for later no longer counts. All other facts are as they are now. Whatever is replaced stays on record, with who and when.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any, Final

import msgspec

from health.scorecards import Subject
from metering.attribute_facts import log_attributes, mark_dirty
from metering.errors import ConflictError, ForbiddenError, InputIssue, InvalidInputError, NotFoundError
from metering.events import in_utc
from metering.input_faults import attributes_issues, instant_issues, issues_of, name_issues
from metering.keys import Caller
from metering.limits import Limits
from metering.periods import zone_names, zone_of
from metering.plans import find_version, versions_of
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef
from rating import subscriptions as rating
from rating.exact import plain, remainder
from rating.faults import number_faults
from rating.money import currency_of
from rating.periods import instant_text
from rating.plans import Plan
from rating.subscriptions import PlanChoice, SeatChange, phases_of

_HUNDRED: Final = Decimal(100)


class SubscriptionOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription as it is put: all that it is to be; instants are UTC. What is None is not there."""

    key: str
    account: str
    plan: str
    # Keep to this version; None: the one that is in effect where a period begins.
    plan_version: int | None = None
    seats: int | None = None
    # From when on plan, version and seats are these, where they change.
    effective_at: datetime | None = None
    starts_at: datetime
    ends_at: datetime | None = None
    trial_ends_at: datetime | None = None
    renews_at: datetime | None = None
    # Where periods are counted from; None: where the subscription starts.
    billing_anchor: datetime | None = None
    time_zone: str = "UTC"
    monthly_amount: Decimal | None = None
    discount_percent: Decimal = Decimal(0)
    attributes: Mapping[str, Any] = {}

    @property
    def anchor(self) -> datetime:
        """Where periods are counted from."""
        return self.starts_at if self.billing_anchor is None else self.billing_anchor


class Terms(msgspec.Struct, frozen=True):
    """From an instant on: this plan, in this version or the one in effect, with so many seats (None: not said)."""

    since: datetime
    plan: str
    plan_version: int | None
    seats: int | None


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription of the catalog: facts as they are now, and the terms that hold, in order of time."""

    key: str
    account: str
    # Of its plans: amounts of one subscription are in one currency.
    currency_code: str
    starts_at: datetime
    time_zone: str
    billing_anchor: datetime
    ends_at: datetime | None
    trial_ends_at: datetime | None
    renews_at: datetime | None
    monthly_amount: Decimal | None
    discount_percent: Decimal
    # A JSON object.
    attributes: str
    created_at: datetime
    terms: tuple[Terms, ...]

    def terms_at(self, instant: datetime) -> Terms:
        """The terms at an instant; before it starts the first ones, after it ended the last that it had."""
        lived = [each for each in self.terms if self.ends_at is None or each.since < self.ends_at]
        return _holding(lived, instant) or self.terms[0]


class RatedSubscription(msgspec.Struct, frozen=True):
    """A subscription as rating takes it."""

    key: str
    account: str
    currency_code: str
    terms: rating.Subscription


# ---------------------------------------------------------------- looking up


async def find_subscription(snapshot: Snapshot, key: str) -> Subscription | None:
    """The subscription of this key, if there is one."""
    found, _ = await read_subscriptions(snapshot, 1, keys=[key])
    return found[0] if found else None


async def read_subscriptions(
    snapshot: Snapshot,
    first: int,
    after: str | None = None,
    *,
    keys: Collection[str] | None = None,
    accounts: Collection[str] | None = None,
) -> tuple[list[Subscription], bool]:
    """The `first` subscriptions by key, from behind the key `after` on; and whether there are more. Two statements.

    Of these keys and of these accounts, within the snapshot's reach; None means all. Contracts are no single user's.
    """
    reach = snapshot.reach
    if reach.user is not None:
        return [], False
    within = (reach.of_subscriptions(keys), reach.of_accounts(accounts))
    chosen = [None if texts is None else [text for text in texts if "\0" not in text] for texts in within]
    # One more than asked for tells whether there are more.
    rows = await snapshot.fetch(sql("subscriptions.list_subscriptions"), [*chosen, after, first + 1])
    page = rows[:first]
    terms = _terms_by_key(await snapshot.fetch(sql("subscriptions.list_terms"), [[row["key"] for row in page]]))
    return [_subscription(row, terms[row["key"]]) for row in page], len(rows) > first


async def subscriptions_of(
    snapshot: Snapshot, accounts: Collection[str], page_rows: int
) -> dict[str, list[Subscription]]:
    """All subscriptions of these accounts by account, each by key; read together, so many at a time."""
    found: dict[str, list[Subscription]] = {account: [] for account in accounts}
    after, more = None, True
    while more:
        page, more = await read_subscriptions(snapshot, page_rows, after, accounts=accounts)
        for each in page:
            found[each.account].append(each)
            after = each.key
    return found


async def read_rated(
    snapshot: Snapshot,
    first: int,
    after: str | None = None,
    *,
    until: datetime,
    keys: Collection[str] | None = None,
    accounts: Collection[str] | None = None,
) -> tuple[list[RatedSubscription], bool]:
    """A page of subscriptions as rating takes them: their phases in every billing period that begins before `until`.

    Three statements, however many subscriptions and plans there are.
    """
    page, has_more = await read_subscriptions(snapshot, first, after, keys=keys, accounts=accounts)
    versions = await versions_of(snapshot, {terms.plan for each in page for terms in each.terms})
    return [rated(each, versions, until) for each in page], has_more


def rated(subscription: Subscription, versions: Mapping[str, Sequence[Plan]], until: datetime) -> RatedSubscription:
    """A subscription as rating takes it, with the phases that follow from these versions of its plans. Pure."""
    bare = rating.Subscription(
        starts_at=subscription.starts_at,
        zone=zone_of(subscription.time_zone),
        phases=(),
        ends_at=subscription.ends_at,
        trial_ends_at=subscription.trial_ends_at,
        billing_anchor=subscription.billing_anchor,
        seats=tuple(SeatChange(each.since, each.seats or 0) for each in subscription.terms),
        discount_percent=subscription.discount_percent,
    )
    phases = phases_of(bare, choices_of(subscription.terms), versions, until)
    return RatedSubscription(
        subscription.key,
        subscription.account,
        subscription.currency_code,
        msgspec.structs.replace(bare, phases=phases),
    )


def choices_of(terms: Sequence[Terms]) -> tuple[PlanChoice, ...]:
    """The choices of a plan that terms are: seats alone choose nothing, so that no new version begins with them."""
    return tuple(
        PlanChoice(next(same).since, plan, version)
        for (plan, version), same in groupby(terms, key=lambda each: (each.plan, each.plan_version))
    )


# ---------------------------------------------------------------- putting


async def put_subscription(database: Database, order: SubscriptionOrder, key: Caller, limits: Limits) -> Subscription:
    """Put a subscription: make it, change it, or find it as it is, and return it as it then stands.

    Raises InvalidInputError with every fault; NotFoundError where there is no such plan or version; ConflictError where the
    subscription is there and starts otherwise, or is in another currency; ForbiddenError for a key that is bound to accounts.
    """
    if key.accounts is not None:
        raise ForbiddenError(f"The key {key.prefix} is bound to accounts; a subscription says what is owed.")
    issues = list(_issues(order, limits))
    if issues:
        raise InvalidInputError(issues)
    by = key.signature
    async with database.transaction() as connection:
        currency_code = await _currency(connection, order)
        row = await connection.fetchrow(
            sql("subscriptions.insert_subscription"),
            *(order.key, order.account, currency_code, order.starts_at, order.time_zone, order.anchor),
            *_facts(order).values(),
            by,
        )
        await mark_dirty(connection, order.account)
        if row is None:
            return await _put_again(connection, order, currency_code, by, limits)
        since = order.effective_at or order.starts_at
        await log_attributes(connection, _ref(order), order.attributes, by)
        return _subscription(row, await _put_terms(connection, order, [], since, by, row["created_at"]))


async def _currency(connection: Connection, order: SubscriptionOrder) -> str:
    """The currency of the plan that is put. Raises NotFoundError, and InvalidInputError for an amount it does not have."""
    plan = await find_version(connection, order.plan, order.plan_version)
    if plan is None:
        which = "plan" if order.plan_version is None else f"version {order.plan_version} of the plan"
        raise NotFoundError(f"There is no {which} {order.plan!r:.60}; publish it first.")
    currency = currency_of(plan.currency_code)
    assert currency is not None, "a plan is published in a currency with a minor unit"
    if order.monthly_amount is not None and remainder(order.monthly_amount, currency.quantum):
        message = (
            f"{plain(order.monthly_amount)} is no whole number of minor units ({currency.quantum} {currency.code})."
        )
        raise InvalidInputError([InputIssue(("input", "monthlyAmount"), message)])
    return plan.currency_code


async def _put_again(
    connection: Connection, order: SubscriptionOrder, currency_code: str, by: str, limits: Limits
) -> Subscription:
    row = await connection.fetchrow(sql("subscriptions.lock_subscription"), order.key)
    assert row is not None, "its key is taken, and subscriptions are not deleted"
    # Read when nobody else holds the lock any more: what is put later takes effect later.
    now = in_utc(await connection.fetchval(sql("subscriptions.read_clock")))
    known = _terms_by_key(await connection.fetch(sql("subscriptions.list_terms"), [order.key]))[order.key]
    _check_kept(order, currency_code, _subscription(row, known))
    since = _since(order, known, now)
    terms = known if since is None else await _put_terms(connection, order, known, since, by, now)
    if len(terms) > limits.subscription_terms_max:
        raise ConflictError(
            f"The plan or the seats of the subscription {order.key!r:.60} have changed {limits.subscription_terms_max:,} "
            "times; end it, and begin another one."
        )
    return _subscription(await _put_facts(connection, row, order, by, now), terms)


def _check_kept(order: SubscriptionOrder, currency_code: str, known: Subscription) -> None:
    """Periods are counted from what is kept, and statements are made of them; and amounts are in one currency."""
    kept = {
        "account": (known.account, order.account),
        "startsAt": (known.starts_at, order.starts_at),
        "billingAnchor": (known.billing_anchor, order.anchor),
        "timeZone": (known.time_zone, order.time_zone),
    }
    different = [name for name, (before, after) in kept.items() if before != after]
    if different:
        raise ConflictError(
            f"The subscription {order.key!r:.60} is there with another {', '.join(different)}. Billing periods are counted "
            "from these, so they stay; end the subscription, and begin another one."
        )
    if currency_code != known.currency_code:
        raise ConflictError(
            f"The plan {order.plan!r:.60} is in {currency_code}, and the subscription {order.key!r:.60} in "
            f"{known.currency_code}: amounts of one subscription are in one currency; end it, and begin another one."
        )


def _since(order: SubscriptionOrder, known: Sequence[Terms], now: datetime) -> datetime | None:
    """From when on the terms that are put hold; None where they hold then already. Raises InvalidInputError."""
    since = order.effective_at or max(now, order.starts_at)
    lived = [each for each in known if order.ends_at is None or each.since < order.ends_at]
    holding = _holding(lived, since)
    if holding is not None and _said(order, holding.since) == holding:
        return None
    if order.ends_at is not None and since >= order.ends_at:
        message = (
            f"The subscription ends at {instant_text(order.ends_at)}, and plan, version or seats are others than they were then; "
            "say from when on, or leave them as they were."
        )
        raise InvalidInputError([InputIssue(("input", "effectiveAt"), message)])
    return since


async def _put_terms(
    connection: Connection, order: SubscriptionOrder, known: Sequence[Terms], since: datetime, by: str, now: datetime
) -> tuple[Terms, ...]:
    terms = _said(order, since)
    if any(each.since >= since for each in known):
        await connection.execute(sql("subscriptions.replace_terms"), order.key, since, now, by)
    await connection.execute(
        sql("subscriptions.insert_terms"), order.key, since, terms.plan, terms.plan_version, terms.seats, now, by
    )
    return (*(each for each in known if each.since < since), terms)


async def _put_facts(connection: Connection, row: Any, order: SubscriptionOrder, by: str, now: datetime) -> Any:
    after = _facts(order)
    changed = [name for name in after if _comparable(name, row[name]) != _comparable(name, after[name])]
    if not changed:
        return row
    new = await connection.fetchrow(sql("subscriptions.change_facts"), order.key, *after.values(), now, by)
    assert new is not None, "it is locked, and subscriptions are not deleted"
    shown = [msgspec.json.encode({name: _recorded(name, facts[name]) for name in changed}) for facts in (row, new)]
    await connection.execute(sql("subscriptions.record_change"), order.key, now, by, *map(bytes.decode, shown))
    await log_attributes(connection, _ref(order), order.attributes, by)
    return new


def _ref(order: SubscriptionOrder) -> SubjectRef:
    return SubjectRef(Subject.SUBSCRIPTION, order.account, order.key)


def _facts(order: SubscriptionOrder) -> dict[str, Any]:
    """What may change, by its column, in the order of the statements."""
    return {
        "ends_at": order.ends_at,
        "trial_ends_at": order.trial_ends_at,
        "renews_at": order.renews_at,
        "monthly_amount": order.monthly_amount,
        "discount_percent": order.discount_percent,
        "attributes": msgspec.json.encode(order.attributes).decode(),
    }


def _comparable(name: str, value: Any) -> Any:
    return msgspec.json.decode(value) if name == "attributes" else value


def _recorded(name: str, value: Any) -> Any:
    return plain(value) if isinstance(value, Decimal) else _comparable(name, value)


def _said(order: SubscriptionOrder, since: datetime) -> Terms:
    return Terms(since, order.plan, order.plan_version, order.seats)


def _holding(terms: Sequence[Terms], instant: datetime) -> Terms | None:
    """The terms that hold at an instant; None before the first."""
    return next((each for each in reversed(terms) if each.since <= instant), None)


def _terms_by_key(rows: Sequence[Any]) -> dict[str, tuple[Terms, ...]]:
    return {
        key: tuple(Terms(in_utc(row["since"]), row["plan"], row["plan_version"], row["seats"]) for row in of_one)
        for key, of_one in groupby(rows, key=lambda row: row["subscription"])
    }


def _subscription(row: Any, terms: tuple[Terms, ...]) -> Subscription:
    cells = {name: row[name] for name in Subscription.__struct_fields__ if name != "terms"}
    instants = {name: in_utc(value) for name, value in cells.items() if isinstance(value, datetime)}
    return Subscription(**{**cells, **instants}, terms=terms)


# ---------------------------------------------------------------- faults


def _issues(order: SubscriptionOrder, limits: Limits) -> Iterator[InputIssue]:
    for name in ("key", "account", "plan"):
        yield from name_issues(getattr(order, name), ("input", name), limits)
    if order.plan_version is not None and order.plan_version < 1:
        yield InputIssue(("input", "planVersion"), "Versions are counted from 1.")
    if order.seats is not None and order.seats < 0:
        yield InputIssue(("input", "seats"), "There are no fewer seats than none.")
    if order.time_zone not in zone_names():
        yield InputIssue(("input", "timeZone"), f"{order.time_zone!r:.60} is not an IANA time zone.")
    yield from _instants_issues(order, limits)
    if order.monthly_amount is not None:
        yield from _amount_issues(order.monthly_amount, "monthlyAmount")
    yield from _amount_issues(order.discount_percent, "discountPercent")
    if order.discount_percent > _HUNDRED:
        yield InputIssue(("input", "discountPercent"), "A discount is 100 percent at most.")
    yield from attributes_issues(order.attributes, ("input", "attributes"), limits)


def _amount_issues(amount: Decimal, name: str) -> Iterator[InputIssue]:
    yield from issues_of(number_faults(amount, (name,)))
    if amount < 0:
        yield InputIssue(("input", name), "This is below zero.")


def _instants_issues(order: SubscriptionOrder, limits: Limits) -> Iterator[InputIssue]:
    instants = {
        "startsAt": order.starts_at,
        "endsAt": order.ends_at,
        "trialEndsAt": order.trial_ends_at,
        "renewsAt": order.renews_at,
        "billingAnchor": order.billing_anchor,
        "effectiveAt": order.effective_at,
    }
    for name, instant in instants.items():
        yield from instant_issues(instant, ("input", name), limits)
    if order.ends_at is not None and order.ends_at <= order.starts_at:
        yield InputIssue(("input", "endsAt"), "A subscription ends after it starts.")
    if order.trial_ends_at is not None and order.trial_ends_at <= order.starts_at:
        yield InputIssue(("input", "trialEndsAt"), "A trial ends after the subscription starts; leave it out for none.")
    if order.effective_at is not None and not _within(order, order.effective_at):
        message = "Plan and seats change while there is a subscription: from `startsAt` on, and before `endsAt`."
        yield InputIssue(("input", "effectiveAt"), message)


def _within(order: SubscriptionOrder, instant: datetime) -> bool:
    return order.starts_at <= instant and (order.ends_at is None or instant < order.ends_at)
