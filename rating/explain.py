"""Why the charges of one period differ from another's, split by cause and key; the parts add up to the difference.

Each of the two periods is rated in stages, from what was charged to a reference that both have in common (stages.py).
Between two stages lies one cause; between the two periods at the reference lies the usage itself. So the parts are a sum of
differences between neighbours, of which nothing but the first and the last is left: what was charged before, and after.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from rating.attribution import Key
from rating.charges import Charge, UsageBehind, charges_within, metered_by
from rating.exact import ZERO, add, subtract, total
from rating.lines import Line
from rating.money import Currency, Money
from rating.periods import Period


class ChangeCause(Enum):
    """Why an amount is another one than before."""

    VOLUME = "VOLUME"
    PRICE = "PRICE"
    PLAN = "PLAN"
    RECURRING = "RECURRING"
    ADJUSTMENT = "ADJUSTMENT"


_BY_USAGE: Final = frozenset({ChangeCause.VOLUME, ChangeCause.PRICE, ChangeCause.PLAN})
# The lines of billing periods, by what of them is served.
Billed: TypeAlias = Mapping[Period, Sequence[Line]]
_Sums = dict[Key, Decimal]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription in one of the two periods.

    `charged` are the lines of its statements, without adjustments; `beside` what else there is, statement by statement:
    adjustments, and frozen lines of periods that are no billing periods any more. `stages` lead from `charged` to the
    reference.
    """

    asked: Period
    nobody: Key
    charged: Billed = {}
    beside: Sequence[Sequence[Line]] = ()
    stages: Sequence[tuple[ChangeCause, Billed]] = ()
    usage: UsageBehind = {}


class Rating(msgspec.Struct, frozen=True):
    """Amounts by key: for usage (with discounts on it, and minimums), and for time."""

    usage: _Sums
    recurring: _Sums


class ExplainedPart(msgspec.Struct, frozen=True, kw_only=True):
    """How much one cause changed for one key.

    Of usage also how much of it there was in both periods, where one meter is behind the key, whose usage adds up.
    """

    cause: ChangeCause
    key: Key
    amount: Money
    meter: str | None = None
    quantity_before: Decimal | None = None
    quantity_after: Decimal | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """before + the parts + remainder = after, exactly; the parts with the largest amounts come first."""

    before: Money
    after: Money
    parts: tuple[ExplainedPart, ...]
    remainder: Money

    @property
    def difference(self) -> Money:
        """What is to be explained: after less before."""
        return Money(subtract(self.after.amount, self.before.amount), self.before.currency)


