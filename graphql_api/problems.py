"""Failures that a caller can act on: domain errors become members of the result unions, by one rule."""

from enum import Enum
from typing import Any, Final

import strawberry

from metering.errors import ConflictError, InvalidInputError, NotFoundError, TooLargeError

# GraphQL's Int has 32 bits; a millennium of minutes is more.
_INT_MAX: Final = 2**31 - 1


@strawberry.enum
class ProblemCode(Enum):
    """What kind of problem it is."""

    INVALID_INPUT = "INVALID_INPUT"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    TOO_LARGE = "TOO_LARGE"


@strawberry.interface(description="Something the caller can put right; switch on `code`, show `message`.")
class Problem:
    """What all problems have."""

    code: ProblemCode
    message: str


@strawberry.type(
    description='`path` leads from the argument to the value, for example `["input", "prices", "0", "tiers"]`.'
)
class InputIssue:
    """One fault of an argument."""

    path: list[str]
    message: str


@strawberry.type
class InvalidInput(Problem):
    """Arguments that cannot be answered."""

    issues: list[InputIssue]


@strawberry.type(
    description="The answer would have more points than one request may have; ask for fewer groups, a shorter period "
    "or a larger bucket."
)
class TooLarge(Problem):
    """More points than one answer may have."""

    points: int
    maximum: int


def invalid_input(error: InvalidInputError) -> InvalidInput:
    """The error as a member of a union."""
    issues = [InputIssue(path=list(issue.path), message=issue.message) for issue in error.issues]
    return InvalidInput(code=ProblemCode.INVALID_INPUT, message=str(error), issues=issues)


class InvalidInputHandler(strawberry.ExceptionHandler[InvalidInputError, InvalidInput]):
    """Every field whose union has InvalidInput answers with it."""

    def handle(self, exception: InvalidInputError, **_: Any) -> InvalidInput:
        """Translate."""
        return invalid_input(exception)


class TooLargeHandler(strawberry.ExceptionHandler[TooLargeError, TooLarge]):
    """Every field whose union has TooLarge answers with it."""

    def handle(self, exception: TooLargeError, **_: Any) -> TooLarge:
        """Translate."""
        return TooLarge(
            code=ProblemCode.TOO_LARGE,
            message=str(exception),
            points=min(exception.points, _INT_MAX),
            maximum=exception.maximum,
        )


@strawberry.type
class NotFound(Problem):
    """There is no such thing."""


@strawberry.type
class Conflict(Problem):
    """It is in a state in which this cannot be done."""


class NotFoundHandler(strawberry.ExceptionHandler[NotFoundError, NotFound]):
    """Every field whose union has NotFound answers with it."""

    def handle(self, exception: NotFoundError, **_: Any) -> NotFound:
        """Translate."""
        return NotFound(code=ProblemCode.NOT_FOUND, message=str(exception))


class ConflictHandler(strawberry.ExceptionHandler[ConflictError, Conflict]):
    """Every field whose union has Conflict answers with it."""

    def handle(self, exception: ConflictError, **_: Any) -> Conflict:
        """Translate."""
        return Conflict(code=ProblemCode.CONFLICT, message=str(exception))


HANDLERS: Final = (InvalidInputHandler(), TooLargeHandler(), NotFoundHandler(), ConflictHandler())
