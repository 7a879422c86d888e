"""A small filesystem for the tests of full disks: made in a file, mounted, filled, and gone when the test ends."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

_COMMAND_SECONDS_MAX: Final = 30
_MEBIBYTE: Final = 1024 * 1024


class SmallDisk:
    """A mounted filesystem that can be filled, and given room again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def folder(self, name: str) -> Path:
        """A folder on it that belongs to whom the embedded PostgreSQL runs as where we are root."""
        made = self.path / name
        made.mkdir(mode=0o700)
        shutil.chown(made, "nobody")
        return made

    @property
    def free_bytes(self) -> int:
        """How much may still be written."""
        state = os.statvfs(self.path)
        return state.f_bavail * state.f_frsize

    def fill(self, *, but_mebibytes: int) -> None:
        """Take all room but so much."""
        size = self.free_bytes - but_mebibytes * _MEBIBYTE
        assert size > 0, f"only {self.free_bytes} bytes are free"
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    def make_room(self) -> None:
        """Give it back."""
        self._ballast.unlink()


@contextmanager
def small_disk(mebibytes: int) -> Iterator[SmallDisk]:
    """A filesystem of this size: ext4, or in memory where that may not be mounted.

    Where neither may be, the test is skipped; but it fails for root in CI, where it would be missed for good.
    """
    with tempfile.TemporaryDirectory(prefix="metering-small-disk-") as directory:
        # PostgreSQL asks whether it may, as the user that it runs as, all the way down.
        Path(directory).chmod(0o711)
        path = Path(directory) / "mounted"
        path.mkdir()
        refusals = [_mount_image(Path(directory) / "image", path, mebibytes)]
        if refusals[0] is not None:
            refusals.append(_mount_memory(path, mebibytes))
        if None not in refusals:
            missed = pytest.fail if os.environ.get("CI") and os.geteuid() == 0 else pytest.skip
            missed(f"no small filesystem can be mounted here: {refusals}")
        try:
            yield SmallDisk(path)
        finally:
            _unmount(path)


def _mount_image(image: Path, path: Path, mebibytes: int) -> str | None:
    """Mount an ext4 in a file; why it was refused, otherwise."""
    with image.open("wb") as file:
        file.truncate(mebibytes * _MEBIBYTE)
    # Without the room that ext4 keeps for root: it would be neither free nor full.
    return _refusal("mkfs.ext4", "-q", "-F", "-m", "0", str(image)) or _refusal(
        "mount", "-o", "loop", str(image), str(path)
    )


def _mount_memory(path: Path, mebibytes: int) -> str | None:
    return _refusal("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0755", "tmpfs", str(path))


def _unmount(path: Path) -> None:
    if _refusal("umount", str(path)):
        # Somebody still holds it: it goes when they go.
        refusal = _refusal("umount", "--lazy", str(path))
        assert refusal is None, refusal


def _refusal(program: str, *arguments: str) -> str | None:
    """Run a command, and return what it said when it failed."""
    if shutil.which(program) is None:
        return f"{program} is not installed"
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=_COMMAND_SECONDS_MAX, check=False
    )
    return f"{program}: {done.stderr.strip()}" if done.returncode else None
