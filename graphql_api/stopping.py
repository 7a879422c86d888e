"""Know early that the process is to stop: the server waits for open connections before it says so, and live ones stay open."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def told(stopping: asyncio.Event) -> Iterator[None]:
    """Set the event when a signal says that the process is to stop, before whoever handles that signal; and at the end.

    To be entered in the event loop. Where another thread than the main one runs it, signals are not ours to hear.
    """
    loop = asyncio.get_running_loop()
    earlier: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        # Another handler that was set over this one may have kept it for longer than the loop lived.
        if not loop.is_closed():
            loop.call_soon_threadsafe(stopping.set)
        handler = earlier[number]
        if callable(handler):
            handler(number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if callable(signal.getsignal(number)):
                earlier[number] = signal.signal(number, note)
    try:
        yield
    finally:
        stopping.set()
        for heard, handler in earlier.items():
            signal.signal(heard, handler)
