"""What one operation has: who asks, and one snapshot of the database for everything it asks."""

from typing import TypeAlias

import msgspec
from strawberry.types import Info

from graphql_api.cost import Cost
from graphql_api.live import Asker
from graphql_api.loaders import Loaders
from metering.errors import UnauthenticatedError
from metering.keys import Caller, Scope
from metering.limits import Limits
from metering.service import Service, Snapshot


class Context(msgspec.Struct, frozen=True):
    """The context of one operation."""

    # None for one without a key or token: what needs no scope is answered all the same.
    key: Caller | None
    service: Service
    snapshot: Snapshot
    # The size of the request that holds the operation.
    body_bytes: int = 0
    cost: Cost = msgspec.field(default_factory=Cost)
    # Who asks a live question; None of any other.
    asker: Asker | None = None
    loaders: Loaders = msgspec.field(default_factory=Loaders)

    @property
    def limits(self) -> Limits:
        """The bounds that hold."""
        return self.service.limits

    def require(self, scope: Scope) -> Caller:
        """The caller. Raises UnauthenticatedError without a key or token, ForbiddenError when it lacks the scope."""
        if self.key is None:
            raise UnauthenticatedError("Send a key: `Authorization: Bearer <key>`; `metering keys create` makes one.")
        return self.key.require(scope)


MeteringInfo: TypeAlias = Info[Context, None]
