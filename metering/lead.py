"""The lead: of all processes that could do the background work, one does.

It is who holds an advisory lock, in a session of its own, for as long as that session lives. When the process dies its session
ends, and another one takes the lead within a second or so. Who lost the session without noticing does no harm: every run of a
loop holds a lock of its own in the session in which it works (metering/store/turns.py).
"""

import asyncio
from typing import Final

from metering.cancelling import cancel
from metering.errors import MeteringError
from metering.store.pool import Connection, Database
from metering.store.queries import sql
from metering.store.turns import alone
from metering.telemetry import logger

LEAD_LOCK: Final = 0x6D65_7472_6C65_6164  # "metrlead"
# How often who leads looks whether its session lives, and who does not whether the lead is free.
_LOOK_SECONDS: Final = 1.0


class Lead:
    """Whether this process leads. It takes one connection for as long as it does."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Set while it leads.
        self.ours = asyncio.Event()
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Try to take the lead, and go on trying; return when it was tried once."""
        self._task = asyncio.create_task(self._try(), name="lead")
        await self._looked.wait()

    async def close(self) -> None:
        """Give the lead up, or the attempts to take it."""
        assert self._task is not None, "it was started"
        await cancel([self._task])

    async def _try(self) -> None:
        while True:
            try:
                async with alone(self._database, LEAD_LOCK) as connection:
                    if connection is not None:
                        await self._lead(connection)
            except MeteringError as error:
                logger().warning("lead_lost" if self.ours.is_set() else "lead_out_of_reach", reason=str(error))
            except Exception as error:  # noqa: BLE001 - it is tried again, and without it nobody here works
                logger().error("lead_failed", exc_info=error)
            finally:
                self.ours.clear()
                self._looked.set()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _lead(self, connection: Connection) -> None:
        """Lead until the session is lost, which raises DatabaseUnavailableError."""
        self.ours.set()
        self._looked.set()
        logger().info("leads")
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await connection.execute(sql("loops.keep_lead"))