class Changes:
    """What changed between two periods, added up over subscriptions in one currency.

    `places` are those of a key's values that parts are told apart by; `adding_up` the meters whose usage may be added.
    """

    def __init__(self, currency: Currency, places: Sequence[int]) -> None:
        self._currency = currency
        self._places = tuple(places)
        self._totals = [ZERO, ZERO]
        self._amounts: dict[tuple[ChangeCause, Key], Decimal] = {}
        # What each meter counted of a key, before and after.
        self._used: dict[Key, dict[str, list[Decimal]]] = {}

    @property
    def size(self) -> int:
        """How many parts are held, also of such that come to nothing."""
        return len(self._amounts)

    def add(self, before: Side, after: Side) -> None:
        """Add what changed of a subscription."""
        self._add(before, 0)
        self._add(after, 1)

    def explanation(self, top: int, adding_up: Iterable[str] = ()) -> Explanation:
        """The difference in parts: the `top` largest by amount (of those alike by cause and key), and all others together.

        `adding_up` are the meters of which quantities are told.
        """
        summable = frozenset(adding_up)
        found = [(cause, key, amount) for (cause, key), amount in self._amounts.items() if amount]
        found.sort(key=_order)
        rest = total([self._currency.zero, *(amount for _, _, amount in found[top:])])
        before, after = (Money(add(self._currency.zero, each), self._currency) for each in self._totals)
        return Explanation(
            before=before,
            after=after,
            parts=tuple(self._part(*each, summable) for each in found[:top]),
            remainder=Money(rest, self._currency),
        )

    def _part(self, cause: ChangeCause, key: Key, amount: Decimal, summable: frozenset[str]) -> ExplainedPart:
        used = self._used.get(key, {}) if cause in _BY_USAGE else {}
        part = ExplainedPart(cause=cause, key=key, amount=Money(amount, self._currency))
        if len(used) != 1 or not summable.issuperset(used):
            return part
        ((meter, (before, after)),) = used.items()
        return msgspec.structs.replace(part, meter=meter, quantity_before=before, quantity_after=after)

    def _add(self, side: Side, place: int) -> None:
        # Of the earlier period each stage follows on the one before; of the later one it is the other way round.
        ahead = place == 0
        rated = {period: self._rated(lines, side) for period, lines in side.charged.items()}
        beside = self._by_key(
            charge for lines in side.beside for charge in charges_within(lines, side.usage, side.nobody, side.asked)
        )
        for each in [*(each for of in rated.values() for each in (of.usage, of.recurring)), beside]:
            self._totals[place] = total([self._totals[place], *each.values()])
        for rating in rated.values():
            self._change(ChangeCause.RECURRING, rating.recurring, plus=not ahead)
        self._change(ChangeCause.ADJUSTMENT, beside, plus=not ahead)
        lines = side.charged
        for cause, staged in side.stages:
            rated = self._next_stage(side, cause, (lines, rated), staged, ahead=ahead)
            lines = staged
        for rating in rated.values():
            self._change(ChangeCause.VOLUME, rating.usage, plus=not ahead)
        self._use(lines, side, place)

    def _next_stage(
        self,
        side: Side,
        cause: ChangeCause,
        last: tuple[Billed, Mapping[Period, Rating]],
        staged: Billed,
        *,
        ahead: bool,
    ) -> dict[Period, Rating]:
        """What a stage comes to; its difference to the last one has this cause. What is alike is not rated again."""
        lines, known = last
        rated: dict[Period, Rating] = {}
        for period in {**lines, **staged}:
            if period in lines and period in staged and list(lines[period]) == list(staged[period]):
                rated[period] = known[period]
                continue
            if period in staged:
                rated[period] = self._rated(staged[period], side)
                self._change(cause, rated[period].usage, plus=ahead)
            if period in lines:
                self._change(cause, known[period].usage, plus=not ahead)
        return rated

    def _rated(self, lines: Sequence[Line], side: Side) -> Rating:
        rating = Rating({}, {})
        for charge in charges_within(lines, side.usage, side.nobody, side.asked):
            self._sum(rating.recurring if charge.recurring else rating.usage, charge)
        return rating

    def _by_key(self, charges: Iterable[Charge]) -> _Sums:
        sums: _Sums = {}
        for charge in charges:
            self._sum(sums, charge)
        return sums

    def _sum(self, sums: _Sums, charge: Charge) -> None:
        key = self._short(charge.key)
        sums[key] = add(sums.get(key, ZERO), charge.amount.amount)

    def _change(self, cause: ChangeCause, amounts: Mapping[Key, Decimal], *, plus: bool) -> None:
        for key, amount in amounts.items():
            so_far = self._amounts.get((cause, key), ZERO)
            self._amounts[cause, key] = add(so_far, amount) if plus else subtract(so_far, amount)

    def _use(self, billed: Billed, side: Side, place: int) -> None:
        for meter, period in metered(line for lines in billed.values() for line in lines):
            for each in side.usage.get((meter, period), ()):
                used = subtract(each.until_end, each.until_start)
                if used:
                    of_key = self._used.setdefault(self._short(each.key), {}).setdefault(meter, [ZERO, ZERO])
                    of_key[place] = add(of_key[place], used)

    def _short(self, key: Key) -> Key:
        return tuple(key[place] for place in self._places)


def metered(lines: Iterable[Line]) -> Iterator[tuple[str, Period]]:
    """The meters and periods whose usage is behind lines, each pair once."""
    pairs = {metered_by(line): None for line in lines}
    return (pair for pair in pairs if pair is not None)


def _order(part: tuple[ChangeCause, Key, Decimal]) -> tuple[Decimal, int, tuple[tuple[bool, str], ...]]:
    cause, key, amount = part
    causes = list(ChangeCause)
    return amount.copy_abs().copy_negate(), causes.index(cause), tuple((value is None, value or "") for value in key)
