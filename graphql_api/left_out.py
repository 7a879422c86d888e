"""An argument that is left out means the same as one that is null."""

from typing import TypeVar

import strawberry

Value = TypeVar("Value")


def given_or_none(value: Value | None) -> Value | None:
    """The value, also where it is zero or empty; None where it was left out."""
    return None if value is strawberry.UNSET else value
