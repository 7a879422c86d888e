"""The service itself: whether it can do its work."""

import strawberry

from graphql_api.auth import HIDDEN, INTERNAL
from graphql_api.context import MeteringInfo
from metering import __version__
from metering.probes import Status

strawberry.enum(Status, name="CheckStatus")


@strawberry.type
class ServiceCheck:
    """One check."""

    name: str
    status: Status
    # Of all accounts together: how much is pending, and up to when it is rolled up.
    detail: str | None = strawberry.field(directives=INTERNAL, extensions=HIDDEN)
    milliseconds: float | None


@strawberry.type
class ServiceStatus:
    """What the service says of itself."""

    status: Status
    version: str
    engine: str = strawberry.field(description="postgres, timescaledb or citus.")
    checks: list[ServiceCheck]


async def resolve_service(info: MeteringInfo) -> ServiceStatus:
    """Whether the service can do its work; needs no scope."""
    service = info.context.service
    readiness = await service.readiness()
    return ServiceStatus(
        status=readiness.status,
        version=__version__,
        engine=service.engine,
        checks=[
            ServiceCheck(name=check.name, status=check.status, detail=check.detail, milliseconds=check.milliseconds)
            for check in readiness.checks
        ],
    )
