"""What front ends ask of the API, of the largest account of the data set (dataset.py); and the dearest that may be asked."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from client import Client

from graphql_api.nodes import node_id
from metering.limits import LIMITS

ACCOUNT = "account-0000"
SUBSCRIPTION = "team-0"
_DOCUMENT = "query ($query: UsageQuery!) { usage(query: $query) { __typename ... on UsageReport { %s } } }"
_COLUMNS = "groups(first: %d) { nodes { key { user } series(bucket: %s) { unit columns { from quantity events } } } }"
_PAGE = """
query ($query: UsageQuery!, $account: ID!, $key: String!, $subscription: String!, $at: DateTime!) {
  node(id: $account) { ... on Account { name attributes subscriptions { key plan renewsAt seats } } }
  account(key: $key) { health { score band drivers { metric contribution } } }
  usage(query: $query) { ... on UsageReport {
    totals { unit quantity events distinct(dimension: USER) }
    groups(first: 10) { nodes { key { product } series(bucket: DAY) { unit columns { from quantity } } } }
  } }
  statement(subscription: $subscription, at: $at) {
    ... on Statement { status total { amount currencyCode } lines { description quantity amount { amount } } }
  }
}
"""
_HEALTH = """
query ($account: String!, $since: Date!) { account(key: $account) { health {
  score band coverage baseline drivers { path metric value score weight contribution state }
  change(since: $since) { difference parts { metric cause contribution before after } }
} } }
"""
_OFFER = """
mutation ($subscription: String!, $account: String!, $at: DateTime!) {
  calls: putMeter(input: { key: "calls", name: "Calls", unit: "call" }) { ...Failed }
  gigabytes: putMeter(input: { key: "gigabytes", name: "Gigabytes", unit: "gigabyte" }) { ...Failed }
  publishPlan(input: { key: "basic", name: "Basic", currencyCode: "EUR", effectiveFrom: $at, prices: [
    { key: "base", price: { flat: { amount: "100" } } }
    { key: "calls", meter: "calls", price: { perUnit: { unitPrice: "0.01" } } }
    { key: "gigabytes", meter: "gigabytes", price: { perUnit: { unitPrice: "0.02" } } }
  ] }) { ...Failed }
  putAccount(input: { key: $account, name: "The largest" }) { ...Failed }
  putSubscription(input: { key: $subscription, account: $account, plan: "basic", startsAt: $at }) { ...Failed }
}
fragment Failed on Problem { message }
"""
_DEAREST = """
query ($query: UsageQuery!) { %s }
fragment All on UsageReport { groups(first: 1000) { totalCount nodes {
  key { account user device product feature classification unit }
  totals { quantity users: distinct(dimension: USER) devices: distinct(dimension: DEVICE) }
} } }
"""


def _usage(start: datetime, end: datetime, selection: str, **narrowed: object) -> bytes:
    period = {"from": f"{start:%FT%TZ}", "to": f"{end:%FT%TZ}"}
    query = {"period": period, **narrowed}
    return msgspec.json.encode({"query": _DOCUMENT % selection, "variables": {"query": query}})


def questions(now: datetime) -> Mapping[str, tuple[bytes, int]]:
    """By name: the body of a request, and how many milliseconds half of the answers may take at most."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    one = {"account": {"in": [ACCOUNT]}, "unit": {"in": ["call"]}}
    month, all_of_it = today - timedelta(days=30), {"account": {"in": [ACCOUNT]}}
    hours = today - timedelta(hours=100)
    week = today - timedelta(minutes=10_000)
    page = {
        "query": {
            "period": {"from": f"{month:%FT%TZ}", "to": f"{now:%FT%TZ}"},
            "groupBy": ["PRODUCT"],
            "filter": all_of_it,
        },
        "account": node_id("Account", ACCOUNT),
        "key": ACCOUNT,
        "subscription": SUBSCRIPTION,
        "at": f"{now:%FT%TZ}",
    }
    health = {"account": ACCOUNT, "since": f"{today - timedelta(days=1):%F}"}
    top = "groups(first: 20) { nodes { key { user } totals { quantity events } } }"
    return {
        "`{ service { status } }`": (msgspec.json.encode({"query": "{ service { status } }"}), 2),
        "chart of one account, 30 days x 24 h": (_usage(month, today, _COLUMNS % (1, "HOUR"), filter=one), 8),
        "top 20 users of one account, 30 days": (_usage(month, today, top, filter=one, groupBy=["USER"]), 15),
        "100 users x 100 hours as columns": (
            _usage(hours, today, _COLUMNS % (100, "HOUR"), filter=one, groupBy=["USER"]),
            40,
        ),
        "10,000 minutes of one account as columns": (_usage(week, today, _COLUMNS % (1, "MINUTE"), filter=one), 25),
        "page of one account: facts, health, usage by product and day, statement": (
            msgspec.json.encode({"query": _PAGE, "variables": page}),
            30,
        ),
        "health of one account, its drivers and its change": (
            msgspec.json.encode({"query": _HEALTH, "variables": health}),
            10,
        ),
    }


def dearest(now: datetime, days: int) -> bytes:
    """As many rows as one operation may have, a thousand a page, of everybody's usage by everything, with distinct values."""
    pages = LIMITS.graphql_rows_max // LIMITS.page_rows_max
    roots = " ".join(f"u{number}: usage(query: $query) {{ ...All }}" for number in range(pages))
    query = {
        # From a second to a second, so that the edges are read event by event.
        "period": {"from": f"{now - timedelta(days=days, seconds=1):%FT%TZ}", "to": f"{now:%FT%TZ}"},
        "groupBy": ["ACCOUNT", "USER", "DEVICE", "PRODUCT", "FEATURE", "CLASSIFICATION", "UNIT"],
    }
    return msgspec.json.encode({"query": _DEAREST % roots, "variables": {"query": query}})


async def once(address: str, body: bytes) -> bytes:
    """What a request is answered, over a connection of its own: idle ones are closed by the service."""
    client = await Client.connect(address, "/graphql")
    _, answer = await client.post(body)
    client.close()
    return answer


async def offer(address: str, now: datetime) -> None:
    """Put what the largest account's statement is made of."""
    variables = {"subscription": SUBSCRIPTION, "account": ACCOUNT, "at": f"{now - timedelta(days=89):%FT00:00:00Z}"}
    answer = await once(address, msgspec.json.encode({"query": _OFFER, "variables": variables}))
    decoded = msgspec.json.decode(answer)
    if "errors" in decoded or any(decoded["data"].values()):
        raise SystemExit(answer.decode())


def utc_now() -> datetime:
    """Now."""
    return datetime.now(UTC)


def faults_in(answer: bytes) -> Sequence[str]:
    """The codes of an answer's errors."""
    return [error["extensions"]["code"] for error in msgspec.json.decode(answer).get("errors", ())]
