"""Erasing a user: no figure changes that is not asked for by user, and nothing names the user any more, in any table."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from metering.config import Settings
from metering.keys import Scope
from metering.limits import LIMITS, Limits
from metering.retention import Ages, Retention
from metering.rollups.reconcile import Reconciler
from metering.rollups.refresh import REFRESHER_LOCK, Refresher
from metering.store.pool import Database
from tests.conftest import Api, make_key, running, usage_event
from tests.graphql_api.worlds import evaluate

USER, DEVICE = "ana-müller (marked)", "ana-phone-marked"
NOW: Final = datetime.now(UTC).replace(microsecond=0)
_DAY: Final = timedelta(days=1)
ERASE: Final = """
mutation ($account: String!, $user: String!) {
  eraseUser(input: { account: $account, key: $user }) {
    ... on EraseUserSuccess { events } ... on InvalidInput { issues { path } } ... on Problem { code }
  }
}
"""
_PERIOD: Final = f'period: {{ from: "{NOW - 30 * _DAY:%F}T00:00:00Z", to: "{NOW + _DAY:%F}T00:00:00Z" }}'
_ODD_PERIOD: Final = f'period: {{ from: "{NOW - 18 * _DAY:%FT%T}Z", to: "{NOW:%FT%T}Z" }}'
_TOTALS: Final = (
    "unit quantity events minimum maximum users: distinct(dimension: USER) devices: distinct(dimension: DEVICE)"
)
# Every figure that is not asked for by user, from every width of the rollups and from events.
FIGURES: Final = f"""{{
  all: usage(query: {{ {_PERIOD}, groupBy: [ACCOUNT, PRODUCT] }}) {{
    ... on UsageReport {{
      totals {{ unit quantity events minimum maximum }}
      groups {{ nodes {{
        key {{ account product }} totals {{ {_TOTALS} }} series(bucket: DAY) {{ columns {{ quantity events }} }}
      }} }}
    }}
  }}
  odd: usage(query: {{ {_ODD_PERIOD}, filter: {{ account: {{ in: ["acme"] }} }} }}) {{
    ... on UsageReport {{ totals {{ {_TOTALS} }} }}
  }}
  seats: meterUsage(meter: "users", query: {{ {_PERIOD}, filter: {{ account: {{ in: ["acme"] }} }} }}) {{
    ... on MeterReport {{ total {{ quantity }} }}
  }}
}}"""
BY_USER: Final = f"""{{
  usage(query: {{ {_PERIOD}, groupBy: [ACCOUNT, USER] }}) {{
    ... on UsageReport {{ groups(first: 50) {{ nodes {{ key {{ account user }} totals {{ events quantity }} }} }} }}
  }}
}}"""
TOLD: Final = """
mutation ($user: String!) {
  putUser(input: { account: "acme", key: $user, attributes: { role: "admin" } }) { __typename }
  recordIntervention(input: {
    key: "call", kind: "call", metric: "score", startedOn: "2026-03-01"
    subject: USER, subjects: [{ account: "acme", key: $user }]
  }) { __typename }
  overrideHealth(input: { subject: USER, account: "acme", key: $user, max: 40, reason: "r", expiresOn: "%s" }) { __typename }
  recordSignals(input: [
    { subject: USER, account: "acme", key: $user, name: "nps", value: 9, at: "2026-03-02T00:00:00Z", source: "s" }
  ]) { __typename }
  less: correctEvent(input: {
    account: "acme", source: "test", id: "event-1", reason: "r", values: { quantity: "7.25", attributes: { name: "ana-m" } }
  }) { __typename }
  given: correctEvent(input: { account: "acme", source: "test", id: "event-2", reason: "r", values: { user: "ben" } }) {
    __typename
  }
  said: correctEvent(input: {
    account: "acme", source: "test", id: "event-2", reason: "r", values: { attributes: { name: "ana-m" } }
  }) { __typename }
  device: putAlertRule(input: {
    key: "device", name: "D", threshold: "1"
    measure: { quantity: { meter: "calls", groupBy: [ACCOUNT, DEVICE], bucket: MONTH } }
  }) { __typename }
  putAlertRule(input: {
    key: "many", name: "Many", threshold: "1", measure: { quantity: { meter: "calls", groupBy: [ACCOUNT, USER], bucket: MONTH } }
  }) { __typename }
}
"""
# That a champion is lost takes months of usage: what is kept of it then.
LOST: Final = """
INSERT INTO warning (id, type, subject, account, key, about, as_of, last_on, evidence, thresholds_version, raised_at)
SELECT gen_random_uuid(), 'champion.lost', subject, 'acme', key, about, '2026-03-01', '2026-03-01', evidence, 0, now()
FROM (VALUES
    ('ACCOUNT', 'acme', $1::text, jsonb_build_object('user', $1::text, 'why', 'silent')), ('USER', $1, '', '{}')
) AS lost (subject, key, about, evidence)
"""
MEASURED: Final = """
INSERT INTO measured (account, subject, key, as_of, computed_at, metrics) VALUES ('acme', 'ACCOUNT', 'acme', '2026-03-01', now(),
    jsonb_build_object('champion_lost', jsonb_build_object('value', 1, 'users', jsonb_build_array($1::text, 'ben'))))
