"""Siblings: the worker processes of one `metering serve`. Whoever of them is asked answers for all.

Each writes what it counted into a file of its own, in a folder that the process above them made, every second and whenever it
answers; who answers adds up its own readings and those in the other files. So what is told never goes back, whichever of them is
asked. Of one that has ended what it counted still counts; what its gauges read does not.
"""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from metering.metrics import PROCESSES, Counters, Labelled, Observed, Readings
from metering.telemetry import logger

_WRITTEN_EVERY_SECONDS: Final = 1.0


class _Written(msgspec.Struct, frozen=True):
    """What a process writes: gauges apart, for they end with it."""

    counted: list[tuple[str, tuple[str, ...], float]]
    observed: list[tuple[str, tuple[str, ...], Observed]]
    gauges: list[tuple[str, tuple[str, ...], float]]


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(_Written)


class Siblings:
    """Adds up what the processes of one service counted; without a folder there is only this one."""

    def __init__(self, counters: Counters, folder: Path | None) -> None:
        self._counters = counters
        self._folder = folder
        self._own = None if folder is None else folder / f"{os.getpid()}.json"
        self._task: asyncio.Task[None] | None = None
        counters.read(PROCESSES, lambda: {(): 1})

    def start(self) -> None:
        """Begin to write, where there is a folder."""
        if self._folder is not None:
            self._task = asyncio.create_task(self._write_again_and_again(), name="readings")

    async def close(self) -> None:
        """Write for the last time."""
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._write(ended=True)

    def readings(self) -> Readings:
        """What all of them counted."""
        readings = self._counters.readings()
        if self._folder is None:
            return readings
        self._write()
        for path in self._folder.glob("*.json"):
            if path != self._own:
                readings.add(_read(path))
        return readings

    async def _write_again_and_again(self) -> None:
        while True:
            self._write()
            await asyncio.sleep(_WRITTEN_EVERY_SECONDS)

    def _write(self, *, ended: bool = False) -> None:
        assert self._own is not None, "there is a folder"
        counted = self._counters.readings(gauges=False)
        gauges = (
            {}
            if ended
            else {
                labelled: value
                for labelled, value in self._counters.readings().numbers.items()
                if labelled not in counted.numbers
            }
        )
        written = _Written(
            [(*labelled, value) for labelled, value in counted.numbers.items()],
            [(*labelled, each) for labelled, each in counted.observed.items()],
            [(*labelled, value) for labelled, value in gauges.items()],
        )
        # Whoever reads it reads all of it, of before or of now.
        beside = self._own.with_suffix(".new")
        try:
            beside.write_bytes(_ENCODER.encode(written))
            beside.replace(self._own)
        except OSError as error:
            # A full disk is no reason not to serve; others tell less of this process meanwhile.
            logger().warning("readings_unwritten", reason=str(error))


def _read(path: Path) -> Readings:
    """What another one wrote."""
    written = _DECODER.decode(path.read_bytes())
    numbers = {Labelled(name, values): value for name, values, value in written.counted}
    if _is_alive(int(path.stem)):
        numbers |= {Labelled(name, values): value for name, values, value in written.gauges}
    return Readings(numbers, {Labelled(name, values): each for name, values, each in written.observed})


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, PermissionError):
        # Or the number is another user's process by now.
        return False
    return True
