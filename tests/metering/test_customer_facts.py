"""What we are told of customers: signals, outcomes and attributes are only added, known again, and refused with every fault."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from health.scorecards import Subject
from metering.accounts import AccountOrder, put_account
from metering.errors import ForbiddenError, InvalidInputError
from metering.health.outcomes import OutcomeKind, OutcomeOrder, record_outcomes
from metering.health.signals import Recorded, SignalOrder, record_signals, set_pulse
from metering.health.users import UserOrder, put_user
from metering.keys import ApiKey
from metering.limits import LIMITS
from metering.store.pool import Database
from tests.metering.catalog import BOUND_KEY, KEY, draft, order, play, publish, put, rows
from tests.rating.tables import at

AT = at("2026-03-01T12:00:00Z")


def signal(**fields: Any) -> SignalOrder:
    """An NPS answer of acme, with these fields instead of the usual ones."""
    given = {
        "subject": Subject.ACCOUNT,
        "key": "acme",
        "name": "nps",
        "value": 9.0,
        "at": AT,
        "source": "survey",
        **fields,
    }
    return SignalOrder(**given)


def outcome(**fields: Any) -> OutcomeOrder:
    """A renewal of acme, with these fields instead of the usual ones."""
    given = {
        "subject": Subject.ACCOUNT,
        "key": "acme",
        "kind": OutcomeKind.RENEWED,
        "at": AT,
        "source": "crm",
        **fields,
    }
    return OutcomeOrder(**given)


async def record(database: Database, *orders: SignalOrder, key: ApiKey = KEY) -> Recorded:
    """Record signals."""
    return await record_signals(database, orders, key, LIMITS)


async def faults(database: Database, *orders: SignalOrder, key: ApiKey = KEY) -> list[str]:
    """The paths of what is wrong with signals."""
    with pytest.raises(InvalidInputError) as raised:
        await record(database, *orders, key=key)
    return [".".join(issue.path) for issue in raised.value.issues]


def test_signals_are_recorded_once(database_url: str) -> None:
    """A signal is known by account, source and external id, or by all that it says; also by many who send it at once."""

    async def scenario(database: Database) -> None:
        named, unnamed = signal(external_id="r-1"), signal()
        other = signal(key="beta", external_id="r-1")
        assert Recorded(3, 1) == await record(database, named, unnamed, other, named)
        assert Recorded(1, 2) == await record(database, unnamed, signal(value=8.0), named)
        many = [signal(external_id=f"r-{number}") for number in range(2, 30)]
        done = await asyncio.gather(*(record(database, *some) for some in (many, many[::-1], many, many[::-1])))
        assert len(many) == sum(each.accepted for each in done)
        assert [(32,)] == await rows(database, "SELECT count(*) FROM signal")
        assert [("acme",), ("beta",)] == await rows(database, "SELECT DISTINCT account FROM health_dirty ORDER BY 1")

        # What says something else by the same name is refused, with all that came along.
        assert ["input.1.externalId"] == await faults(database, signal(value=1.0), signal(value=0.0, external_id="r-1"))
        assert ["input.1.externalId"] == await faults(
            database, signal(external_id="new"), signal(value=0.0, external_id="new")
        )
        assert [(32,)] == await rows(database, "SELECT count(*) FROM signal")

    play(database_url, scenario)


def test_every_fault_of_signals_is_told(database_url: str) -> None:
    """All faults of all signals are told at once, each by its path, and nothing is recorded."""

    async def scenario(database: Database) -> None:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        pulse = {"name": "pulse", "value": 1.0, "source": "csm", "note": "angry"}
        assert [
            *("input.0.key", "input.1.account", "input.2.account"),
            *("input.0.key", "input.1.name", "input.1.value", "input.2.source", "input.2.externalId", "input.2.at"),
            *("input.3.note", "input.3.expiresAt", "input.4.value", "input.4.note"),
            "input.5.expiresAt",
        ] == await faults(
            database,
            signal(subject=Subject.SUBSCRIPTION, key="\0"),
            signal(subject=Subject.USER, key="ana", name=" ", value=float("nan")),
            signal(account="other", source="", external_id="x" * 300, at=tomorrow),
            signal(note="x" * 1_001, expires_at=AT),
            signal(**{**pulse, "value": 6.0, "note": " "}),
            signal(**pulse, expires_at=AT + timedelta(days=31)),
        )
        assert ["input"] == await faults(database, *[signal()] * (LIMITS.request_signals_max + 1))
        assert [] == await rows(database, "SELECT * FROM signal UNION ALL SELECT * FROM signal")

    play(database_url, scenario)


def test_a_key_of_some_accounts_tells_of_these(database_url: str) -> None:
    """A bound key tells of its accounts alone; a subscription beyond them is as one that is not there, and a pulse is not its."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        await put(database, order(key="s-1", account="acme"))
        await put(database, order(key="s-2", account="beta"))
        of = Subject.SUBSCRIPTION
        assert Recorded(2, 0) == await record(database, signal(), signal(subject=of, key="s-1"), key=BOUND_KEY)
        assert [("acme", "ACCOUNT"), ("acme", "SUBSCRIPTION")] == await rows(
            database, "SELECT account, subject FROM signal ORDER BY 2"
        )
        with pytest.raises(InvalidInputError) as raised:
            await record(database, *(signal(subject=of, key=key) for key in ("s-2", "none")), key=BOUND_KEY)
        assert 1 == len({issue.message.replace("s-2", "none") for issue in raised.value.issues})
        assert ["input.0", "input.1.name"] == await faults(
            database, signal(key="beta"), signal(name="pulse", value=5.0, note="good"), key=BOUND_KEY
        )
        pulse = signal(name="pulse", value=5.0, note="good")
        with pytest.raises(ForbiddenError):
            await set_pulse(database, pulse, BOUND_KEY, LIMITS)
        with pytest.raises(ForbiddenError):
            await put_user(database, UserOrder(account="acme", key="ana"), BOUND_KEY, LIMITS)
        await set_pulse(database, pulse, KEY, LIMITS)
        assert [(AT + timedelta(days=30),)] == await rows(
            database, "SELECT expires_at FROM signal WHERE name = 'pulse'"
        )

    play(database_url, scenario)


