"""The schema, assembled. Its text is committed as schema.graphql; a test compares the two."""

from collections.abc import Callable, Iterable
from typing import Annotated

import strawberry
from strawberry.extensions import SchemaExtension

from graphql_api.auth import requires
from graphql_api.context import MeteringInfo
from graphql_api.events import EventConnection, resolve_events
from graphql_api.problems import HANDLERS
from graphql_api.questions import UsageQuery
from graphql_api.scalars import CONFIG, JsonObject
from graphql_api.service import ServiceStatus, resolve_service
from graphql_api.usage import UsageResult, resolve_usage
from metering.keys import Scope


@strawberry.type
class Query:
    """The questions that can be asked."""

    @strawberry.field(
        description="Metered quantities in a period: totals, groups and time series.", **requires(Scope.USAGE_READ)
    )
    async def usage(self, query: UsageQuery, info: MeteringInfo) -> UsageResult:
        """See graphql_api/usage.py."""
        return await resolve_usage(query, info)

    @strawberry.field(
        description="The recorded events behind a usage figure, newest first.", **requires(Scope.USAGE_READ)
    )
    async def events(
        self,
        query: UsageQuery,
        info: MeteringInfo,
        attributes: Annotated[
            JsonObject | None, strawberry.argument(description="Keep events whose attributes contain these.")
        ] = strawberry.UNSET,
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> EventConnection:
        """See graphql_api/events.py."""
        return await resolve_events(query, info, attributes or None, first, after or None)

    @strawberry.field(description="Whether the service can do its work; needs no scope.")
    async def service(self, info: MeteringInfo) -> ServiceStatus:
        """See graphql_api/service.py."""
        return await resolve_service(info)


def make_schema(extensions: Iterable[Callable[[], SchemaExtension]] = ()) -> strawberry.Schema:
    """The schema, with what watches over its execution."""
    return strawberry.Schema(query=Query, config=CONFIG, exception_handlers=HANDLERS, extensions=extensions)


def sdl() -> str:
    """The schema as text, as it is committed."""
    return make_schema().as_str() + "\n"
