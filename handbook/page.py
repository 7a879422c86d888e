"""One page: Markdown taken apart, with its headings, and written as HTML with links between pages."""

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from posixpath import dirname, join, normpath, relpath
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec
from markdown_it import MarkdownIt
from markdown_it.token import Token

from handbook.chapters import ROOT
from handbook.images import address_of

# rich stands on it, so it is locked, and installed wherever the service is.
_MARKDOWN: Final = MarkdownIt("commonmark").enable("table")


class Heading(msgspec.Struct, frozen=True):
    """A heading of a page; `anchor` is what a link to it ends with, as GitHub makes it."""

    level: int
    text: str
    anchor: str


class Page:
    """Markdown at a path of the repository, taken apart."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self._tokens = _MARKDOWN.parse(text)
        self.headings = tuple(_named(self._tokens))
        self.title = self.headings[0].text if self.headings else path

    @property
    def address(self) -> str:
        """Where its HTML stands in the site."""
        return (
            "index.html" if self.path == "README.md" else f"{self.path.removeprefix('docs/').removesuffix('.md')}.html"
        )

    def link_to(self, other: "Page", anchor: str = "") -> str:
        """The relative address of another page, or of a heading there."""
        return relpath(other.address, dirname(self.address) or ".") + (f"#{anchor}" if anchor else "")

    def html(self, pages: Mapping[str, "Page"], images: Collection[str] = ()) -> tuple[str, list[str]]:
        """The body as HTML, with links between `pages` and to `images` (by path), and what is wrong with its links."""
        faults = []
        for token in self._links():
            try:
                if token.type == "image":
                    self._show(token, images)
                else:
                    self._lead(token, pages)
            except LookupError as error:
                faults.append(f"{self.path}: {error.args[0]}")
        return _MARKDOWN.renderer.render(self._tokens, _MARKDOWN.options, {}), faults

    def _links(self) -> Iterator[Token]:
        for token in self._tokens:
            for child in token.children or ():
                if child.type in {"link_open", "image"}:
                    yield child

    def _lead(self, link: Token, pages: Mapping[str, "Page"]) -> None:
        """Let a link lead to the page, or nowhere where it names a file that is none. LookupError where nothing is there."""
        target = str(link.attrs["href"])
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            return
        path = normpath(join(dirname(self.path), unquote(parts.path))) if parts.path else self.path
        page = pages.get(path)
        if page is None:
            if not (ROOT / path).exists():
                raise LookupError(f"{target} leads to no page, and to no file of the repository")
            # It stands in the repository and not in the site: it is named, and not linked.
            del link.attrs["href"]
            link.attrs["title"] = f"In the repository: {path}"
        elif parts.fragment and parts.fragment not in {heading.anchor for heading in page.headings}:
            raise LookupError(f"{target} names no heading of {page.path}")
        else:
            link.attrs["href"] = self.link_to(page, parts.fragment)

    def _show(self, image: Token, images: Collection[str]) -> None:
        """Let an image be the site's own. LookupError where the site has none there, or it is not told in words."""
        target = str(image.attrs["src"])
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            raise LookupError(f"the image {target} is of another site; pages load nothing from elsewhere")
        path = normpath(join(dirname(self.path), unquote(parts.path)))
        if path not in images:
            raise LookupError(f"{target} is no image below docs/")
        if not image.content:
            raise LookupError(f"the image {target} says nothing to who does not see it: ![words]({target})")
        image.attrs["src"] = relpath(address_of(path), dirname(self.address) or ".")


def _named(tokens: list[Token]) -> Iterator[Heading]:
    """Every heading; each gets its anchor as its id."""
    used: dict[str, int] = {}
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(child.content for child in inline.children or () if child.type in {"text", "code_inline"})
            slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            times = used.get(slug, 0)
            used[slug] = times + 1
            anchor = f"{slug}-{times}" if times else slug
            opening.attrs["id"] = anchor
            yield Heading(int(opening.tag[1:]), text, anchor)
