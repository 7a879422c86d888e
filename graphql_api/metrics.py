"""GET /metrics: what the service counts, as Prometheus reads it; for those who run the service."""

import hmac

from starlette.requests import Request
from starlette.responses import Response

from metering import errors
from metering.config import Settings
from metering.exposition import CONTENT_TYPE, exposition
from metering.ingest.http import problem
from metering.service import Service
from metering.siblings import Siblings


class MetricsEndpoint:
    """Answers who shows the key for it, or a key or token that reaches everything."""

    def __init__(self, service: Service, siblings: Siblings, settings: Settings) -> None:
        self._service = service
        self._siblings = siblings
        self._key = settings.metrics_key

    async def answer(self, request: Request) -> Response:
        """All readings, or a problem."""
        try:
            await self._check(request.headers.get("authorization"))
        except errors.MeteringError as error:
            return problem(error, self._service.limits)
        readings = self._siblings.readings()
        readings.add(await self._service.gauges())
        return Response(exposition(readings), media_type=CONTENT_TYPE)

    async def _check(self, authorization: str | None) -> None:
        """Raise UnauthenticatedError or ForbiddenError. The key of the settings needs no database to be known."""
        scheme, _, shown = (authorization or "").partition(" ")
        # As bytes: text must be ASCII to be compared so.
        is_shown = hmac.compare_digest(shown.strip().encode(), (self._key or "").encode())
        if self._key is not None and scheme.lower() == "bearer" and is_shown:
            return
        caller = await self._service.credentials.authenticate(authorization)
        if not caller.reach.is_everything:
            raise errors.ForbiddenError(f"The key {caller.prefix} is bound to accounts; metrics are of all together.")
