"""What the handbook has, in the order in which it is read. A test compares it with the files of docs/."""

from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).parents[1]


class Chapter(msgspec.Struct, frozen=True):
    """A title, and pages by their paths in the repository."""

    title: str
    paths: tuple[str, ...]


def chapters() -> tuple[Chapter, ...]:
    """Every chapter with every page; decisions are in the order of their numbers."""
    decisions = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "adr").glob("*.md"))
    return (*_CHAPTERS, Chapter("Decisions", tuple(decisions)))


# Pages below reference/ are no files: handbook/reference.py makes them.
_CHAPTERS: Final = (
    Chapter("Start", ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    Chapter(
        "Concepts", ("docs/architecture.md", "docs/glossary.md", "docs/meters.md", "docs/rating.md", "docs/credits.md")
    ),
    Chapter(
        "How to",
        ("docs/sending.md", "docs/api.md", "docs/health.md", "docs/lists.md", "docs/figures.md", "docs/alerts.md"),
    ),
    Chapter(
        "Reference",
        (
            "docs/ingest.md",
            "docs/graphql.md",
            "docs/access.md",
            "reference/settings.md",
            "reference/limits.md",
            "reference/codes.md",
            "reference/commands.md",
            "reference/schema.md",
            "reference/headings.md",
        ),
    ),
    Chapter("Operations", ("docs/operating.md", "docs/backup.md", "docs/security.md", "docs/performance.md")),
    Chapter("Parts", ("metering/README.md", "rating/README.md", "health/README.md", "loadtests/README.md")),
)
