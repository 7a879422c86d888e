"""`metering work`."""

import asyncio
import signal
from pathlib import Path

from metering.background import background_work
from metering.cli.console import say
from metering.cli.running import ends_on_sigterm, migrated, with_database
from metering.config import Settings, read_settings
from metering.limits import LIMITS
from metering.loops import this_process
from metering.telemetry import configure_logs
from metering.traces import open_traces


def work(*, data_dir: Path | None = None) -> None:
    """Do the background work, beside services that run with `metering serve --no-work`; the database is migrated first.

    Of several only one leads at a time; another one takes over when it ends. It may be stopped, and killed, at any moment.
    When it has begun it prints one line: `Working: <machine>:<process>`.

    Example: `metering work`

    Parameters
    ----------
    data_dir
        Where the embedded PostgreSQL lives [METERING_DATA_DIR, ./.metering].
    """
    settings = read_settings(data_dir=data_dir)
    configure_logs(settings.log_level, settings.log_format)
    ends_on_sigterm()
    with with_database(settings) as running:
        migrated(running)
        asyncio.run(_work(running))


async def _work(settings: Settings) -> None:
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    async with open_traces(settings, LIMITS, this_process()), background_work(settings, LIMITS):
        say(f"Working: {this_process()}")
        await told_to_stop.wait()
