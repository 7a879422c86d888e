"""Metrics that a scorecard makes of others: `{"ratio": ["tickets_28d", "seats"]}`.

An expression is a number, the name of a metric, or an operation on expressions. What an unknown value goes into is
unknown, and so is a ratio to zero; what is not applicable stays so. Only `coalesce` looks further.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from health.measurements import Measurement, NotApplicable, Observed, Unknown


class Operator(Enum):
    """What can be done with expressions."""

    ADD = "add"
    SUBTRACT = "subtract"
    MULTIPLY = "multiply"
    RATIO = "ratio"
    MIN = "min"
    MAX = "max"
    COALESCE = "coalesce"


class Operation(msgspec.Struct, frozen=True):
    """An operator and what it is applied to, in order."""

    operator: Operator
    of: tuple["Expression", ...]


Expression: TypeAlias = float | str | Operation

# How many operands an operator takes: at least, and at most.
OPERANDS: Final[Mapping[Operator, tuple[int, int]]] = {
    Operator.ADD: (2, 20),
    Operator.SUBTRACT: (2, 2),
    Operator.MULTIPLY: (2, 20),
    Operator.RATIO: (2, 2),
    Operator.MIN: (2, 20),
    Operator.MAX: (2, 20),
    Operator.COALESCE: (2, 20),
}

_FOLDS: Final[Mapping[Operator, Callable[[Sequence[float]], float]]] = {
    Operator.ADD: sum,
    Operator.SUBTRACT: lambda values: values[0] - values[1],
    Operator.MULTIPLY: math.prod,
    Operator.MIN: min,
    Operator.MAX: max,
}


def metrics_in(expression: Expression) -> Iterator[str]:
    """The names that an expression reads, as often as it does."""
    if isinstance(expression, str):
        yield expression
    elif isinstance(expression, Operation):
        for part in expression.of:
            yield from metrics_in(part)


def measured(expression: Expression, read: Callable[[str], Measurement]) -> Measurement:
    """What an expression comes to; `read` says what is known of a metric. It is as old as the oldest value in it."""
    if isinstance(expression, str):
        return read(expression)
    if not isinstance(expression, Operation):
        return Observed(expression)
    parts = [measured(part, read) for part in expression.of]
    if expression.operator is Operator.COALESCE:
        return next((part for part in parts if isinstance(part, Observed)), parts[-1])
    for missing in (NotApplicable, Unknown):
        for part in parts:
            if isinstance(part, missing):
                return part
    observed = [part for part in parts if isinstance(part, Observed)]
    value = _value(expression.operator, [part.value for part in observed])
    if value is None:
        return Unknown("a ratio to zero")
    if not math.isfinite(value):
        return Unknown("a number too large to be written")
    return Observed(
        value,
        observed_at=min((part.observed_at for part in observed if part.observed_at is not None), default=None),
        expires_at=min((part.expires_at for part in observed if part.expires_at is not None), default=None),
        respondents=min((part.respondents for part in observed if part.respondents is not None), default=None),
    )


def _value(operator: Operator, values: Sequence[float]) -> float | None:
    if operator is Operator.RATIO:
        numerator, denominator = values
        return numerator / denominator if denominator else None
    return _FOLDS[operator](values)
