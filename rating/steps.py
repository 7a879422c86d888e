"""Rounding a quantity to whole steps: minutes to quarters of an hour, calls to thousands."""

from decimal import Decimal
from enum import Enum
from typing import assert_never

import msgspec

from rating.exact import ONE, add, multiply, remainder, whole_part


class RoundingMode(Enum):
    """Where a quantity between two steps goes; UP is away from zero, DOWN towards it, HALF_UP a half away from zero."""

    UP = "UP"
    DOWN = "DOWN"
    HALF_UP = "HALF_UP"
    HALF_EVEN = "HALF_EVEN"


class Rounding(msgspec.Struct, frozen=True):
    """Round to multiples of a step, which is above zero."""

    mode: RoundingMode
    step: Decimal


def round_to_step(quantity: Decimal, rounding: Rounding) -> Decimal:
    """The quantity as a multiple of the step."""
    return multiply(steps_in(quantity, rounding), rounding.step)


def steps_in(quantity: Decimal, rounding: Rounding) -> Decimal:
    """How many steps the quantity is, as a whole number."""
    steps = whole_part(quantity, rounding.step)
    rest = remainder(quantity, rounding.step)
    if rest and _further(steps, rest, rounding):
        return add(steps, ONE.copy_sign(quantity))
    return steps


def _further(steps: Decimal, rest: Decimal, rounding: Rounding) -> bool:
    """Whether a quantity that is no multiple goes to the next one away from zero."""
    doubled = add(rest.copy_abs(), rest.copy_abs())
    match rounding.mode:
        case RoundingMode.UP:
            return True
        case RoundingMode.DOWN:
            return False
        case RoundingMode.HALF_UP:
            return doubled >= rounding.step
        case RoundingMode.HALF_EVEN:
            odd = bool(remainder(steps, Decimal(2)))
            return doubled > rounding.step or (doubled == rounding.step and odd)
        case never:
            assert_never(never)
