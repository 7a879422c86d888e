"""Directives that are held where they are declared: `@requires(scope:)` says what a caller must hold, `@internal` what is not for
outside.
"""

from typing import Any, Final

import strawberry
from strawberry.extensions import FieldExtension
from strawberry.schema_directive import Location

from metering.keys import Scope

strawberry.enum(Scope, name="Scope")


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION],
    name="requires",
    description="The caller needs one of these scopes; without it the field answers with the code FORBIDDEN.",
)
class Requires:
    """The directive as it stands in the SDL."""

    scope: list[Scope]


class RequireScope(FieldExtension):
    """Resolves the field only for a caller whose key holds the scope."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    # Positional only: a field may have an argument that is called `source`.
    async def resolve_async(  # type: ignore[override]
        self, next_: Any, source: Any, info: strawberry.Info, /, **arguments: Any
    ) -> Any:
        """Check, then resolve."""
        info.context.require(self._scope)
        return await next_(source, info, **arguments)


def requires(scope: Scope) -> dict[str, Any]:
    """What `strawberry.field` takes to declare the directive and to enforce it: one place for both."""
    return {"directives": [Requires(scope=[scope])], "extensions": [RequireScope(scope)]}


# ---------------------------------------------------------------- what is not for outside


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION],
    name="internal",
    description="Of how the service is run, and by whom. A caller that is bound to accounts is outside: it gets null, or "
    "`unknown` where there is no null.",
)
class Internal:
    """The directive as it stands in the SDL."""


_UNKNOWN: Final = "unknown"


class HideFromOutside(FieldExtension):
    """Shows the field only to a caller that reaches everything."""

    def __init__(self, instead: str | None) -> None:
        self._instead = instead

    def resolve(  # type: ignore[override]
        self, next_: Any, source: Any, info: strawberry.Info, /, **arguments: Any
    ) -> Any:
        """Look who asks, then resolve."""
        return next_(source, info, **arguments) if info.context.snapshot.reach.is_everything else self._instead

    async def resolve_async(  # type: ignore[override]
        self, next_: Any, source: Any, info: strawberry.Info, /, **arguments: Any
    ) -> Any:
        """The same of a field that waits."""
        return await next_(source, info, **arguments) if info.context.snapshot.reach.is_everything else self._instead


# What `strawberry.field` takes as directives and as extensions of an internal field, which a type checker wants one by one:
# of one that may be null, and of one that may not.
INTERNAL: Final[list[object]] = [Internal()]
HIDDEN: Final[list[FieldExtension]] = [HideFromOutside(None)]
HIDDEN_AS_UNKNOWN: Final[list[FieldExtension]] = [HideFromOutside(_UNKNOWN)]
