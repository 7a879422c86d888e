"""`@requires(scope:)` on a field says what the caller's key must hold, and holds the caller to it."""

from typing import Any

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
