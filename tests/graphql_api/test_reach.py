"""Whose rows a caller sees: worlds that differ only in what is beyond its reach answer it alike, to the byte."""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, Final

import asyncpg
import msgspec
import pytest
from graphql import build_schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphql_api.nodes import named, node_id
from graphql_api.pages import encode_cursor
from graphql_api.schema import sdl
from metering.keys import Scope
from tests.conftest import ADMIN_KEY, ENGINES, Api, Server, bearer, running
from tests.graphql_api.asking import Asking, Found
from tests.graphql_api.worlds import (
    TOKENS,
    Worlds,
    add_first,
    add_others,
    add_subscription,
    add_user,
    copy_of,
    evaluate,
    make_base,
    score_others,
    token,
)
from tests.metering.scored import resting

SCHEMA: Final = build_schema(sdl())
CALLERS: Final = ("partner", "front end", "subscription", "user", "stranger")
READS: Final = " ".join(
    scope.value for scope in (Scope.USAGE_READ, Scope.CHARGES_READ, Scope.CATALOG_READ, Scope.HEALTH_READ)
)
EACH_FIELD: Final = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
# What somebody who sees everything asks, to find what a caller may try: ids, and cursors of every list.
_PERIOD: Final = 'period: {from: "2026-08-31T00:00:00Z", to: "2026-11-05T00:00:00Z"}'
_EVERYTHING: Final = f"""{{
  usage(query: {{{_PERIOD}, groupBy: [ACCOUNT]}}) {{ ... on UsageReport {{ groups {{ edges {{ cursor }} }} }} }}
  meterUsage(meter: "calls", query: {{{_PERIOD}, groupBy: [ACCOUNT]}}) {{
    ... on MeterReport {{ groups {{ edges {{ cursor }} }} }}
  }}
  charges(query: {{{_PERIOD}, groupBy: [ACCOUNT]}}) {{ ... on ChargesReport {{ groups {{ edges {{ cursor }} }} }} }}
  events(query: {{{_PERIOD}}}, first: 200) {{ edges {{ cursor node {{ id }} }} }}
  rejectedEvents {{ edges {{ cursor node {{ id }} }} }}
  statements(first: 200) {{ edges {{ cursor node {{ id }} }} }}
  meters {{ edges {{ cursor node {{ id }} }} }}
  plans {{ edges {{ cursor node {{ id }} }} }}
  apiKeys {{ edges {{ cursor }} }}
  alertRules {{ edges {{ cursor }} }}
  alerts {{ edges {{ cursor }} }}
  destinations {{ edges {{ cursor }} }}
  deliveries(destination: "team") {{ edges {{ cursor }} }}
  accounts {{ edges {{ cursor }} }}
  creditBalance_acme: creditBalance(account: "acme") {{ ... on CreditBalance {{ grants {{ grant {{ id }} }} }} }}
  creditBalance_beta: creditBalance(account: "beta") {{ ... on CreditBalance {{ grants {{ grant {{ id }} }} }} }}
  creditLedger_acme: creditLedger(account: "acme") {{ edges {{ cursor }} }}
  creditLedger_beta: creditLedger(account: "beta") {{ edges {{ cursor }} }}
  simulatePlan(input: {{plan: "basic", {_PERIOD}}}) {{ ... on PlanSimulation {{ rows {{ edges {{ cursor }} }} }} }}
}}"""
# A document has no more fields at its root.
_MORE: Final = """{
  warnings { edges { cursor } }
  auditLog { edges { cursor } }
  interventions { edges { cursor } }
  intervention(key: "webinar") { audience { edges { cursor } } }
}"""
# Places of figures that are computed for each answer.
_FIGURES: Final = {
    "features": [encode_cursor([-2, -1, "of-beta", "maps"]), encode_cursor([0, 0, "of-zebra", ""])],
    "surveyCandidates": [encode_cursor(["8", "beta", "mole"]), encode_cursor(["0", "acme", "ana"])],
    "subscriptions": [encode_cursor(["EUR", "10.00", "s-beta-1"])],
    "unmetCommitments": [encode_cursor(["EUR", "10.00", "s-beta-1"])],
    "customers": [encode_cursor(["EUR", "10.00", "beta"]), encode_cursor(["EUR", "3", "acme"])],
}
# What is asked of one account, of one's own and of another's.
_CREDITS: Final = "... on CreditBalance { amounts { amount } }"
_EXPLANATION: Final = "... on ChargesExplanation { after { amount } }"
_BEFORE: Final = 'comparedWith: {from: "2026-08-01T00:00:00Z", to: "2026-08-31T00:00:00Z"}'
_names = count(1)
# A question about everything, of each kind of list.
ALL_OF: Final = {
    "totals": f"usage(query: {{{_PERIOD}}}) {{ ... on UsageReport {{ totals {{ unit quantity events }} }} }}",
    "figure": f'meterUsage(meter: "calls", query: {{{_PERIOD}}}) {{ ... on MeterReport {{ total {{ quantity }} }} }}',
    "events": f"events(query: {{{_PERIOD}}}, first: 500) {{ nodes {{ eventId }} }}",
    "values": f"dimensionValues(dimension: PRODUCT, query: {{{_PERIOD}}})",
    "charges": f"charges(query: {{{_PERIOD}}}) {{ ... on ChargesReport {{ totals {{ amount }} }} }}",
    "statements": "statements(first: 200) { nodes { subscription total { amount } } }",
    "alerts": "alerts(first: 200) { nodes { subject } }",
    "rejected": "rejectedEvents { nodes { body } }",
    "customers": "accounts { nodes { key users { nodes { key activeDays28 } } } }",
    "scores": 'accounts { nodes { health(asOf: "2026-10-02") { score } } }',
    "devices": 'deviceMix(asOf: "2026-10-06") { events devices { device users } }',
    "ways": f"ways(query: {{{_PERIOD}}}) {{ ... on WaysReport {{ users activeDays }} }}",
    "users at once": (
        f"usersAtOnce(query: {{{_PERIOD}, groupBy: [ACCOUNT, SUBSCRIPTION, USER]}}, first: 100) "
        "{ ... on UsersAtOnceReport { groups { key { account user } users at } } }"
    ),
    "portfolio": 'portfolio(asOf: "2026-10-02") { band accounts }',
    "drop-offs": 'dropOffs(asOf: "2026-10-02") { nodes { account { key name } reasons { value } } }',
    "simulation": f'simulatePlan(input: {{plan: "basic", {_PERIOD}}}) {{ ... on PlanSimulation {{ current {{ amount }} }} }}',
    "credits": f'a: creditBalance(account: "acme") {{ {_CREDITS} }} b: creditBalance(account: "beta") {{ {_CREDITS} }}',
    "revenue": f"revenueMovements({_PERIOD}) {{ ... on RevenueReport {{ periods {{ movements {{ unknown }} }} }} }}",
    "survey": 'surveyCandidates(asOf: "2026-09-23", filter: {askedBy: []}) { nodes { account user } }',
    "plan revenue": f"planRevenue({_PERIOD}) {{ ... on PlanRevenueReport {{ totals {{ amount }} }} }}",
    "customer charges": (
        f"chargesByCustomer({_PERIOD}, {_BEFORE}) {{ ... on CustomerChargesReport {{ totals {{ after {{ amount }} }} }} }}"
    ),
    "explanation": " ".join(
        f'{account}: explainCharges(input: {{account: "{account}", {_PERIOD}, {_BEFORE}, by: []}}) {{ {_EXPLANATION} }}'
        for account in ("acme", "beta")
    ),
}


