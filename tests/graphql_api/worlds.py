"""Worlds that differ only in what some callers may not see: each is a copy of one database, to which other rows were added."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Final

import jwt
import msgspec

from metering.alerts.evaluate import Evaluator
from metering.config import Settings
from metering.keys import KeyRing, Scope
from metering.limits import LIMITS
from metering.outbox.event import OutboxEvent
from metering.outbox.publish import publish
from metering.store.pool import Database
from tests.conftest import ADMIN_KEY, Api, Server, bearer, running
from tests.metering.scored import publish_card, say, score_beside
from tests.rating.tables import at

SECRET: Final = "a secret that is shared with an issuer, in tests"
TOKENS: Final = {"jwt_issuer": "https://issuer.test", "jwt_audience": "metering", "jwt_secret": SECRET}
MINE, OTHERS = "acme", ("aardvark", "beta", "zebra")
PARTNER_SCOPES: Final = (
    Scope.USAGE_READ,
    Scope.USAGE_WRITE,
    Scope.CHARGES_READ,
    Scope.CHARGES_WRITE,
    Scope.CATALOG_READ,
    Scope.CATALOG_WRITE,
    Scope.HEALTH_READ,
    Scope.HEALTH_WRITE,
)
_PATIENCE_SECONDS: Final = 30
_SCORED: Final = tuple(date(2026, 10, day) for day in (1, 2, 3))
DAYS: Final = ("2026-09-03", "2026-09-20", "2026-10-05")

_WARNING: Final = """
INSERT INTO warning (id, type, subject, account, key, about, as_of, last_on, evidence, thresholds_version, raised_at)
VALUES (gen_random_uuid(), 'health.score_dropped', 'ACCOUNT', $1, $1, '', $2, $2, '{"after": 1.0}', 0, clock_timestamp())
"""
_METER: Final = """
mutation ($input: PutMeterInput!) { putMeter(input: $input) { __typename ... on Problem { message } } }
"""
_PLAN: Final = """
mutation ($input: PublishPlanInput!) { publishPlan(input: $input) { __typename ... on Problem { message } } }
"""
_ACCOUNT: Final = """
mutation ($input: PutAccountInput!) { putAccount(input: $input) { __typename ... on Problem { message } } }
"""
_SUBSCRIPTION: Final = """
mutation ($input: PutSubscriptionInput!) { putSubscription(input: $input) { __typename ... on Problem { message } } }
"""
_FINALIZE: Final = """
mutation ($key: String!, $at: DateTime!) {
  finalizeStatement(subscription: $key, at: $at) { __typename ... on Statement { id } ... on Problem { message } }
}
"""
_VOID: Final = """
mutation ($id: ID!) { voidStatement(id: $id, reason: "wrong") { __typename ... on Problem { message } } }
"""
_CREDIT: Final = """
mutation ($input: GrantCreditInput!) { grantCredit(input: $input) { __typename ... on Problem { message } } }
"""
_RULE: Final = """
mutation ($input: PutAlertRuleInput!) { putAlertRule(input: $input) { __typename ... on Problem { message } } }
"""
_DESTINATION: Final = """
mutation ($input: PutDestinationInput!) { putDestination(input: $input) { __typename ... on Problem { message } } }
"""
_INTERVENTION: Final = """
mutation ($input: RecordInterventionInput!) { recordIntervention(input: $input) { __typename ... on Problem { message } } }
"""
_OUTCOMES: Final = """
mutation ($input: [OutcomeInput!]!) { recordOutcomes(input: $input) { __typename ... on Problem { message } } }
"""
_CORRECT: Final = """
mutation ($input: CorrectEventInput!) { correctEvent(input: $input) { __typename ... on Problem { message } } }
"""


def token(**claims: Any) -> str:
    """A token that is good for an hour."""
    told = {
        "iss": TOKENS["jwt_issuer"],
        "aud": TOKENS["jwt_audience"],
        "sub": "a front end",
        "exp": time.time() + 3_600,
    }
    return jwt.encode({**told, **claims}, SECRET, algorithm="HS256")


def key_for(url: str, *accounts: str) -> str:
    """The secret of a new key that is bound to these accounts, and may do there all that can be bound."""

    async def make() -> str:
        database = await Database.connect(Settings(database_url=url), LIMITS)
        try:
            _, secret = await KeyRing(database).create("a partner", PARTNER_SCOPES, accounts)
        finally:
            await database.close()
        return secret

    return asyncio.run(make())


def copy_of(server: Server, url: str, name: str) -> str:
    """The address of a copy of a database that nobody is connected to."""
    source = url.partition("@/")[2].partition("?")[0]
    server.execute(f"CREATE DATABASE {name} TEMPLATE {source}")
    return server.server.url(name)


def done(api: Api, document: str, **variables: Any) -> Any:
    """What a mutation answers that must succeed."""
    ((_, answer),) = api.ask(document, variables).items()
    assert "message" not in answer, answer
    return answer


def offer(api: Api) -> None:
    """What is sold, which is the same in every world."""
    for key, given in {
        "calls": {},
        "users": {"aggregation": "UNIQUE_COUNT", "distinct": "USER"},
        "latest": {"aggregation": "LATEST"},
        "level": {"aggregation": "TIME_WEIGHTED"},
        "most": {"aggregation": "MAX"},
    }.items():
        done(api, _METER, input={"key": key, "name": key, "unit": "call", **given})
    prices = [
        {"key": "base", "price": {"flat": {"amount": "10"}}},
        {"key": "calls", "meter": "calls", "price": {"perUnit": {"unitPrice": "0.5"}}},
    ]
    plan = {"key": "basic", "name": "Basic", "currencyCode": "EUR", "effectiveFrom": "2026-01-01T00:00:00Z"}
    done(api, _PLAN, input={**plan, "prices": prices})


def customer(api: Api, account: str, subscriptions: Iterable[str], users: Sequence[str | None], **given: Any) -> None:
    """An account with its subscriptions, and usage of these users on each."""
    done(api, _ACCOUNT, input={"key": account, "name": account.title(), "attributes": {"segment": account}})
    for key in subscriptions:
        contract = {"key": key, "account": account, "plan": "basic", "seats": len(account)}
        days = {"startsAt": "2026-09-01T00:00:00Z", "endsAt": "2026-11-01T00:00:00Z"}
        done(api, _SUBSCRIPTION, input={**contract, **days})
    use(api, account, [*subscriptions, None], users, **given)


def use(
    api: Api,
    account: str,
    subscriptions: Sequence[str | None],
    users: Sequence[str | None],
    quantity: str = "3",
    **given: Any,
) -> None:
    """Usage on some days, of each user on each subscription; and one event that is corrected, one that is voided."""
    events = [
        {
            # Names are used in every account alike.
            "id": f"{day}-{subscription and subscription[-1]}-{user}",
            "source": "gateway",
            "occurred_at": f"{day}T10:{number:02}:30Z",
            "account": account,
            "subscription": subscription,
            "user": user,
            "device": f"{user}-phone",
            "product": "maps" if number % 2 else "mail",
            "unit": "byte" if number % 4 == 3 else "call",
            "quantity": quantity,
            "attributes": {"of": account},
            **given,
        }
        for day in DAYS
        for number, (subscription, user) in enumerate((each, user) for each in subscriptions for user in users)
    ]
    assert [] == api.send(events)["rejected"]
    named = {"account": account, "source": given.get("source", "gateway")}
    done(api, _CORRECT, input={**named, "id": events[0]["id"], "reason": "too many", "values": {"quantity": "2"}})
    done(api, _CORRECT, input={**named, "id": events[-1]["id"], "reason": "never", "void": True})


def bill(api: Api, subscription: str) -> None:
    """A statement that was frozen, one that was taken back, and one that is a draft."""
    done(api, _FINALIZE, key=subscription, at="2026-10-10T00:00:00Z")
    frozen = done(api, _FINALIZE, key=subscription, at="2026-09-10T00:00:00Z")
    done(api, _VOID, id=frozen["id"])


def credit(api: Api, account: str, key: str = "gift", **credit: Any) -> None:
    """A grant of money, or what is given, that pays for what is used from September on, and was not all drawn yet."""
    given = credit or {"amount": {"amount": "500", "currencyCode": "EUR"}}
    grant = {"account": account, "key": key, "credit": given, "effectiveAt": "2026-09-01T00:00:00Z"}
    done(api, _CREDIT, input=grant)


def watch(api: Api, key: str, accounts: Sequence[str], *, enabled: bool = True, **filters: Any) -> None:
    """A rule about these accounts, which any call of a user raises an alert of."""
    by_user = {"meter": "calls", "groupBy": ["ACCOUNT", "SUBSCRIPTION", "USER"], "filter": filters}
    rule = {"key": key, "name": key, "accounts": accounts, "threshold": "1", "enabled": enabled}
    done(api, _RULE, input={**rule, "measure": {"quantity": by_user}})


def evaluate(url: str, *instants: str) -> None:
    """Evaluate all rules as of these instants."""

    async def run() -> None:
        database = await Database.connect(Settings(database_url=url), LIMITS)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                for instant in instants:
                    # A service's own evaluator may have the turn for a moment.
                    while await Evaluator(database, LIMITS).run(at(instant)) is None:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
        finally:
            await database.close()

    asyncio.run(run())


def intervene(api: Api, accounts: Sequence[str]) -> None:
    """Something that was done for these accounts, and what became of them."""
    need = {"metric": "pulse", "atMost": 3}
    given = {"key": "webinar", "kind": "webinar", "keys": accounts, "startedOn": "2026-10-02", "windowDays": 1}
    done(api, _INTERVENTION, input={**given, "metric": "score", "segmentBy": "segment", "need": need})
    outcome = {"subject": "ACCOUNT", "kind": "CHURNED", "at": "2026-10-05T00:00:00Z", "source": "crm"}
    done(api, _OUTCOMES, input=[{**outcome, "key": account} for account in accounts])


async def _tell(url: str) -> None:
    """Publish something just now: what was told of as long ago as usage is, is forgotten."""
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        async with database.transaction() as connection:
            await publish(connection, OutboxEvent(type="test.made", subject=f"account/{MINE}", data={}))
    finally:
        await database.close()


def alarm(api: Api, url: str) -> None:
    """Alerts of one's own that are resolved, by a rule that is switched off: so nothing becomes of them in any world."""
    destination = {"key": "team", "kind": "WEBHOOK"}
    done(api, _DESTINATION, input={**destination, "url": "https://hooks.test/"})
    watch(api, "mine", [MINE])
    evaluate(url, "2026-09-10", "2026-10-01")
    asyncio.run(_tell(url))
    watch(api, "mine", [MINE], enabled=False)
    # By the change of the rule, and here: not by each world at a time of its own.
    evaluate(url, "2026-10-02")
    # What waits there is not sent: nobody listens.
    done(api, _DESTINATION, input={**destination, "enabled": False})


