"""The documentation as a site: `make docs`. Pages are the Markdown of this repository, and a reference made from the code.

No generator is behind it: MkDocs and its Material theme are at their end, and what follows them is young. The pages are plain
Markdown, so the day one of these is wanted, it reads them as they are; until then a parser that is installed anyway, links that
are held to be good, and a sheet of styles do it, and nothing is downloaded by who builds or reads it.
"""
