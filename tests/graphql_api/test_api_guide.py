"""docs/api.md is true: every document that it shows is answered as it says, to whom it says, from the demo's year."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.conftest import ENGINES, Api, Server, running
from tests.graphql_api.api_guide import GUIDE, Section, load_year, score_last_day, sections

TEXT: Final = GUIDE.read_text(encoding="utf-8")
SOLD, *AUDIENCES = sections(TEXT)
_KEY: Final = """
mutation ($input: CreateApiKeyInput!) {
  createApiKey(input: $input) { ... on CreatedApiKey { secret } ... on Problem { message } }
}
"""


@pytest.fixture(scope="module", params=ENGINES)
def guided(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[Api]:
    """The service with the year of the accounts that the guide tells of, which was there on its last day."""
    with servers[request.param].cloned() as url:
        load_year(url)
        with running(url) as api:
            check(api, SOLD)
            score_last_day(url)
            yield api


def check(api: Api, section: Section) -> None:
    """Send a section's documents, each with a key that may do what the section says, and compare the answers."""
    key: dict[str, Any] = {"name": section.audience, "scopes": [scope.value for scope in section.scopes]}
    if section.account is not None:
        key["accounts"] = [section.account]
    secret = api.ask(_KEY, {"input": key})["createApiKey"]["secret"]
    for asked in section.asked:
        assert json.loads(asked.answer) == api.ask(asked.document, key=secret), asked.document


@pytest.mark.parametrize("section", AUDIENCES, ids=lambda section: section.audience)
def test_each_audience_is_answered_as_the_guide_says(guided: Api, section: Section) -> None:
    """With a key of the scopes that the section names, and no more, every document has the answer below it."""
    check(guided, section)


def test_the_guide_has_no_document_without_an_answer() -> None:
    """Every document has an answer right behind it, so none is passed over; and each audience has some."""
    blocks = re.findall(r"^```(\w+)$", TEXT, re.MULTILINE)
    asked = [len(section.asked) for section in (SOLD, *AUDIENCES)]

    assert blocks.count("graphql") == sum(asked) == blocks.count("json")
    assert min(asked) >= 2
    assert 7 == len(AUDIENCES)