def refuse(api: Api, account: str, key: str = ADMIN_KEY) -> None:
    """Events that are refused, and kept; of a caller that is bound, also others' accounts'."""
    events = [{"id": account, "source": "gateway"}, {"id": f"{account}?", "account": account, "quantity": "x"}]
    others = [] if key == ADMIN_KEY else [_of(other) for other in OTHERS]
    assert len(events) + len(others) == len(api.send([*events, *others], key=key)["rejected"])


def _of(account: str) -> Mapping[str, Any]:
    event = {"id": "mine?", "source": "gateway", "occurred_at": "2026-09-03T09:00:00Z", "account": account}
    return {**event, "product": "maps", "unit": "call", "quantity": "1"}


class Worlds(msgspec.Struct, frozen=True):
    """Services on worlds, by name, and who may ask there."""

    apis: Mapping[str, Api]
    # A world beside the first one that looks the same to a caller, by the caller's name; and its credential.
    beside: Mapping[str, str]
    credentials: Mapping[str, str]

    def answers(self, caller: str, document: str) -> tuple[bytes, bytes]:
        """What a caller is answered in the first world, and in the one beside it."""
        asked = [self.apis[name] for name in ("first", self.beside[caller])]
        first, other = (
            api.client.post("/graphql", json={"query": document}, headers=bearer(self.credentials[caller]))
            for api in asked
        )
        assert first.status_code == other.status_code
        return first.content, other.content

    def first_answers(self, caller: str, document: str) -> tuple[Any, Any]:
        """The first thing that a caller is sent in both worlds that asks a live question."""
        first, other = (
            _first_answer(self.apis[name], self.credentials[caller], document)
            for name in ("first", self.beside[caller])
        )
        return first, other


