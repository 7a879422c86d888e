"""Credits on statements: what a draft would draw, what a final one drew, and what it gives back when it is voided.

What can be paid for is read in the draft's snapshot; what is in the grants is looked at again when the statement is frozen,
under their locks. An account without grants costs one look-up for all drafts that are computed together.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from metering.aggregations import Aggregation
from metering.credits import CreditGrant, known_currency, money_in, read_drawable
from metering.errors import ConflictError
from metering.events import in_utc
from metering.meters import Definition, read_definitions
from metering.statements.credit_lines import Basis, CreditLine
from metering.statements.drafts import Draft
from metering.statements.figures import Needed, Subscriber, read_figures
from metering.statements.history import FinalStatement
from metering.statements.records import figures_of
from metering.store.pool import Connection
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from rating.charges import metered_by
from rating.credits import Draw, Drawn, Pot, draw_down, give_back
from rating.exact import ZERO, add, multiply, subtract
from rating.lines import Line
from rating.meters import Figure
from rating.money import Money
from rating.payables import charged_quantities, payables_of
from rating.periods import Period
from rating.steps import round_to_step

_OUT_OF_GRANT: Final = (Pot.GRANT, Pot.STATEMENT)
_BACK: Final = (Pot.STATEMENT, Pot.GRANT)


class Movement(msgspec.Struct, frozen=True):
    """An entry of the ledger that a statement makes; `drawn` is the drawing that it gives back, or draws again."""

    grant: int
    pots: tuple[Pot, Pot]
    amount: Decimal
    worth: Decimal
    effective_at: datetime
    drawn: int | None = None


class Drawing(msgspec.Struct, frozen=True):
    """What a statement draws or gives back, as lines and as entries."""

    lines: tuple[CreditLine, ...]
    movements: tuple[Movement, ...]


class _Standing(msgspec.Struct, frozen=True):
    """What was drawn at one time and stands, and the grant that it was drawn on."""

    drawn: Drawn
    grant: int
    key: str
    effective_at: datetime


class _Books(msgspec.Struct):
    """What is in grants, by id; and what was drawn for subscriptions and stands, the newest first. Moved by what is drawn."""

    held: dict[int, Decimal]
    standing: dict[str, list[_Standing]]


# ---------------------------------------------------------------- drafts


async def with_credits(snapshot: Snapshot, drafts: Sequence[Draft | ConflictError]) -> list[Draft | ConflictError]:
    """The drafts with what each would draw if it were the next one to be frozen, and what freezing them takes."""
    computed = [each for each in drafts if isinstance(each, Draft)]
    # Grants are a whole account's: what is in them tells of subscriptions that a narrower reach does not see.
    if not computed or snapshot.reach.is_narrow:
        return list(drafts)
    grants = await read_drawable(snapshot, sorted({each.account for each in computed}))
    less = sorted({each.subscription for each in computed if each.total.amount < ZERO})
    rows = await snapshot.fetch(sql("credits.list_drawn"), [less]) if less else []
    bases = await _bases(snapshot, [(each, _paying(each, grants.get(each.account, ()))) for each in computed])
    shown: list[Draft | ConflictError] = []
    for each in drafts:
        if isinstance(each, Draft):
            basis = bases.get((each.subscription, each.period))
            draft = msgspec.structs.replace(each, basis=basis)
            held = {} if basis is None else {grant.id: grant.balance for grant in basis.grants}
            drawing = _drawing(draft, _Books(held, _standing(rows)))
            shown.append(msgspec.structs.replace(draft, credits=drawing.lines))
        else:
            shown.append(each)
    return shown


def _paying(draft: Draft, grants: Iterable[CreditGrant]) -> tuple[CreditGrant, ...]:
    """The grants that may pay for some of it."""
    if draft.total.amount <= ZERO:
        return ()
    meters = {each.line.origin.meter for each in draft.lines}
    return tuple(
        each
        for each in grants
        if each.rated.within(draft.period) is not None
        and (each.order.currency_code == draft.currency.code or (each.order.meter or "\0") in meters)
    )


async def _bases(
    snapshot: Snapshot, paid: Sequence[tuple[Draft, tuple[CreditGrant, ...]]]
) -> dict[tuple[str, Period], Basis]:
    """What can be paid for, cut where grants begin and end; the usage until there is read for all drafts together."""
    wanted = [(draft, grants, _cuts(draft.period, grants)) for draft, grants in paid if grants]
    if not wanted:
        return {}
    needed = {each for draft, _, cuts in wanted for each in _needed(draft, cuts)}
    keys = {each.meter for each in needed} | {
        grant.order.meter for _, grants, _ in wanted for grant in grants if grant.order.meter is not None
    }
    definitions = await read_definitions(snapshot, keys) if keys else {}
    figures = (await read_figures(snapshot, needed, definitions)).figures if needed else {}
    return {
        (draft.subscription, draft.period): _basis(draft, grants, cuts, figures, definitions)
        for draft, grants, cuts in wanted
    }


def _cuts(period: Period, grants: Iterable[CreditGrant]) -> list[datetime]:
    bounds = {bound for each in grants for bound in (each.order.effective_at, each.order.expires_at)}
    return sorted(bound for bound in bounds if bound is not None and period.start < bound < period.end)


def _metered(draft: Draft) -> dict[tuple[str, Period], None]:
    return {of: None for each in draft.lines for of in [metered_by(each.line)] if of is not None}


def _needed(draft: Draft, cuts: Sequence[datetime]) -> list[Needed]:
    subscriber = Subscriber(draft.account, draft.subscription)
    return [
        Needed(subscriber, meter, Period(period.start, at))
        for meter, period in _metered(draft)
        for at in cuts
        if period.start < at < period.end
    ]


def _basis(
    draft: Draft,
    grants: tuple[CreditGrant, ...],
    cuts: Sequence[datetime],
    figures: Mapping[Needed, Figure],
    definitions: Mapping[str, Definition],
) -> Basis:
    lines: list[Line] = [each.line for each in draft.lines]
    own = figures_of(draft.evidence.figures)
    used: dict[tuple[str, Period, datetime], Decimal] = {}
    rounded: dict[tuple[str, Period], Decimal] = {}
    subscriber = Subscriber(draft.account, draft.subscription)
    for meter, period in _metered(draft):
        definition, whole = definitions.get(meter), own.get((meter, period))
        if definition is None or whole is None:
            continue
        rounding = definition.rounding
        rounded[meter, period] = whole.quantity if rounding is None else round_to_step(whole.quantity, rounding)
        used[meter, period, period.end] = _used(definition.aggregation, whole, period)
        for at in cuts:
            until = Period(period.start, at) if period.start < at < period.end else None
            if until is not None and (of := Needed(subscriber, meter, until)) in figures:
                used[meter, period, at] = _used(definition.aggregation, figures[of], until)
    charged = charged_quantities(lines, rounded)
    return Basis(tuple(payables_of(lines, draft.period, cuts, used, charged)), grants)


def _used(aggregation: Aggregation, figure: Figure, period: Period) -> Decimal:
    """What charges grow with: of averages the quantities, of levels how long they were held, of the others the figure."""
    match aggregation:
        case Aggregation.AVERAGE:
            return multiply(figure.quantity, Decimal(figure.events))
        case Aggregation.TIME_WEIGHTED:
            return multiply(figure.quantity, Decimal((period.end - period.start) // timedelta.resolution))
        case _:
            return figure.quantity


# ---------------------------------------------------------------- drawing


async def draw(connection: Connection, drafts: Sequence[Draft]) -> list[Drawing]:
    """What these drafts draw and give back, one after the other; their grants are locked until the transaction ends."""
    grants = sorted({grant.id for each in drafts if each.basis is not None for grant in each.basis.grants})
    locked = await connection.fetch(sql("credits.lock_grants"), grants) if grants else []
    less = sorted({each.subscription for each in drafts if each.total.amount < ZERO})
    rows = await connection.fetch(sql("credits.list_drawn"), less) if less else []
    books = _Books({row["id"]: row["balance"] for row in locked if row["voided_at"] is None}, _standing(rows))
    return [_drawing(each, books) for each in drafts]


async def book(connection: Connection, drawn: Sequence[tuple[FinalStatement, Drawing]], *, by: str) -> None:
    """Book what statements drew and gave back."""
    await _book(connection, [(final.id, each) for final, drawing in drawn for each in drawing.movements], by=by)


async def give_back_drawn(connection: Connection, statement: int, *, by: str) -> None:
    """Undo what a statement drew and gave back, for it is void.

    Raises ConflictError where a later statement gave back some of what it drew, or what it gave back was drawn on since.
    """
    moved = await connection.fetch(sql("credits.list_moved"), statement)
    if not moved:
        return
    locked = await connection.fetch(sql("credits.lock_grants"), sorted({row["grant_id"] for row in moved}))
    # Read again, now that nobody else moves them.
    moved = await connection.fetch(sql("credits.list_moved"), statement)
    left = {row["id"]: row["balance"] for row in locked}
    movements = []
    for row in moved:
        is_drawing = row["source"] == Pot.GRANT.value
        if is_drawing and row["given_back"]:
            raise ConflictError(
                f"Some of what this statement drew on the grant {row['key']!r:.60} was given back by a later statement; "
                "void that one first."
            )
        sign = row["amount"] if is_drawing else -row["amount"]
        left[row["grant_id"]] = add(left[row["grant_id"]], sign)
        pots = _BACK if is_drawing else _OUT_OF_GRANT
        drawing = row["id"] if is_drawing else row["drawn_id"]
        movements.append(Movement(row["grant_id"], pots, row["amount"], row["worth"], row["effective_at"], drawing))
    for row in moved:
        if row["source"] == Pot.STATEMENT.value and left[row["grant_id"]] < ZERO:
            raise ConflictError(
                f"What this statement gave back to the grant {row['key']!r:.60} was drawn by other statements since; "
                "void those first."
            )
    await _book(connection, [(statement, each) for each in movements], by=by)


async def _book(connection: Connection, moved: Sequence[tuple[int, Movement]], *, by: str) -> None:
    if moved:
        rows = [
            (
                each.grant,
                each.pots[0].value,
                each.pots[1].value,
                each.amount,
                each.worth,
                statement,
                each.drawn,
                each.effective_at,
            )
            for statement, each in moved
        ]
        await connection.execute(sql("credits.book"), *zip(*rows, strict=True), by)


def _drawing(draft: Draft, books: _Books) -> Drawing:
    if draft.total.amount < ZERO:
        return _given_back(draft, books)
    if draft.basis is None:
        return Drawing((), ())
    by_key = {each.order.key: each for each in draft.basis.grants if each.id in books.held}
    held = {key: books.held[each.id] for key, each in by_key.items()}
    draws = draw_down(draft.basis.payables, [each.rated for each in by_key.values()], held, draft.currency)
    lines = [
        CreditLine(
            each.grant.key,
            Money(each.worth.amount.copy_negate(), draft.currency),
            None if each.grant.meter is None else each.amount,
            each.origin,
        )
        for each in draws
    ]
    movements = []
    for key in dict.fromkeys(each.grant.key for each in draws):
        grant = by_key[key]
        movements.append(_drawn(grant, [each for each in draws if each.grant.key == key], draft.period))
        books.held[grant.id] = subtract(books.held[grant.id], movements[-1].amount)
    return Drawing(tuple(lines), tuple(movements))


def _drawn(grant: CreditGrant, draws: Sequence[Draw], period: Period) -> Movement:
    """One entry for each grant; as of the end of what it pays for, so that it comes before what is left expires."""
    amount, worth = ZERO, ZERO
    for each in draws:
        amount, worth = add(amount, each.amount), add(worth, each.worth.amount)
    paid = grant.rated.within(period)
    assert paid is not None, "a grant pays for some of the period"
    return Movement(grant.id, _OUT_OF_GRANT, amount, worth, paid.end)


def _given_back(draft: Draft, books: _Books) -> Drawing:
    """A statement that comes to less than nothing gives back what was drawn for the subscription before, the newest first."""
    standing = {each.drawn.name: each for each in books.standing.get(draft.subscription, ())}
    returns = give_back([each.drawn for each in standing.values()], draft.total.amount.copy_negate())
    lines, movements = [], []
    for back in returns:
        each = standing[back.name]
        lines.append(
            CreditLine(each.key, Money(back.worth.amount, draft.currency), back.amount if back.is_quantity else None)
        )
        movements.append(Movement(each.grant, _BACK, back.amount, back.worth.amount, each.effective_at, back.name))
        standing[back.name] = msgspec.structs.replace(each, drawn=_less(each.drawn, back))
    books.standing[draft.subscription] = [each for each in standing.values() if each.drawn.worth.amount > ZERO]
    return Drawing(tuple(lines), tuple(movements))


def _less(drawn: Drawn, back: Drawn) -> Drawn:
    worth = Money(subtract(drawn.worth.amount, back.worth.amount), drawn.worth.currency)
    return Drawn(drawn.name, subtract(drawn.amount, back.amount), worth, drawn.is_quantity)


def _standing(rows: Iterable[Any]) -> dict[str, list[_Standing]]:
    standing: dict[str, list[_Standing]] = {}
    for row in rows:
        worth = money_in(row["worth"], known_currency(row["currency_code"]))
        drawn = Drawn(row["id"], row["amount"], worth, row["meter"] is not None)
        standing.setdefault(row["subscription"], []).append(
            _Standing(drawn, row["grant_id"], row["key"], in_utc(row["effective_at"]))
        )
    return standing