Added = Callable[[Api], None]


@contextmanager
def worlds_of(server: Server, added: Mapping[str, Added]) -> Iterator[tuple[Worlds, Found]]:
    """Copies of one world, each with rows of its own; and what the first of them holds."""
    base = server.clone()
    partner = make_base(base)
    made = {name: copy_of(server, base, f"reach_{next(_names)}") for name in added}
    with ExitStack() as stack:
        for url in (*made.values(), base):
            stack.callback(server.drop, url)
        for url in made.values():
            # What is usual among all customers is in scores; here are those of one's own that everybody's world has.
            stack.enter_context(resting(url))
        apis = {name: stack.enter_context(running(url, **TOKENS)) for name, url in made.items()}
        for name, add in added.items():
            add(apis[name])
            evaluate(made[name], "2026-09-21")
            score_others(made[name])
            # What is new gets an id that nobody can have found: rows are numbered over all accounts, and the worlds, which
            # are copies, seal numbers alike.
            asyncio.run(count_from(made[name], 1_000_000))
        credentials = {
            "partner": partner,
            "front end": token(accounts=["acme", "nobody"], scope=READS),
            "subscription": token(accounts=["acme"], subscriptions=["s-acme-1"], scope=READS),
            "user": token(accounts=["acme"], user="ana", scope=READS),
            "stranger": token(accounts=[], scope=READS),
        }
        beside = {caller: caller if caller in added else "others" for caller in CALLERS}
        everything = apis["first"].ask(_EVERYTHING) | apis["first"].ask(_MORE)
        yield Worlds(apis=apis, beside=beside, credentials=credentials), found_in(everything)