def _first_answer(api: Api, credential: str, document: str) -> Any:
    with api.client.websocket_connect("/graphql", subprotocols=["graphql-transport-ws"]) as session:
        session.send_json({"type": "connection_init", "payload": bearer(credential)})
        assert {"type": "connection_ack"} == session.receive_json()
        session.send_json({"id": "1", "type": "subscribe", "payload": {"query": document}})
        return session.receive_json()


def make_base(url: str) -> str:
    """Fill what all worlds have in common; return the partner's secret."""
    partner = key_for(url, MINE)
    with running(url, **TOKENS) as api:
        offer(api)
        customer(api, MINE, ["s-acme-1"], ["ana", "ben", None])
        credit(api, MINE)
        credit(api, MINE, "calls", quantity={"quantity": "1.5", "meter": "calls"})
        bill(api, "s-acme-1")
        refuse(api, MINE, partner)
        alarm(api, url)
    score(url, [MINE])
    return partner


def score_others(url: str) -> None:
    """Scores of everybody but one's own account."""
    score(url, [*OTHERS, "gamma"])


def score(url: str, accounts: Sequence[str]) -> None:
    """Scores of accounts, of what is said of them, on three days; and a warning of each."""

    async def made() -> None:
        database = await Database.connect(Settings(database_url=url), LIMITS)
        try:
            if MINE in accounts:
                await publish_card(database)
            for number, account in enumerate(accounts, start=1):
                await say(database, _SCORED[0], account, pulse=5 - number % 5, nps=number, drop_z=2 + number)
            for day in _SCORED:
                await score_beside(database, day, *accounts)
            async with database.transaction() as connection:
                await connection.executemany(_WARNING, [(account, _SCORED[1]) for account in accounts])
        finally:
            await database.close()

    asyncio.run(made())