"""
# As rows of another account say it, and bodies of refused events.
_OF_OTHERS: Final = ('"account": "beta"', '\\"account\\":\\"beta\\"')


def events() -> list[dict[str, Any]]:
    """Usage of weeks, up to seconds ago: the user's, somebody's with one of the devices, nobody's, and a namesake's elsewhere."""
    made = []
    ago = [*(days * _DAY for days in (20, 18, 17, 9, 1)), timedelta(minutes=20), timedelta(seconds=1)]
    starts = [NOW - each for each in ago]
    for number, at in enumerate(starts):
        for place, (account, user, device) in enumerate(
            [
                ("acme", USER, DEVICE),
                ("acme", USER, "shared"),
                ("acme", "ben", "shared"),
                ("acme", None, None),
                ("beta", USER, "beta-phone"),
            ]
        ):
            given = {"account": account, "user": user, "device": device, "quantity": f"{number + 1}.{place + 1}"}
            attributes = {"mail": f"{USER}@example.com"} if account == "acme" and user == USER else None
            product = "maps" if number % 2 else "mail"
            made.append(
                usage_event(1 + len(made), occurred_at=at.isoformat(), product=product, attributes=attributes, **given)
            )
    return made


@contextmanager
def used(url: str) -> Iterator[Api]:
    """The service with that usage, rolled up and as columns where there are some; and with all that is said of the user."""
    with running(url) as api:
        for key, given in {"calls": "", "users": ", aggregation: UNIQUE_COUNT, distinct: USER"}.items():
            api.ask(
                f'mutation {{ putMeter(input: {{ key: "{key}", name: "M", unit: "call"{given} }}) {{ __typename }} }}'
            )
        assert [] == api.send(events())["rejected"]
        soon = (datetime.now(UTC) + timedelta(days=9)).date()
        api.ask(TOLD % soon, {"user": USER})
        refused = [usage_event(900, user=USER, quantity="x"), usage_event(901, user=USER, account="beta", quantity="x")]
        assert 2 == len(api.send(refused)["rejected"])
        evaluate(url, f"{NOW:%FT%T}Z")
        asyncio.run(settled(url))
        asyncio.run(lose_champion(url))
        yield api


async def lose_champion(url: str) -> None:
    """Keep what is kept when the user is a champion who is lost."""
    connection = await asyncpg.connect(url)
    try:
        for statement in (LOST, MEASURED):
            await connection.execute(statement, USER)
    finally:
        await connection.close()


async def settled(url: str) -> None:
    """Roll up until then, and make columns of what is older."""
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        # A service's own refresher may have the turn for a moment.
        async with asyncio.timeout(60):
            while await Refresher(database).run(NOW) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await Retention(database, Ages(events=None, rollups=None, rows=timedelta(days=5))).convert(NOW)
    finally:
        await database.close()


async def drift(url: str) -> list[Any]:
    """Where rollups and events differ, after the refresher has done all that there is to do."""
    await settled(url)
    database = await Database.connect(Settings(database_url=url), LIMITS)
    try:
        reconciler = Reconciler(database, LIMITS, None)
        steps = await reconciler.plan_all()
        assert steps
        return [each for step in steps for each in (await reconciler.compare(step)).drift]
    finally:
        await database.close()


async def named_in(url: str, *texts: str) -> dict[str, int]:
    """In which tables and rollups something stands, in how many rows; accounts but one are left out where a row has one."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() ORDER BY table_name"
        )
        found = {}
        for (name,) in tables:
            rows = await connection.fetch(f'SELECT to_jsonb(each)::text AS row FROM "{name}" AS each')
            own = [row["row"] for row in rows if not any(each in row["row"] for each in _OF_OTHERS)]
            count = sum(any(text in row for text in texts) for row in own)
            if count:
                found[name] = count
        return found
    finally:
        await connection.close()


def by_user(api: Api) -> dict[tuple[str, str | None], tuple[str, str]]:
    """Events and quantities of each user."""
    groups = api.ask(BY_USER)["usage"]["groups"]["nodes"]
    return {
        (each["key"]["account"], each["key"]["user"]): (each["totals"][0]["events"], each["totals"][0]["quantity"])
        for each in groups
    }


