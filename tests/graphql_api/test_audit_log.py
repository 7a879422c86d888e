"""The audit log: every change leaves an entry, in the transaction of the change; nothing else does, and nobody changes it."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import asyncpg
import pytest

from graphql_api.schema import make_schema
from metering.keys import Scope
from tests.conftest import ENGINES, Api, Server, make_key, running, usage_event

# What is told again and again by programs: each row says itself who told it, and when.
TOLD: Final = frozenset({"recordUsage", "retryRejectedEvents", "recordSignals", "recordOutcomes", "setPulse"})
_SUBSCRIPTION: Final = '{ key: "s-1", account: "acme", plan: "p", startsAt: "2026-01-01T00:00:00Z" }'
_CARD: Final = (
    '{ bands: [{ from: 0, key: "low" }, { from: 50, key: "high" }], hysteresis: 0, minCoverage: 0.5, '
    'tree: [{ metric: "pulse", weight: 1, curve: [[1, 0], [5, 100]] }] }'
)

_SOON: Final = (datetime.now(UTC) + timedelta(days=30)).date()


class Change(NamedTuple):
    """A mutation as it is asked for, and the entries that it leaves: kind, action, account, subject."""

    asked: str
    leaves: tuple[tuple[str, str, str | None, str | None], ...]


# In an order in which each is possible. A new mutation that changes something must be added, or the test below says so; its
# table gets a trigger like those of migration 0023.
CHANGES: Final[Mapping[str, Change]] = {
    "putMeter": Change('(input: { key: "m", name: "M", unit: "call" })', (("METER", "CREATED", None, "m"),)),
    "publishPlan": Change(
        '(input: { key: "p", name: "P", currencyCode: "EUR", effectiveFrom: "2026-01-01T00:00:00Z", '
        'prices: [{ key: "base", price: { flat: { amount: "10" } } }] })',
        (("PLAN", "CREATED", None, "p"),),
    ),
    "putAccount": Change(
        '(input: { key: "acme", name: "Acme", attributes: { tier: "gold" } })',
        (("ACCOUNT", "CREATED", "acme", "acme"),),
    ),
    "putSubscription": Change(
        f"(input: {_SUBSCRIPTION})",
        (("SUBSCRIPTION", "CREATED", None, "s-1"), ("SUBSCRIPTION", "CREATED", "acme", "s-1")),
    ),
    "correctEvent": Change(
        '(input: { account: "acme", source: "test", id: "event-1", reason: "wrong", '
        'values: { quantity: "2.50", user: "mallory" } })',
        (("EVENT", "CHANGED", "acme", "event-1"),),
    ),
    "finalizeStatement": Change(
        '(subscription: "s-1", at: "2026-02-01T00:00:00Z")', (("STATEMENT", "CREATED", "acme", "s-1"),)
    ),
    "voidStatement": Change('(id: "%s", reason: "wrong")', (("STATEMENT", "CHANGED", "acme", "s-1"),)),
    "grantCredit": Change(
        '(input: { account: "acme", key: "gift", credit: { amount: { amount: "5.50", currencyCode: "EUR" } }, '
        'effectiveAt: "2026-01-01T00:00:00Z" })',
        (("CREDIT_GRANT", "CREATED", "acme", "gift"),),
    ),
    "voidCreditGrant": Change(
        '(input: { account: "acme", key: "gift", reason: "wrong" })', (("CREDIT_GRANT", "CHANGED", "acme", "gift"),)
    ),
    "putUser": Change(
        '(input: { account: "acme", key: "mallory", attributes: { role: "admin" } })',
        (("USER", "CHANGED", "acme", None),),
    ),
    "overrideHealth": Change(
        '(input: { subject: USER, account: "acme", key: "mallory", max: 40, reason: "quarrelled", '
        f'expiresOn: "{_SOON}" }})',
        (("HEALTH_OVERRIDE", "CREATED", "acme", None),),
    ),
    "eraseUser": Change('(input: { account: "acme", key: "mallory" })', (("USER", "ERASED", "acme", None),)),
    "publishScorecard": Change(
        f'(input: {{ key: "said", subject: ACCOUNT, purpose: "said", definition: {_CARD} }})',
        (("SCORECARD", "CREATED", None, "said"),),
    ),
    "putWarningThresholds": Change(
        "(input: { thresholds: { budgetPerYear: 1 } })", (("WARNING_THRESHOLDS", "CREATED", None, "1"),)
    ),
    "recordIntervention": Change(
        '(input: { key: "call", kind: "call", subject: USER, subjects: [{ account: "acme", key: "mallory" }], '
        'startedOn: "2026-01-01", metric: "score" })',
        (("INTERVENTION", "CREATED", None, "call"),),
    ),
    "putAlertRule": Change(
        '(input: { key: "many", name: "Many", threshold: "10", '
        'measure: { quantity: { meter: "m", filter: { user: { in: ["mallory"] } } } } })',
        (("ALERT_RULE", "CREATED", None, "many"),),
    ),
    "putDestination": Change(
        '(input: { key: "team", kind: WEBHOOK, url: "https://example.com/secret", bearer: "secret" })',
        (("DESTINATION", "CREATED", None, "team"),),
    ),
    "rotateDestinationSecret": Change('(input: { key: "team" })', (("DESTINATION", "CHANGED", None, "team"),)),
    "replayDeliveries": Change(
        '(input: { destination: "team", since: "2026-01-01T00:00:00Z" })', (("DESTINATION", "REPLAYED", None, "team"),)
    ),
    "deleteDestination": Change('(key: "team")', (("DESTINATION", "REMOVED", None, "team"),)),
    "createApiKey": Change('(input: { name: "k", scopes: [USAGE_READ] })', (("API_KEY", "CREATED", None, "%s"),)),
    "rotateApiKey": Change(
        '(input: { prefix: "%s" })', (("API_KEY", "CHANGED", None, "%s"), ("API_KEY", "CREATED", None, "%s"))
    ),
    "revokeApiKey": Change('(prefix: "%s")', (("API_KEY", "CHANGED", None, "%s"),)),
}
# What is answered of these is needed by the one after them, or is not of a type with a message.
_SELECTED: Final[Mapping[str, str]] = {
    "finalizeStatement": "... on Statement { id }",
    "createApiKey": "... on CreatedApiKey { key { prefix } }",
    "rotateApiKey": "... on CreatedApiKey { key { prefix } }",
}
_LOG: Final = """
query ($filter: AuditFilter!, $first: Int! = 200, $after: String) {
  auditLog(filter: $filter, first: $first, after: $after) {
    nodes { changedAt by kind action account subject before after } pageInfo { hasNextPage endCursor }
  }
}
"""


class Auditor:
    """Somebody with a key who changes things, and looks at what was noted of it."""

    def __init__(self, api: Api, prefix: str, secret: str) -> None:
        self.api = api
        self.prefix = prefix
        self.secret = secret

    def entries(self, **filters: Any) -> list[dict[str, Any]]:
        """What was noted of what this key did, the newest first."""
        chosen = {"by": self.prefix, **filters}
        nodes: list[dict[str, Any]] = self.api.ask(_LOG, {"filter": chosen})["auditLog"]["nodes"]
        return nodes

    def change(self, name: str, asked: str) -> Any:
        """Ask for a change, which must succeed."""
        selected = f"__typename {_SELECTED.get(name, '')} ... on Problem {{ message }}"
        if name == "revokeApiKey":
            selected = "prefix"
        answer = self.api.ask(f"mutation {{ {name}{asked} {{ {selected} }} }}", key=self.secret)[name]
        assert "message" not in answer, (name, answer)
        return answer


@contextmanager
def auditing(url: str) -> Iterator[Auditor]:
    """The service with an event, and a key of its own that may do everything."""
    key, secret = make_key(url, Scope.ADMIN)
    with running(url) as api:
        assert [] == api.send([usage_event(user="ana")])["rejected"]
        yield Auditor(api, key.prefix, secret)


@pytest.fixture(scope="module", params=ENGINES)
def changed(
    request: pytest.FixtureRequest, servers: dict[str, Server]
) -> Iterator[tuple[str, Auditor, dict[str, Any]]]:
    """A database in which every change was made, each once; and what was noted of each."""
    with servers[request.param].cloned() as url, auditing(url) as auditor:
        noted: dict[str, Any] = {}
        made: list[str] = []
        for name, change in CHANGES.items():
            before = len(auditor.entries())
            answer = auditor.change(name, change.asked % made[-1] if "%s" in change.asked else change.asked)
            given = answer.get("id") or answer.get("prefix") or answer.get("key", {}).get("prefix")
            if given is not None:
                made.append(given)
            entries = auditor.entries()
            noted[name] = entries[: len(entries) - before]
        yield url, auditor, noted


def test_every_mutation_leaves_an_entry(changed: tuple[str, Auditor, dict[str, Any]]) -> None:
    """Whoever changes something is on record with what it was; a mutation that is neither here nor only told fails this."""
    _, auditor, noted = changed
    mutation = make_schema().core.mutation_type
    assert mutation is not None
    assert set(mutation.fields) == TOLD | set(CHANGES)
    for name, change in CHANGES.items():
        left = [(each["kind"], each["action"], each["account"], each["subject"]) for each in noted[name]]
        expected = [each for each in change.leaves if each[3] != "%s"]
        assert len(change.leaves) == len(left), (name, left)
        assert set(expected) <= set(left), (name, left)
        assert {f"a test ({auditor.prefix})"} == {each["by"] for each in noted[name]}
    prefixes = [entry["subject"] for name in ("createApiKey", "rotateApiKey", "revokeApiKey") for entry in noted[name]]
    assert prefixes[0] in prefixes[1:]
    assert prefixes[-1] in prefixes[1:3]


def test_an_entry_says_what_changed(changed: tuple[str, Auditor, dict[str, Any]]) -> None:
    """Fields by their names, amounts exactly, of what was not there nothing before; of secrets and of versions a digest."""
    _, _, noted = changed
    (event,) = noted["correctEvent"]
    (grant,) = noted["grantCredit"]
    (account,) = noted["putAccount"]
    (rotated,) = noted["rotateDestinationSecret"]
    (void,) = noted["voidStatement"]
    (gone,) = noted["deleteDestination"]

    assert ("1", "2.5") == (event["before"]["quantity"], event["after"]["quantity"])
    assert (None, "5.50") == (grant["before"], grant["after"]["amount"])
    assert {"name": "Acme", "attributes": {"tier": "gold"}} == account["after"]
    assert ["encrypted"] == list(rotated["before"]) == list(rotated["after"])
    assert rotated["before"] != rotated["after"]
    assert (["voidedAt"], None) == (list(void["after"]), void["before"]["voidedAt"])
    assert ("https://example.com/…", None) == (gone["before"]["address"], gone["after"])


def test_no_entry_names_a_user_or_tells_a_secret(changed: tuple[str, Auditor, dict[str, Any]]) -> None:
    """Entries are never erased, so the user of a correction, an override, a rule's filter or of attributes is not in them."""
    url, auditor, _ = changed
    (everything,) = run(url, "SELECT string_agg(audit_entry::text, ' ') FROM audit_entry")

    assert "acme" in everything[0]
    told = ("mallory", "ana", "quarrelled", "whsec_", "example.com/secret", '"secret"', auditor.secret)
    assert [] == [each for each in told if each in everything[0]]


