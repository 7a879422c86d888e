"""`metering erase-user`."""

import asyncio
from pathlib import Path

from metering.cli.console import say
from metering.cli.running import unattended, with_database
from metering.config import Settings, read_settings
from metering.erasure import erase_user_by_command


def erase_user(*, account: str, user: str, data_dir: Path | None = None) -> None:
    """Erase a user of an account: the usage stays, but it is nobody's any more; what was said of the user is deleted.

    Every figure that is not asked for by user stays what it is. It cannot be taken back; doing it again does nothing.

    Example: `metering erase-user --account acme --user ana`

    Parameters
    ----------
    account
        Whose user it is.
    user
        The user, as its events name it.
    data_dir
        Where the embedded PostgreSQL lives [METERING_DATA_DIR, ./.metering].
    """
    with with_database(read_settings(data_dir=data_dir)) as settings:
        events = asyncio.run(_run(settings, account, user))
    say(f"{events:,} events of a user of the account {account} are nobody's now.")


async def _run(settings: Settings, account: str, user: str) -> int:
    async with unattended(settings) as (database, limits):
        return await erase_user_by_command(database, account, user, limits)
