"""The service itself: whether it can do its work."""

from datetime import datetime

import strawberry

from graphql_api.auth import HIDDEN, INTERNAL
from graphql_api.context import MeteringInfo
from graphql_api.scalars import Instant
from metering import __version__
from metering.loops import Loop
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
class BackgroundLoop:
    """Work that is done in the background again and again, and how it fares. Nothing is known of a loop that never ran."""

    name: str
    process: str | None = strawberry.field(description="Which process ran it last: its machine, and its number there.")
    led_since: Instant | None = strawberry.field(
        description="Since when that process runs it, without another one between."
    )
    started_at: Instant | None = strawberry.field(description="When its last run began.")
    succeeded_at: Instant | None = strawberry.field(description="When a run ended well last.")
    lag_seconds: float | None = strawberry.field(
        description="How far behind it is: `refresh` by the newest usage that is rolled up, `scoring` by the oldest news that "
        "no score knows of, `deliveries` by the notification that is due first, any other by its last success."
    )
    failures: int = strawberry.field(description="How many runs failed since one ended well.")
    failed_at: Instant | None
    fault_code: str | None = strawberry.field(description="The code of the last failure; `internal` is a bug.")
    fault: str | None = strawberry.field(description="The last failure in words.")


@strawberry.type
class ServiceStatus:
    """What the service says of itself."""

    status: Status
    version: str
    engine: str = strawberry.field(description="postgres, timescaledb or citus.")
    checks: list[ServiceCheck]

    @strawberry.field(directives=INTERNAL, extensions=HIDDEN, description="The loops of background work, by name.")
    async def loops(self, info: MeteringInfo) -> list[BackgroundLoop] | None:
        """How each loop fares."""
        return [_loop(each) for each in await info.context.service.loops()]


def _loop(loop: Loop) -> BackgroundLoop:
    return BackgroundLoop(
        name=loop.name,
        process=loop.process,
        led_since=_instant(loop.led_since),
        started_at=_instant(loop.started_at),
        succeeded_at=_instant(loop.ran_at),
        lag_seconds=None if loop.lag is None else loop.lag.total_seconds(),
        failures=loop.failures,
        failed_at=_instant(loop.failed_at),
        fault_code=loop.fault_code,
        fault=loop.fault,
    )


def _instant(at: datetime | None) -> Instant | None:
    return None if at is None else Instant(at)


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
