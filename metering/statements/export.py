"""Statements, and their lines, as rows of tables: what the columns are called and hold."""

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from metering.statements.history import FinalStatement
from metering.statements.read import Statement

_IN_BOTH: Final = ("account", "subscription", "from", "to", "status", "as_of", "currency")


class Columns(msgspec.Struct, frozen=True):
    """A table's columns in order, which of them are instants, decimals and whole numbers (all others are texts); its rows."""

    names: tuple[str, ...]
    instants: tuple[str, ...]
    decimals: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: Callable[[Statement], Iterator[tuple[object, ...]]]

    @property
    def texts(self) -> tuple[str, ...]:
        """The other columns."""
        return tuple(name for name in self.names if name not in {*self.instants, *self.decimals, *self.numbers})


def _in_both(statement: Statement) -> tuple[object, ...]:
    return (
        statement.account,
        statement.subscription,
        statement.period.start,
        statement.period.end,
        statement.status.value,
        statement.as_of,
        statement.currency.code,
    )


def _statement_rows(statement: Statement) -> Iterator[tuple[object, ...]]:
    final = statement if isinstance(statement, FinalStatement) else None
    yield (
        None if final is None else final.id,
        *_in_both(statement),
        statement.owed.amount,
        statement.total.amount,
        None if final is None else final.finalized_at,
        None if final is None else final.finalized_by,
        sum(total.events for total in statement.evidence.unrated),
    )


def _charge_rows(statement: Statement) -> Iterator[tuple[object, ...]]:
    for each in statement.lines:
        line, origin = each.line, each.line.origin
        yield (
            statement.id if isinstance(statement, FinalStatement) else None,
            *_in_both(statement),
            line.key,
            line.kind.value,
            each.description,
            origin.plan,
            origin.plan_version,
            origin.price,
            origin.meter,
            line.tier,
            line.period.start,
            line.period.end,
            None if each.adjusts is None else each.adjusts.start,
            None if each.adjusts is None else each.adjusts.end,
            line.quantity,
            line.unit_price,
            # Of as many digits as it takes: more than Parquet's decimals have.
            f"{line.exact_amount:f}",
            line.amount.amount,
        )


STATEMENTS: Final = Columns(
    names=("id", *_IN_BOTH, "total", "total_before_credits", "finalized_at", "finalized_by", "unrated_events"),
    instants=("from", "to", "as_of", "finalized_at"),
    decimals=("total", "total_before_credits"),
    numbers=("id", "unrated_events"),
    rows=_statement_rows,
)
CHARGES: Final = Columns(
    names=(
        *("statement_id", *_IN_BOTH, "key", "kind", "description", "plan", "plan_version", "price", "meter", "tier"),
        *("line_from", "line_to", "adjusts_from", "adjusts_to", "quantity", "unit_price", "exact_amount", "amount"),
    ),
    instants=("from", "to", "as_of", "line_from", "line_to", "adjusts_from", "adjusts_to"),
    decimals=("quantity", "unit_price", "amount"),
    numbers=("statement_id", "plan_version", "tier"),
    rows=_charge_rows,
)
