"""Images that pages show: drawings below docs/. The site has each at the same place, as pages load nothing from elsewhere."""

import shutil
from collections.abc import Collection
from pathlib import Path

from handbook.chapters import ROOT


def images(root: Path = ROOT) -> frozenset[str]:
    """The paths of all of them."""
    return frozenset(path.relative_to(root).as_posix() for path in (root / "docs").rglob("*.svg"))


def address_of(path: str) -> str:
    """Where an image stands in the site."""
    return path.removeprefix("docs/")


def copy_images(paths: Collection[str], folder: Path, root: Path = ROOT) -> None:
    """Put them into the site in this folder."""
    for path in sorted(paths):
        target = folder / address_of(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, target)
