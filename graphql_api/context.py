"""What one operation has: who asks, and one snapshot of the database for everything it asks."""

from typing import TypeAlias

import msgspec
from strawberry.types import Info

from graphql_api.cost import Cost
from graphql_api.live import Asker
from metering.errors import UnauthenticatedError
from metering.keys import ApiKey, Scope
from metering.limits import Limits
from metering.service import Service, Snapshot


class Context(msgspec.Struct, frozen=True):
    """The context of one operation."""

    # None for a caller without a key: what needs no scope is answered all the same.
    key: ApiKey | None
    service: Service
    snapshot: Snapshot
    # The size of the request that holds the operation.
    body_bytes: int = 0
    cost: Cost = msgspec.field(default_factory=Cost)
    # Who asks a live question; None of any other.
    asker: Asker | None = None

    @property
    def limits(self) -> Limits:
        """The bounds that hold."""
        return self.service.limits

    def require(self, scope: Scope) -> ApiKey:
        """The caller's key. Raises UnauthenticatedError without one, ForbiddenError when it lacks the scope."""
        if self.key is None:
            raise UnauthenticatedError("Send a key: `Authorization: Bearer <key>`; `metering keys create` makes one.")
        return self.key.require(scope)


MeteringInfo: TypeAlias = Info[Context, None]
