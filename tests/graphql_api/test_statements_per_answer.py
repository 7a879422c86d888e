"""How many SQL statements an answer takes is bounded: it does not grow with the rows that are shown."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

import asyncpg
import msgspec
import pytest
from graphql import (
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLUnionType,
    build_schema,
    get_named_type,
    is_leaf_type,
    is_required_argument,
)

from graphql_api.nodes import node_id
from graphql_api.schema import sdl
from metering.store.queries import sql
from tests.conftest import ENGINES, Api, Server, running
from tests.graphql_api.worlds import TOKENS, alarm, bill, credit, customer, intervene, offer, refuse, score
from tests.metering.scored import resting

SCHEMA: Final = build_schema(sdl())
DEPTH_MAX: Final = 7
_PERIOD: Final = '{from: "2026-08-31T00:00:00Z", to: "2026-11-05T00:00:00Z"}'
_QUERY: Final = f"{{period: {_PERIOD}, groupBy: [ACCOUNT, SUBSCRIPTION, USER]}}"
_SEPTEMBER: Final = '{from: "2026-09-01T00:00:00Z", to: "2026-10-01T00:00:00Z"}'
_OCTOBER: Final = '{from: "2026-10-01T00:00:00Z", to: "2026-11-01T00:00:00Z"}'
_ON_THE_DAY: Final = '(asOf: "2026-10-02", first: 100)'
# Of each field of the root: what it is asked with. A new field must be added, or the test says so.
ARGUMENTS: Final[Mapping[str, str]] = {
    "usage": f"(query: {_QUERY})",
    "events": f"(query: {_QUERY}, first: 200)",
    "event": '(account: "acme", source: "gateway", id: "2026-09-03-1-ana")',
    "dimensionValues": f"(dimension: USER, query: {_QUERY})",
    "rejectedEvents": "",
    "meterUsage": f'(meter: "calls", query: {_QUERY})',
    "meters": "",
    "meter": '(key: "calls")',
    "plans": "",
    "plan": '(key: "basic")',
    "statement": '(subscription: "s-acme-1", at: "2026-09-10T00:00:00Z")',
    "statements": "(first: 200)",
    "charges": f"(query: {_QUERY})",
    "creditBalance": '(account: "acme")',
    "creditLedger": '(account: "acme")',
    "explainCharges": (
        f'(input: {{account: "acme", period: {_OCTOBER}, comparedWith: {_SEPTEMBER}, by: [SUBSCRIPTION, USER]}})'
    ),
    "ratePreview": '(input: {price: {perUnit: {unitPrice: "2"}}, quantity: "3"})',
    "simulatePlan": f'(input: {{plan: "basic", period: {_SEPTEMBER}}})',
    "account": '(key: "acme")',
    "accounts": "(first: 100)",
    "portfolio": '(asOf: "2026-10-02", byRenewalQuarter: true)',
    "revenueMovements": f"(period: {_PERIOD})",
    "chargesByCustomer": f"(period: {_OCTOBER}, comparedWith: {_SEPTEMBER})",
    "planRevenue": f"(period: {_SEPTEMBER})",
    "planFit": f"(input: {{period: {_SEPTEMBER}}})",
    "unmetCommitments": "(first: 100)",
    "features": '(asOf: "2026-10-02")',
    "featureReception": '(product: "maps", feature: "tiles", asOf: "2026-10-02")',
    "surveyCandidates": '(asOf: "2026-10-02")',
    "scorecards": "",
    "warnings": "(first: 200)",
    "warningRates": "",
    "warningThresholds": "",
    "interventions": "",
    "intervention": '(key: "webinar")',
    "holdOut": '(input: {intervention: "webinar", percent: 50, keys: ["acme"]})',
    "deviceMix": '(asOf: "2026-10-06")',
    "ways": f"(query: {{period: {_PERIOD}}})",
    "usersAtOnce": f"(query: {_QUERY}, bucket: MONTH)",
    "backtest": '(input: {scorecard: "account", from: "2026-10-01", to: "2026-11-01", horizonDays: 2})',
    "unusedSeats": _ON_THE_DAY,
    "dropOffs": _ON_THE_DAY,
    "renewalsAtRisk": _ON_THE_DAY,
    "champions": _ON_THE_DAY,
    "usersNeedingHelp": _ON_THE_DAY,
    "trialsLikelyToClose": _ON_THE_DAY,
    "upsells": _ON_THE_DAY,
    "crossSells": _ON_THE_DAY,
    "adoptionGaps": _ON_THE_DAY,
    "silentAccounts": _ON_THE_DAY,
    "referenceCustomers": _ON_THE_DAY,
    "valueForRenewal": _ON_THE_DAY,
    "discountsToPhaseOut": _ON_THE_DAY,
    "trainingCandidates": _ON_THE_DAY,
    "campaignAudience": _ON_THE_DAY,
    "alertRules": "",
    "alerts": "(first: 200)",
    "destinations": "",
    "deliveries": '(destination: "team")',
    "apiKeys": "",
    "auditLog": "(first: 200)",
    "node": "",
    "service": "",
}
# What is asked below: an argument that has no default, and the day of scores, of which today has none.
_BELOW: Final[Mapping[str, str]] = {
    "dimension": "USER", "bucket": "MONTH", "asOf": '"2026-10-02"', "since": '"2026-10-01"',
    "from": '"2026-10-01"', "to": '"2026-10-03"', "margin": '"0.5"',
}  # fmt: skip
_NODES: Final[Mapping[str, str]] = {
    "Account": node_id("Account", "acme"),
    "SubscriptionFacts": node_id("SubscriptionFacts", "s-acme-1"),
    "Meter": node_id("Meter", "calls"),
    "Plan": node_id("Plan", "basic", 1),
    "Statement": node_id("DraftStatement", "s-acme-1", "2026-10-01T00:00:00Z"),
}
# The statements of what is asked now. What works in the background was started without it.
_SENT: Final[ContextVar[list[str] | None]] = ContextVar("sent", default=None)


class World(msgspec.Struct, frozen=True):
    """A service whose connections tell which statements they send."""

    api: Api

    def statements_of(self, asked: str) -> list[str]:
        """What is sent for a document, but for who asks, which is looked up once in a while."""
        sent: list[str] = []
        token = _SENT.set(sent)
        try:
            self.api.ask(asked)
        finally:
            _SENT.reset(token)
        return [each for each in sent if each != sql("keys.find_key")]


@pytest.fixture(scope="module")
def worlds(servers: dict[str, Server]) -> Iterator[tuple[World, World]]:
    """A world with one customer, and one with three that are larger; a page holds all of both."""
    with ExitStack() as stack:
        small, large = (stack.enter_context(servers[ENGINES[0]].cloned()) for _ in range(2))
        made = [stack.enter_context(told) for url in (small, large) for told in (resting(url), telling(url))][1::2]
        for url, world, size in zip((small, large), made, (1, 2), strict=True):
            accounts = ["acme", "beta", "gamma"][: 2 * size - 1]
            offer(world.api)
            for account in accounts:
                fill(world.api, account, size)
            alarm(world.api, url)
            score(url, accounts)
            intervene(world.api, accounts)
        yield made[0], made[1]


def fill(api: Api, account: str, size: int) -> None:
    """A customer with so many subscriptions, grants and refused events; all with usage that is priced, and that is not."""
    subscriptions = [f"s-{account}-{number}" for number in range(1, size + 1)]
    customer(api, account, subscriptions, ["ana", "ben", "cy", "di"], feature="tiles")
    for key in subscriptions:
        credit(api, account, key)
        bill(api, key)
        refuse(api, account)


@contextmanager
def telling(url: str) -> Iterator[World]:
    """A service on this database, with a logger on every connection."""
    make_pool = asyncpg.create_pool

    async def listen(connection: Any) -> None:
        connection.add_query_logger(tell)

    def tell(record: Any) -> None:
        sent = _SENT.get()
        if sent is not None:
            sent.append(record.query)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncpg, "create_pool", partial(make_pool, init=listen))
        with running(url, **TOKENS) as api:
            yield World(api)


def document(field: str, arguments: str) -> str:
    """A document that asks this field of the root for everything that there is below it."""
    query = SCHEMA.query_type
    assert query is not None
    return f"{{ {field}{arguments}{selection(get_named_type(query.fields[field].type), 1)} }}"


def selection(kind: Any, depth: int) -> str:
    """Everything of a type, in braces; nothing of a leaf."""
    if is_leaf_type(kind):
        return ""
    if isinstance(kind, GraphQLUnionType | GraphQLInterfaceType):
        members = enumerate(SCHEMA.get_possible_types(kind))
        # Members may have fields of one name and of different types, so each has names of its own.
        parts = [f"... on {each.name} {{ {fields(each, depth, f'of{index}_')} }}" for index, each in members]
        return f" {{ __typename {' '.join(parts)} }}"
    return f" {{ {fields(kind, depth, '')} }}"


def fields(kind: GraphQLObjectType, depth: int, prefix: str) -> str:
    """All fields of a type, but for edges, which show nodes once more."""
    parts = [
        f"{prefix and f'{prefix}{name}: '}{name}{below(field)}{selection(get_named_type(field.type), depth + 1)}"
        for name, field in kind.fields.items()
        if name != "edges" and (is_leaf_type(get_named_type(field.type)) or depth < DEPTH_MAX)
    ]
    return " ".join(["__typename", *parts])


def below(field: GraphQLField) -> str:
    """The arguments that a field below the root needs."""
    needed = [
        f"{name}: {_BELOW[name]}"
        for name, argument in field.args.items()
        if is_required_argument(argument) or name == "asOf"
    ]
    return f"({', '.join(needed)})" if needed else ""


def test_every_field_of_the_root_is_asked_here() -> None:
    """A new field is not left out unnoticed."""
    assert SCHEMA.query_type is not None

    assert set(SCHEMA.query_type.fields) == set(ARGUMENTS)


@pytest.mark.parametrize("field", sorted(set(ARGUMENTS) - {"node"}))
def test_more_rows_take_no_more_statements(worlds: tuple[World, World], field: str) -> None:
    """Asked for everything below it, a field sends as many statements for three large customers as for a small one."""
    asked = document(field, ARGUMENTS[field])
    few, many = (world.statements_of(asked) for world in worlds)

    assert few or field in {"ratePreview", "holdOut"}
    assert len(few) == len(many), [each for each in many if many.count(each) > few.count(each)]


@pytest.mark.parametrize("kind", _NODES)
def test_more_rows_of_a_node_take_no_more_statements(worlds: tuple[World, World], kind: str) -> None:
    """The same of everything below an object that is found by its id."""
    asked = f'{{ node(id: "{_NODES[kind]}") {{ __typename ... on {kind}{selection(SCHEMA.type_map[kind], 1)} }} }}'
    few, many = (world.statements_of(asked) for world in worlds)

    assert f'"{kind}"' in str(worlds[0].api.ask(asked)).replace("'", '"')
    assert few
    assert len(few) == len(many), [each for each in many if many.count(each) > few.count(each)]


def test_readiness_is_one_statement(worlds: tuple[World, World]) -> None:
    """It is asked for again and again, by whoever watches a service."""
    assert [sql("probes.read_state")] == worlds[0].statements_of("{ service { status checks { name detail } } }")