def test_erasing_changes_no_figure_and_leaves_no_name(database_url: str) -> None:
    """Sums, counts, extremes and distinct users and devices stay, to the digit; the user's are somebody's who never was; no row
    of any table names the user or a device that was nobody else's; rollups are as events are; and it was noted without the name.
    """
    with used(database_url) as api:
        figures, users = api.ask(FIGURES), by_user(api)
        assert {
            "event",
            "signal",
            "attribute_fact",
            "health_override",
            "rejected_event",
            "alert",
            "event_correction",
            "warning",
            "measured",
            "intervention_audience",
        } <= (asyncio.run(named_in(database_url, USER)).keys())
        erased = api.ask(ERASE, {"account": "acme", "user": USER})["eraseUser"]
        after = by_user(api)

        assert figures == api.ask(FIGURES)
        assert {"events": "13"} == erased
        nobody = next(user for account, user in after if account == "acme" and (user or "").startswith("erased-"))
        assert {**users, ("acme", nobody): users["acme", USER]}.items() - {
            ("acme", USER): users["acme", USER]
        }.items() == after.items()
        assert {} == asyncio.run(named_in(database_url, USER, DEVICE, "ana-m"))
        assert {"measured": 1} == asyncio.run(named_in(database_url, '"users": ["ben"]'))
        assert asyncio.run(named_in(database_url, "shared"))
        assert [] == asyncio.run(drift(database_url))
        assert figures == api.ask(FIGURES)
        entries = api.ask("{ auditLog(filter: { kind: USER }) { nodes { action account subject after } } }")[
            "auditLog"
        ]["nodes"]
        assert {"action": "ERASED", "account": "acme", "subject": None, "after": {"events": 13}} == entries[0]
        # The namesake's of another account, refused events too.
        refused = api.ask("{ rejectedEvents { nodes { body } } }")["rejectedEvents"]["nodes"]
        assert ["beta"] == [account for each in refused for account in ("acme", "beta") if account in each["body"]]


def test_erasing_again_does_nothing_and_who_comes_back_is_new(database_url: str) -> None:
    """What was sent before is known as a duplicate still; what comes later is of a user of that name who has nothing else."""
    with used(database_url) as api:
        erased = [api.ask(ERASE, {"account": "acme", "user": USER})["eraseUser"] for _ in range(2)]
        before = by_user(api)
        again = api.send(events()[:1])
        api.send([usage_event(1_000, user=USER, occurred_at=f"{NOW - 10 * _DAY:%FT%T}Z", quantity="5")])

        assert [{"events": "13"}, {"events": "0"}] == erased
        assert (0, 1) == (again["accepted"], again["duplicates"])
        assert {**before, ("acme", USER): ("1", "5")} == by_user(api)
        asyncio.run(settled(database_url))
        assert [] == asyncio.run(drift(database_url))
        assert {**before, ("acme", USER): ("1", "5")} == by_user(api)


def test_what_fails_in_the_middle_erases_nothing(database_url: str) -> None:
    """The last statement fails: everything is as it was, and erasing afterwards erases all."""

    async def execute(statement: str) -> None:
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    with used(database_url) as api:
        users, named = by_user(api), asyncio.run(named_in(database_url, USER, DEVICE))
        asyncio.run(execute("ALTER TABLE audit_entry ADD CONSTRAINT broken CHECK (action <> 'ERASED')"))
        failed = api.answer(ERASE, {"account": "acme", "user": USER})
        assert "INTERNAL" == failed["errors"][0]["extensions"]["code"]
        assert users == by_user(api)
        # A scorer at work beside may have added some.
        still = asyncio.run(named_in(database_url, USER, DEVICE))
        assert {} == {table: rows for table, rows in named.items() if still.get(table, 0) < rows}
        asyncio.run(execute("ALTER TABLE audit_entry DROP CONSTRAINT broken"))
        assert {"events": "13"} == api.ask(ERASE, {"account": "acme", "user": USER})["eraseUser"]
        assert {} == asyncio.run(named_in(database_url, USER, DEVICE))


def test_who_may_erase_and_what(database_url: str) -> None:
    """ADMIN only; every fault of the names is told; nothing is erased while somebody makes rollups for longer than is waited."""
    _, reader = make_key(database_url, *(scope for scope in Scope if scope is not Scope.ADMIN))
    named = {"account": "acme", "user": USER}

    async def held(api: Api) -> Any:
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", REFRESHER_LOCK)
            return await asyncio.to_thread(api.ask, ERASE, named)
        finally:
            await connection.close()

    with running(database_url, Limits(erasure_wait_seconds_max=1)) as api:
        refused = api.answer(ERASE, named, key=reader)
        faulty = api.ask(ERASE, {"account": "", "user": "\0"})["eraseUser"]
        busy = asyncio.run(held(api))["eraseUser"]
        free = api.ask(ERASE, named)["eraseUser"]

    assert "FORBIDDEN" == refused["errors"][0]["extensions"]["code"]
    assert [["input", "account"], ["input", "key"]] == [each["path"] for each in faulty["issues"]]
    assert ({"code": "CONFLICT"}, {"events": "0"}) == (busy, free)