def test_outcomes_are_recorded_once(database_url: str) -> None:
    """Outcomes are known again as signals are; amounts are exact, in a currency, and a user has none."""

    async def scenario(database: Database) -> None:
        lost = outcome(
            kind=OutcomeKind.CONTRACTED,
            monthly_amount_change=Decimal("-1250.50"),
            currency_code="EUR",
            reason="fewer seats",
        )
        assert Recorded(2, 1) == await record_outcomes(database, [lost, outcome(), lost], KEY, LIMITS)
        assert [("CONTRACTED", Decimal("-1250.50")), ("RENEWED", None)] == await rows(
            database, "SELECT kind, mrr_delta FROM outcome ORDER BY kind"
        )
        wrong = [
            outcome(subject=Subject.USER, account="acme"),
            outcome(monthly_amount_change=Decimal("0.001"), currency_code="EUR"),
            outcome(monthly_amount_change=Decimal(1), reason="\0"),
            outcome(currency_code="EUR"),
        ]
        with pytest.raises(InvalidInputError) as raised:
            await record_outcomes(database, wrong, KEY, LIMITS)
        assert [
            "input.0.subject",
            "input.1.monthlyAmountChange",
            "input.2.reason",
            "input.2.monthlyAmountChange",
            "input.3.currencyCode",
        ] == [".".join(issue.path) for issue in raised.value.issues]

    play(database_url, scenario)


def test_attributes_have_a_history(database_url: str) -> None:
    """Whatever accounts, subscriptions and users are said to be is logged once, when it changes, and no longer where it goes."""

    async def scenario(database: Database) -> None:
        await publish(database, draft())
        for attributes in ({"segment": "smb", "vip": True}, {"vip": True, "segment": "smb"}, {"segment": "mid"}):
            await put_account(database, AccountOrder(key="acme", name="Acme", attributes=attributes), KEY, LIMITS)
        wanted = order(attributes={"tier": 1})
        for each in (wanted, wanted, msgspec.structs.replace(wanted, attributes={"tier": 2})):
            await put(database, each)
        for role, since in (("champion", "2026-02-01"), ("champion", "2026-03-01"), (None, "2026-03-05")):
            said = UserOrder(account="acme", key="ana", attributes={} if role is None else {"role": role}, at=at(since))
            await put_user(database, said, KEY, LIMITS)

        assert [
            ("ACCOUNT", "acme", "segment", '"smb"'),
            ("ACCOUNT", "acme", "segment", '"mid"'),
            ("ACCOUNT", "acme", "vip", "true"),
            ("ACCOUNT", "acme", "vip", "null"),
            ("SUBSCRIPTION", "s-1", "tier", "1"),
            ("SUBSCRIPTION", "s-1", "tier", "2"),
            ("USER", "ana", "role", '"champion"'),
            ("USER", "ana", "role", "null"),
        ] == await rows(
            database, "SELECT subject, key, name, value::text FROM attribute_fact ORDER BY subject, name, sequence"
        )
        assert [(date(2026, 2, 1),), (date(2026, 3, 5),)] == await rows(
            database, "SELECT DISTINCT since FROM health_dirty WHERE since < '2026-03-10' ORDER BY 1"
        )

    play(database_url, scenario)
