"""The documentation as a site: it has every page, every link leads somewhere, and the reference is the code's."""

import re
from itertools import chain
from pathlib import Path
from posixpath import dirname, join, normpath

import msgspec
import pytest

from graphql_api.codes import Code as RequestCode
from handbook.build import build
from handbook.chapters import ROOT, chapters
from handbook.images import address_of, copy_images, images
from handbook.page import Page
from metering import errors
from metering.cli import app
from metering.config import PREFIX, Settings
from metering.ingest.openapi import PROBLEMS
from metering.ingest.receipts import Code as EventCode
from metering.limits import Limits


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is built: each page's address and its HTML."""
    folder = tmp_path_factory.mktemp("site")
    build(folder)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.html")}


def test_every_document_is_in_one_chapter() -> None:
    """Each file of docs/ stands in the navigation, once."""
    named = sorted(path for chapter in chapters() for path in chapter.paths)
    documents = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))

    assert documents == [path for path in named if path.startswith("docs/")]
    assert len(named) == len(set(named))


def test_every_link_of_the_site_leads_somewhere(site: dict[str, str]) -> None:
    """In what is built each relative link names a page that was built, and a heading that it has."""
    astray = []
    for address, html in site.items():
        for link in re.findall(r'<a [^>]*href="([^"]+)"', html):
            target, _, anchor = link.partition("#")
            reached = site.get(normpath(join(dirname(address), target)) if target else address, "")
            if "://" not in link and not (reached and (not anchor or f'id="{anchor}"' in reached)):
                astray.append(f"{address}: {link}")

    assert len(site) == sum(len(chapter.paths) for chapter in chapters())
    assert [] == astray


def test_the_site_loads_nothing_from_elsewhere(site: dict[str, str]) -> None:
    """No page has a script, or a style, font or image of another host; its images are the site's own."""
    loaded = set(chain.from_iterable(re.findall(r"<(?:link|script|iframe)\b[^>]*>", html) for html in site.values()))
    shown = {
        normpath(join(dirname(address), source))
        for address, html in site.items()
        for source in re.findall(r'<img [^>]*src="([^"]*)"', html)
    }

    assert shown <= {address_of(path) for path in images()}
    assert {'<link rel="stylesheet" href="style.css">', '<link rel="stylesheet" href="../style.css">'} == loaded


def test_the_reference_is_complete(site: dict[str, str]) -> None:
    """Every setting, limit, code and command stands on its page."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MeteringError)
    ]
    expected = {
        "settings": [f"{PREFIX}{field.name.upper()}" for field in msgspec.structs.fields(Settings)],
        "limits": [field.name for field in msgspec.structs.fields(Limits)],
        "codes": [
            *(code.value for code in EventCode),
            *chain.from_iterable(PROBLEMS.values()),
            *RequestCode,
            *(kind.code for kind in kinds if kind.code != errors.MeteringError.code),
        ],
        "commands": [f"metering {name}" for name in app if not name.startswith("-")],
        "schema": ["type Query {", "type Mutation {"],
    }
    missing = [name for page, names in expected.items() for name in names if name not in site[f"reference/{page}.html"]]

    assert all(expected.values())
    assert [] == missing


def test_every_fault_of_a_page_is_told() -> None:
    """A link to nothing, to a heading that is not there, and an image of another host are faults, all of them at once."""
    other = Page("docs/other.md", "# Other\n\n## A heading\n")
    text = """# Page

    [code](nowhere.md) is no link.

[good](other.md#a-heading) [self](#page) [web](https://example.com) [file](../Makefile)
[gone](gone.md) [no heading](other.md#none) [none here](#none) ![image](https://example.com/a.png)
![drawn](charts/drawn.svg) ![](charts/drawn.svg) ![gone](charts/gone.svg)
"""
    page = Page("docs/page.md", text)
    html, faults = page.html({page.path: page, other.path: other}, {"docs/charts/drawn.svg"})

    assert [
        "docs/page.md: gone.md leads to no page, and to no file of the repository",
        "docs/page.md: other.md#none names no heading of docs/other.md",
        "docs/page.md: #none names no heading of docs/page.md",
        "docs/page.md: the image https://example.com/a.png is of another site; pages load nothing from elsewhere",
        "docs/page.md: the image charts/drawn.svg says nothing to who does not see it: ![words](charts/drawn.svg)",
        "docs/page.md: charts/gone.svg is no image below docs/",
    ] == faults
    assert '<img src="charts/drawn.svg" alt="drawn"' in html
    assert '<a href="other.html#a-heading">good</a> <a href="page.html#page">self</a>' in html
    assert '<a title="In the repository: Makefile">file</a>' in html


def test_images_stand_in_the_site_where_pages_look_for_them(tmp_path: Path) -> None:
    """A drawing below docs/ is copied to the address at which a page of docs/ shows it; another file is not."""
    charts = tmp_path / "docs" / "charts"
    charts.mkdir(parents=True)
    (charts / "drawn.svg").write_text("<svg/>")
    (charts / "notes.txt").write_text("")
    site = tmp_path / "site"
    copy_images(images(tmp_path), site, tmp_path)

    assert ["charts/drawn.svg"] == [path.relative_to(site).as_posix() for path in site.rglob("*.*")]
    assert "<svg/>" == (site / "charts" / "drawn.svg").read_text()