def add_first(api: Api) -> None:
    """What is hidden in the first world: much, before and after one's own in every order."""
    for account, quantity in zip(OTHERS, ("0.5", "1000", "7"), strict=True):
        customer(
            api,
            account,
            [f"s-{account}-1", f"a-{account}-2"],
            ["ana", "mole"],
            quantity=quantity,
            feature=f"of-{account}",
        )
        credit(api, account)
        bill(api, f"s-{account}-1")
        refuse(api, account)
    _sneak(api, "beta")
    intervene(api, OTHERS)
    watch(api, "a-others", OTHERS)
    watch(api, "of-everyone", [MINE, *OTHERS], user={"in": ["mole"]})


def add_others(api: Api) -> None:
    """What is hidden in the worlds beside it: something else."""
    customer(api, "gamma", ["s-gamma-1"], ["rat"], quantity="250", product="secret")
    refuse(api, "gamma")
    watch(api, "z-gamma", ["gamma"])


def add_subscription(api: Api) -> None:
    """What a caller does not see that is bound to one's own subscription."""
    customer(api, MINE, ["s-acme-2"], ["ana", "zoe"], quantity="11", source="other", product="novel")
    credit(api, MINE, "second")
    watch(api, "second", [MINE], subscription={"in": ["s-acme-2"]})
    bill(api, "s-acme-2")


def add_user(api: Api) -> None:
    """What a caller does not see that is bound to one's own user."""
    use(api, MINE, ["s-acme-1"], ["zoe"], quantity="11", product="novel")
    watch(api, "zoe", [MINE], user={"in": ["zoe"]})


def _sneak(api: Api, account: str) -> None:
    """Another account's usage that names one's own subscription, user and device."""
    use(api, account, ["s-acme-1"], ["ana"], quantity="77", device="ana-phone", source="sneak")
