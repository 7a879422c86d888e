"""Where the tests keep their files: in memory, where there is room for them.

Each test makes and drops a database of hundreds of small files. On a disk nearly all of that is the file system's work, and
what is written there outlives the tests by nothing.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

# Where Linux mounts a file system in memory for every user; in containers it is often too small.
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - pytest makes a folder of its own in it, for this user alone
# What three processes of tests fill at the same time at the most, twice over.
_ROOM_BYTES_MIN: Final = 6 * 2**30
_MEMORY_FILES: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))


def memory_folder() -> Path | None:
    """A folder in memory with room for what the tests write; None where there is none."""
    with suppress(OSError):
        state = os.statvfs(_SHARED_MEMORY)
        room_bytes = min(state.f_bavail * state.f_frsize, _available_bytes())
        if _is_in_memory(_SHARED_MEMORY) and os.access(_SHARED_MEMORY, os.W_OK) and room_bytes >= _ROOM_BYTES_MIN:
            return _SHARED_MEMORY
    return None


def _is_in_memory(folder: Path) -> bool:
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return any(mount[1:3] == [str(folder), "tmpfs"] for mount in mounts)


def _available_bytes() -> int:
    """How much memory may still be taken: of the machine's, and of this container's where it has a bound."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (kibibytes,) = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    available = 1024 * kibibytes
    with suppress(OSError, ValueError):  # no container, or one without a bound ("max")
        most, taken = (int(file.read_text()) for file in _MEMORY_FILES)
        available = min(available, most - taken)
    return available
