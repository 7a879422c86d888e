"""The page at /graphql: ask a question in a browser. One file, nothing from any other host."""

from importlib.resources import files
from typing import Final

EDITOR: Final = files("graphql_api").joinpath("editor.html").read_text(encoding="utf-8")
