"""What is internal is not for outside: every field that is marked so, asked by who runs the service and by who does not."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
from graphql import GraphQLInterfaceType, GraphQLNonNull, GraphQLObjectType, build_schema

from graphql_api.schema import sdl
from tests.conftest import ADMIN_KEY, ENGINES, Api, Server, running
from tests.graphql_api.worlds import MINE, TOKENS, bill, credit, customer, done, key_for, offer, token

SCHEMA: Final = build_schema(sdl())
_PERIOD: Final = 'period: {from: "2026-08-31T00:00:00Z", to: "2026-11-05T00:00:00Z"}'
# Of each marked field: a question that shows it, beside a field that everybody sees. What is marked anew must be added.
QUESTIONS: Final = {
    "CreditEntry.bookedBy": '{ creditLedger(account: "acme") { nodes { grant bookedBy } } }',
    "CreditGrant.voidedBy": '{ creditBalance(account: "acme") { ... on CreditBalance { grants { grant { key voidedBy } } } } }',
    "CreditGrant.grantedBy": '{ creditBalance(account: "acme") { ... on CreditBalance { grants { grant { key grantedBy } } } } }',
    "Correction.by": f"{{ events(query: {{{_PERIOD}}}, first: 50) {{ nodes {{ corrections {{ reason by }} }} }} }}",
    "ServiceCheck.detail": "{ service { checks { name detail } } }",
    "ServiceStatus.loops": "{ service { loops { name } } }",
    "Statement.finalizedBy": "{ statements(filter: {status: FINAL}) { nodes { subscription finalizedBy } } }",
    "Statement.voidedBy": "{ statements(filter: {status: VOID}) { nodes { subscription voidedBy } } }",
}

_VOID: Final = """
mutation ($input: VoidCreditGrantInput!) { voidCreditGrant(input: $input) { __typename ... on Problem { message } } }
"""


@pytest.fixture(scope="module")
def asked(servers: dict[str, Server]) -> Iterator[tuple[Api, str]]:
    """A service with something of each kind, and the key of a partner."""
    with servers[ENGINES[0]].cloned() as url:
        partner = key_for(url, MINE)
        with running(url, **TOKENS) as api:
            offer(api)
            customer(api, MINE, ["s-acme-1"], ["ana"])
            credit(api, MINE)
            credit(api, MINE, "given up")
            done(api, _VOID, input={"account": MINE, "key": "given up", "reason": "wrong"})
            bill(api, "s-acme-1")
            yield api, partner


def marked() -> dict[str, bool]:
    """The fields that are marked, and whether each may be null."""
    return {
        f"{kind.name}.{name}": not isinstance(field.type, GraphQLNonNull)
        for kind in SCHEMA.type_map.values()
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)
        for name, field in kind.fields.items()
        if field.ast_node and "internal" in {mark.name.value for mark in field.ast_node.directives or ()}
    }


def values_of(answer: Any, field: str) -> list[Any]:
    """All values that a field has anywhere in an answer."""
    if isinstance(answer, list):
        return [value for each in answer for value in values_of(each, field)]
    if not isinstance(answer, dict):
        return []
    return (
        [answer[field]] if field in answer else [value for each in answer.values() for value in values_of(each, field)]
    )


def test_every_marked_field_is_asked_for_here() -> None:
    """A field that is marked as internal and has no question above fails this test."""
    assert set(marked()) == set(QUESTIONS)


@pytest.mark.parametrize("field", QUESTIONS)
def test_what_is_internal_is_told_to_nobody_outside(asked: tuple[Api, str], field: str) -> None:
    """Who reaches everything is told; a key or token that is bound to accounts sees as many rows, without it; so does a
    caller without a key, where the question needs none.
    """
    api, partner = asked
    name = field.partition(".")[2]
    instead = None if marked()[field] else "unknown"
    inside = values_of(api.ask(QUESTIONS[field]), name)
    front_end = token(accounts=[MINE], scope="USAGE_READ CHARGES_READ")
    callers = [partner, front_end, None] if field.startswith("Service") else [partner, front_end]

    assert [each for each in inside if each not in (None, "unknown")]
    for caller in callers:
        assert [instead] * len(inside) == values_of(api.ask(QUESTIONS[field], key=caller), name)
    assert inside == values_of(api.ask(QUESTIONS[field], key=ADMIN_KEY), name)
