"""Build the site: `python -m handbook.build FOLDER`. Strict: a link that leads nowhere fails it, and all of them are told."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Final

from handbook.chapters import ROOT, Chapter, chapters
from handbook.images import copy_images, images
from handbook.page import Page
from handbook.reference import headings_of, made_pages

_HERE: Final = Path(__file__).parent


class HandbookError(Exception):
    """Pages are missing, or links lead nowhere: every fault, a line each."""


def build(folder: Path) -> int:
    """Write the site into a folder, and say how many pages it has. What was there before is replaced.

    Raises HandbookError with every fault; then nothing is written.
    """
    contents = chapters()
    pages, drawings = _pages(contents), images()
    layout = Template((_HERE / "layout.html").read_text(encoding="utf-8"))
    written: dict[str, str] = {}
    faults: list[str] = []
    for page in pages.values():
        body, wrong = page.html(pages, drawings)
        faults += wrong
        written[page.address] = layout.substitute(
            title=escape(page.title),
            home=page.link_to(pages["README.md"]),
            style=page.link_to(Page("style.md", "")).replace(".html", ".css"),
            navigation=_navigation(page, contents, pages),
            headings=_headings(page),
            body=body,
        )
    if faults:
        raise HandbookError("\n".join(faults))
    shutil.rmtree(folder, ignore_errors=True)
    for address, html in written.items():
        target = folder / address
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(html, encoding="utf-8")
    shutil.copyfile(_HERE / "style.css", folder / "style.css")
    copy_images(drawings, folder)
    return len(written)


def _pages(contents: Sequence[Chapter]) -> Mapping[str, Page]:
    """Every page of the chapters by its path, in their order."""
    made = {page.path: page for page in made_pages()}
    of_files = {
        path: Page(path, (ROOT / path).read_text(encoding="utf-8"))
        for chapter in contents
        for path in chapter.paths
        if not path.startswith("reference/")
    }
    headings = headings_of([*of_files.values(), *made.values()])
    known = {**of_files, **made, headings.path: headings}
    return {path: known[path] for chapter in contents for path in chapter.paths}


def _navigation(here: Page, contents: Sequence[Chapter], pages: Mapping[str, Page]) -> str:
    lines = []
    for chapter in contents:
        lines.append(f"<h2>{escape(chapter.title)}</h2>\n<ul>")
        for path in chapter.paths:
            page = pages[path]
            current = ' aria-current="page"' if page is here else ""
            lines.append(f'<li><a href="{here.link_to(page)}"{current}>{escape(page.title)}</a></li>')
        lines.append("</ul>")
    return "\n".join(lines)


def _headings(page: Page) -> str:
    return "\n".join(
        f'<li class="level-{each.level}"><a href="#{each.anchor}">{escape(each.text)}</a></li>'
        for each in page.headings[1:]
        if each.level <= 3  # noqa: PLR2004 - what is deeper makes the list longer than the page
    )


def main() -> None:
    """Build into the folder that is named."""
    if len(sys.argv) != 2:  # noqa: PLR2004 - the program and a folder
        sys.exit("Name the folder that the site is written into: python -m handbook.build FOLDER")
    folder = Path(sys.argv[1])
    try:
        count = build(folder)
    except HandbookError as error:
        sys.exit(str(error))
    sys.stdout.write(f"{count} pages: {folder / 'index.html'}\n")


if __name__ == "__main__":
    main()
