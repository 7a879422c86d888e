"""Traces, where they are switched on: the process's own, from its start to its end. Off, nothing of OpenTelemetry is imported."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from metering.config import Settings
from metering.limits import Limits
from metering.spans import Traces, below


@asynccontextmanager
async def open_traces(settings: Settings, limits: Limits, process: str) -> AsyncIterator[Traces | None]:
    """Have what begins in the block, and in the tasks that are made in it, collected by the name of this process.

    None where traces are off. When the block ends, what was gathered is sent, for `trace_flush_seconds_max` at most.
    """
    if settings.traces_url is None:
        yield None
        return
    # Here, and only here: it is an extra, which is not installed everywhere, and takes its time.
    from metering.collector import collecting

    async with collecting(settings.traces_url, settings.traces_share, limits, process) as traces:
        with below(traces):
            yield traces
