"""Plans: publishing them as versions that never change, and looking them up.

What a plan is, and what can be wrong with one, is rating's to say; here are the versions. They count 1, 2, 3, and take
effect in that order; a plan stays in the currency of its first version, so that a subscription never changes its own.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final

import msgspec

from metering.aggregations import TRAITS
from metering.errors import ConflictError, ForbiddenError, InputIssue, InvalidInputError
from metering.input_faults import instant_issues, issues_of
from metering.keys import Caller
from metering.limits import Limits
from metering.meters import Definition, find_definitions, read_definitions
from metering.rated_meters import rated_meter
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from rating.bounds import PRICES_MAX
from rating.definitions import definition_of, plan_of
from rating.faults import validate
from rating.meters import Overlap, overlaps
from rating.periods import instant_text
from rating.plans import Plan
from rating.prices import KIND_NAMES, Dynamic, GraduatedPercentage, Percentage

# Prices whose quantity is an amount of money.
_OF_AMOUNTS: Final = (Percentage, GraduatedPercentage, Dynamic)


class PublishedPlan(msgspec.Struct, frozen=True):
    """A version of a plan, and the pairs of its prices that can charge the same event."""

    plan: Plan
    overlaps: tuple[Overlap, ...]
    # None for one that would be published.
    published_at: datetime | None


async def publish_plan(
    database: Database, draft: Plan, key: Caller, limits: Limits, *, dry_run: bool = False
) -> PublishedPlan:
    """Publish a plan as its next version, whatever version the draft says; with `dry_run` only say what it would be.

    A plan that says what its newest version says is that version. Raises InvalidInputError with every fault; ConflictError
    where it would take effect before the newest version does; ForbiddenError for a key that is bound to accounts.
    """
    if key.accounts is not None:
        raise ForbiddenError(f"The key {key.prefix} is bound to accounts; a plan is everyone's.")
    async with database.transaction() as connection:
        if not dry_run:
            await connection.execute(sql("plans.take_turns"), _turn(draft.key))
        newest = None if "\0" in draft.key else await _find(connection, draft.key)
        meters = await find_definitions(connection, {price.meter for price in draft.prices if price.meter is not None})
        # Of the largest plans that are allowed this takes a second or two, in which others are served.
        issues = await asyncio.to_thread(lambda: list(_issues(draft, newest, meters, limits)))
        if issues:
            raise InvalidInputError(issues)
        if newest is not None:
            if _renumbered(draft, newest.plan.version) == newest.plan:
                return newest
            _check_order(draft, newest.plan)
        plan = _renumbered(draft, 1 if newest is None else newest.plan.version + 1)
        found = await asyncio.to_thread(overlaps, plan, [rated_meter(definition) for definition in meters.values()])
        if dry_run:
            return PublishedPlan(plan, found, published_at=None)
        row = await connection.fetchrow(sql("plans.insert_version"), *_cells(plan, found), key.signature)
    return _published(row)


async def find_plan(snapshot: Snapshot, key: str, version: int | None = None) -> PublishedPlan | None:
    """This version of the plan, or its newest one; None where there is none."""
    if "\0" in key:
        return None
    rows = await snapshot.fetch(sql("plans.find_version"), [key, version])
    return _published(rows[0]) if rows else None


async def find_plans(
    snapshot: Snapshot, versions: Collection[tuple[str, int]]
) -> Mapping[tuple[str, int], PublishedPlan]:
    """These versions of plans, those that there are. One statement."""
    keys, numbers = [key for key, _ in versions], [number for _, number in versions]
    published = [_published(row) for row in await snapshot.fetch(sql("plans.find_versions"), [keys, numbers])]
    return {(each.plan.key, each.plan.version): each for each in published}


async def find_version(connection: Connection, key: str, version: int | None = None) -> Plan | None:
    """The same within a transaction."""
    found = None if "\0" in key else await _find(connection, key, version)
    return None if found is None else found.plan


async def read_plans(snapshot: Snapshot, first: int, after: str | None) -> tuple[list[PublishedPlan], bool]:
    """The `first` plans by key, each in its newest version, from behind the key `after` on; and whether there are more."""
    # One more than asked for tells whether there are more.
    rows = await snapshot.fetch(sql("plans.list_plans"), [after, first + 1])
    return [_published(row) for row in rows[:first]], len(rows) > first


async def versions_of(snapshot: Snapshot, keys: Collection[str]) -> Mapping[str, Sequence[Plan]]:
    """All versions of these plans in order, by key; without the plans that there are not. One statement."""
    versions: dict[str, list[Plan]] = {}
    for row in await snapshot.fetch(sql("plans.list_versions"), [list(keys)]):
        plan = plan_of(msgspec.json.decode(row["definition"]))
        versions.setdefault(plan.key, []).append(plan)
    return versions


async def draft_issues(snapshot: Snapshot, draft: Plan, limits: Limits) -> list[InputIssue]:
    """What publishing would find wrong with a draft in itself, as a plan that there is no version of yet."""
    meters = await read_definitions(snapshot, {price.meter for price in draft.prices if price.meter is not None})
    return await asyncio.to_thread(lambda: list(_issues(draft, None, meters, limits)))


def _turn(key: str) -> int:
    """The advisory lock of a plan; should two plans share one, they merely wait for each other."""
    return int.from_bytes(blake2b(b"plan " + key.encode(), digest_size=8).digest(), signed=True)


async def _find(connection: Connection, key: str, version: int | None = None) -> PublishedPlan | None:
    row = await connection.fetchrow(sql("plans.find_version"), key, version)
    return None if row is None else _published(row)


def _renumbered(draft: Plan, version: int) -> Plan:
    return msgspec.structs.replace(draft, version=version)


def _cells(plan: Plan, found: Sequence[Overlap]) -> tuple[object, ...]:
    pairs = [[each.first_price, each.second_price] for each in found]
    texts = [msgspec.json.encode(each).decode() for each in (definition_of(plan), pairs)]
    return (plan.key, plan.version, *texts)


def _published(row: Any) -> PublishedPlan:
    pairs = msgspec.json.decode(row["overlapping"], type=list[tuple[str, str]])
    return PublishedPlan(
        plan_of(msgspec.json.decode(row["definition"])),
        tuple(Overlap(first, second) for first, second in pairs),
        row["published_at"].astimezone(UTC),
    )


# ---------------------------------------------------------------- faults


def _check_order(draft: Plan, newest: Plan) -> None:
    if draft.effective_from < newest.effective_from:
        raise ConflictError(
            f"Version {newest.version} of the plan {draft.key!r:.60} takes effect at {instant_text(newest.effective_from)}, and "
            "versions take effect in the order of their numbers: give an `effectiveFrom` that is not before that. From the "
            "same instant on the newer one applies."
        )


def _issues(
    draft: Plan, newest: PublishedPlan | None, meters: Mapping[str, Definition], limits: Limits
) -> Iterator[InputIssue]:
    yield from issues_of(validate(draft, meters))
    yield from instant_issues(draft.effective_from, ("input", "effectiveFrom"), limits)
    if newest is not None and newest.plan.currency_code != draft.currency_code:
        message = (
            f"The plan is in {newest.plan.currency_code} since its first version, and so are the subscriptions on it; "
            f"publish the prices in {draft.currency_code!r:.60} as a plan with another key."
        )
        yield InputIssue(("input", "currencyCode"), message)
    texts: dict[tuple[str, ...], str] = {("key",): draft.key, ("name",): draft.name}
    if len(draft.prices) <= PRICES_MAX:
        texts |= {("prices", str(index), "key"): price.key for index, price in enumerate(draft.prices)}
        yield from _counting_issues(draft, meters)
    for path, text in texts.items():
        if "\0" in text:
            yield InputIssue(("input", *path), "A NUL character, which no text can keep.")


def _counting_issues(draft: Plan, meters: Mapping[str, Definition]) -> Iterator[InputIssue]:
    """A share of an amount needs a meter of amounts: not one that counts events, or values."""
    for index, price in enumerate(draft.prices):
        meter = None if price.meter is None else meters.get(price.meter)
        if meter is None or not isinstance(price.price, _OF_AMOUNTS) or TRAITS[meter.aggregation].of_quantities:
            continue
        message = (
            f"A {KIND_NAMES[type(price.price)]} price is of an amount that usage carries, and the meter {meter.key!r:.60} "
            f"is a {meter.aggregation.value}, a number; take a meter of quantities, or a price for each unit."
        )
        yield InputIssue(("input", "prices", str(index), "meter"), message)