async def count_from(url: str, number: int) -> None:
    """Let numbers of new rejected events, statements and entries of ledgers begin with this one."""
    connection = await asyncpg.connect(url)
    try:
        for table in ("rejected_event", "statement", "credit_entry"):
            await connection.execute("SELECT setval(pg_get_serial_sequence($1, 'id'), $2)", table, number)
    finally:
        await connection.close()


@pytest.fixture(scope="module", params=ENGINES)
def worlds(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[tuple[Worlds, Found]]:
    """Four worlds on each engine."""
    added = {"first": add_first, "others": add_others, "subscription": add_subscription, "user": add_user}
    with worlds_of(servers[request.param], added) as made:
        yield made


def found_in(answer: dict[str, Any]) -> Found:
    """The ids and cursors of an answer, by the lists that have them."""
    accounts, contracts = ("acme", "beta", "zebra"), ("s-acme-1", "s-acme-2", "s-beta-1", "a-zebra-2")
    found = Found(
        {
            "none": ["nothing"],
            "accounts": [node_id("Account", key) for key in accounts],
            "contracts": [node_id("SubscriptionFacts", key) for key in contracts],
            "drafts": [node_id("DraftStatement", key, "2026-09-01T00:00:00Z") for key in contracts],
        },
        {},
    )
    for alias, value in answer.items():
        # Two of one field have names like `creditLedger_beta`.
        _find(alias.partition("_")[0], value, found)
    found.cursors.update(_FIGURES)
    # Few of the lists of teams have rows here; what is behind a place is asked of each.
    places = [encode_cursor([signs, -4.0, key, key]) for signs in (0, 1) for key in accounts]
    found.cursors.update(dict.fromkeys(lists_of_teams(), places))
    found.cursors["users"] = [encode_cursor([key]) for key in ("ana", "mole", "zoe")]
    return found


def _find(field: str, value: Any, found: Found) -> None:
    if isinstance(value, list):
        for each in value:
            _find(field, each, found)
    elif isinstance(value, dict):
        if "cursor" in value:
            found.cursors.setdefault(field, []).append(value["cursor"])
        if "id" in value:
            # Final statements and drafts are listed together, and are of two kinds.
            found.ids.setdefault(type(named(value["id"])).__name__, []).append(value["id"])
        for name, inner in value.items():
            _find(field if name in {"edges", "node"} else name, inner, found)


@pytest.fixture(scope="module", params=ENGINES)
def changing(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[tuple[Worlds, Found]]:
    """Two worlds on each engine that callers may change."""
    with worlds_of(servers[request.param], {"first": add_first, "others": add_others}) as made:
        yield made


def lists_of_teams() -> list[str]:
    """The root fields that list subjects."""
    return [name for name in fields_of("Query") if "ListedSubject" in str(SCHEMA.type_map["Query"].fields[name].type)]  # type: ignore[attr-defined]


def fields_of(kind: str) -> list[str]:
    """The root fields of this type."""
    return sorted(SCHEMA.type_map[kind].fields)  # type: ignore[attr-defined]


@pytest.mark.parametrize("field", fields_of("Query"))
def test_what_is_beyond_reach_changes_no_answer(worlds: tuple[Worlds, Found], field: str) -> None:
    """Whatever a caller asks a root field, with whichever ids and cursors, worlds that look alike to it answer alike."""
    made, found = worlds

    @given(st.data(), st.sampled_from(CALLERS))
    @EACH_FIELD
    def check(data: st.DataObject, caller: str) -> None:
        document = Asking(SCHEMA, data.draw, found).document("Query", field)
        first, other = made.answers(caller, document)
        assert first == other
        assert not {"GRAPHQL_INVALID", "INTERNAL"} & codes_in(first), first

    check()


@pytest.mark.parametrize("field", fields_of("Subscription"))
def test_what_is_beyond_reach_changes_no_live_answer(worlds: tuple[Worlds, Found], field: str) -> None:
    """What a caller asks again and again is answered alike, too, from the first time on."""
    made, found = worlds

    @given(st.data(), st.sampled_from(CALLERS))
    @EACH_FIELD
    def check(data: st.DataObject, caller: str) -> None:
        document = Asking(SCHEMA, data.draw, found).document("Subscription", field)
        first, other = made.first_answers(caller, document)
        assert first == other
        # What is no valid document is told by another message.
        assert "next" == first["type"], first

    check()


@pytest.mark.parametrize("field", fields_of("Mutation"))
def test_what_is_beyond_reach_changes_no_change(changing: tuple[Worlds, Found], field: str) -> None:
    """Whatever a caller changes, it is told the same in worlds that look alike to it, but for what is new and its time."""
    made, found = changing

    @given(st.data())
    @EACH_FIELD
    def check(data: st.DataObject) -> None:
        document = Asking(SCHEMA, data.draw, found).document("Mutation", field)
        first, other = made.answers("partner", document)
        assert without_news(first) == without_news(other)
        assert not {"GRAPHQL_INVALID", "INTERNAL"} & codes_in(first), first

    check()


@pytest.mark.parametrize("caller", CALLERS)
def test_no_id_leads_beyond_reach(worlds: tuple[Worlds, Found], caller: str) -> None:
    """Every id that there is in the first world is tried: what is another's is answered as what does not exist."""
    made, found = worlds
    ids = [each for of_kind in found.ids.values() for each in of_kind]
    asked = " ".join(f'n{number}: node(id: "{each}") {{ __typename }}' for number, each in enumerate(ids))
    first, other = made.answers(caller, f"{{ {asked} }}")

    assert first == other


@pytest.mark.parametrize(
    "change",
    [
        'voidStatement(id: "%s", reason: "r") { __typename ... on Problem { code message } }',
        'retryRejectedEvents(input: [{id: "%s"}]) { __typename ... on Problem { code message } }',
    ],
)
def test_what_is_another_s_is_told_as_what_does_not_exist(changing: tuple[Worlds, Found], change: str) -> None:
    """Every id that there is in the first world is tried in a change of what it names; the words are the same, too."""
    made, found = changing
    ids = [*found.ids["StatementName"], *found.ids["RejectedEventName"]]
    first, other = made.answers("partner", f"mutation {{ {_aliased(change, ids)} }}")

    assert first == other
    assert b"NOT_FOUND" in first


def _aliased(change: str, ids: list[str]) -> str:
    return " ".join(f"c{number}: {change % each}" for number, each in enumerate(ids))


def codes_in(answer: bytes) -> set[str]:
    """The codes of an answer's errors."""
    return {error["extensions"]["code"] for error in msgspec.json.decode(answer).get("errors", ())}


def without_news(answer: bytes) -> bytes:
    """An answer without what each new row has of its own: its id, and when it was made."""
    return _NEWS.sub(b"", answer)


_NEWS: Final = re.compile(
    rb'"(?:of\d+_)?(?:id|receivedAt|at|finalizedAt|voidedAt|publishedAt|createdAt|since)":"[^"]*"'
)


def test_the_worlds_differ(worlds: tuple[Worlds, Found]) -> None:
    """Who sees everything sees another world in each; else that they look alike would say nothing."""
    made, _ = worlds
    documents = [f"{{ {field} }}" for field in ALL_OF.values()]
    answers = [
        [api.client.post("/graphql", json={"query": each}, headers=bearer(ADMIN_KEY)).content for each in documents]
        for api in made.apis.values()
    ]

    for place, asked in enumerate(ALL_OF):
        of_worlds = [each[place] for each in answers]
        assert b"errors" not in of_worlds[0]
        assert of_worlds[0] not in of_worlds[1:], asked


def test_callers_see_what_is_theirs(worlds: tuple[Worlds, Found]) -> None:
    """Each caller sees its own rows in every world: an answer that is always empty would be alike, too."""
    made, _ = worlds
    answers = {
        caller: {name: made.answers(caller, f"{{ {field} }}")[0] for name, field in ALL_OF.items()}
        for caller in CALLERS
    }
    seen = {
        caller: {name for name, answer in of.items() if not codes_in(answer) and answer != answers["stranger"][name]}
        for caller, of in answers.items()
    }
    whole = set(ALL_OF) - {"rejected"}
    part = whole - {"scores", "portfolio", "devices", "revenue", "plan revenue", "survey", "drop-offs"}

    assert {
        "partner": set(ALL_OF),
        "front end": whole,
        # Credits are the whole account's, and so are scores.
        "subscription": part - {"credits"},
        "user": part - {"charges", "customer charges", "statements", "simulation", "credits", "explanation"},
        "stranger": set(),
    } == seen