def test_what_changes_nothing_leaves_nothing(changed: tuple[str, Auditor, dict[str, Any]]) -> None:
    """Putting again what is there, failing, asking, being used, and what the service notes for itself are no changes."""
    url, auditor, _ = changed
    before = len(auditor.entries())
    for name in ("putMeter", "publishPlan", "putAccount", "putSubscription", "putAlertRule"):
        auditor.change(name, CHANGES[name].asked)
    failed = auditor.api.ask(
        'mutation { putMeter(input: { key: "m", name: "M", unit: "byte" }) { ... on Conflict { code } } }',
        key=auditor.secret,
    )
    counted = "SELECT count(*) FROM audit_entry"
    all_before = run(url, counted)
    run(url, "UPDATE api_key SET last_used_at = now(); UPDATE alert_rule SET fault = 'x'")
    run(url, "UPDATE destination SET failing_since = now()")

    assert "CONFLICT" == failed["putMeter"]["code"]
    assert before == len(auditor.entries())
    assert all_before == run(url, counted)


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_entry SET by = 'x'", "DELETE FROM audit_entry", "TRUNCATE audit_entry"]
)
def test_nobody_changes_the_log(changed: tuple[str, Auditor, dict[str, Any]], statement: str) -> None:
    """Not even who has the database's password, by any statement of every day."""
    url, _, _ = changed

    with pytest.raises(asyncpg.RaiseError, match="only added to"):
        run(url, statement)


def test_a_console_leaves_entries_too(changed: tuple[str, Auditor, dict[str, Any]]) -> None:
    """What is changed by SQL is signed by the role; what is rolled back leaves nothing, for it did not happen."""
    url, auditor, _ = changed
    run(
        url,
        "INSERT INTO account (key, name, attributes, created_by, changed_by) VALUES ('by-hand', 'B', '{}', 'x', 'x')",
    )
    run(url, "BEGIN; DELETE FROM account WHERE key = 'by-hand'; ROLLBACK")
    run(url, "DELETE FROM account WHERE key = 'by-hand'")
    found = auditor.api.ask(_LOG, {"filter": {"subject": "by-hand"}})["auditLog"]["nodes"]

    assert ["REMOVED", "CREATED"] == [each["action"] for each in found]
    assert found[0]["by"].startswith("the database role ")


def test_the_log_is_read_in_pages_by_any_filter(changed: tuple[str, Auditor, dict[str, Any]]) -> None:
    """Newest first; pages follow each other; filters hold together; and only ADMIN reads it."""
    url, auditor, _ = changed
    entries = auditor.entries()
    paged, after, more = [], None, True
    while more:
        page = auditor.api.ask(_LOG, {"filter": {"by": auditor.prefix}, "first": 7, "after": after})["auditLog"]
        paged += page["nodes"]
        more, after = page["pageInfo"]["hasNextPage"], page["pageInfo"]["endCursor"]
    _, reader = make_key(url, *(scope for scope in Scope if scope is not Scope.ADMIN))
    moment = entries[5]["changedAt"]

    assert entries == paged == sorted(entries, key=lambda entry: entry["changedAt"], reverse=True)
    assert {"acme"} == {each["account"] for each in auditor.entries(account="acme")}
    assert ["DESTINATION"] * 4 == [each["kind"] for each in auditor.entries(kind="DESTINATION", subject="team")]
    assert entries == auditor.entries(since=moment) + auditor.entries(until=moment)
    assert [] == auditor.entries(by="a test")
    assert entries == auditor.entries(by=f"a test ({auditor.prefix})")
    assert [] == auditor.entries(subject="\0")
    refused = auditor.api.answer(_LOG, {"filter": {}}, key=reader)
    assert "FORBIDDEN" == refused["errors"][0]["extensions"]["code"]


def run(url: str, statements: str) -> list[Any]:
    """Run statements on a connection of one's own; the rows of a single one."""

    async def do() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            if statements.startswith("SELECT"):
                return list(await connection.fetch(statements))
            await connection.execute(statements)
            return []
        finally:
            await connection.close()

    return asyncio.run(do())
