"""What is wrong with one rule, one name or one period holds up nothing else; and an evaluator may be killed anywhere."""

import asyncio
from datetime import timedelta
from typing import Any, Final

import msgspec

from metering.aggregations import Aggregation
from metering.alerts.evaluate import Evaluator
from metering.events import Dimension
from metering.limits import LIMITS
from metering.periods import Bucket
from metering.store.pool import Database
from tests.metering.alerts.watching import alerts, calls, evaluate, told, watch
from tests.metering.billing import call, correct, use
from tests.metering.catalog import meter, play, rows
from tests.metering.outbox.posting import posting
from tests.metering.outbox.receiver import receiving
from tests.metering.test_exactness import Fuse, run_and_die
from tests.rating.tables import at

ONE_BY_ONE: Final = msgspec.structs.replace(LIMITS, notification_subjects_max=1)
# The longest that there are, of characters that nothing is known to compress.
LONG: Final = ["".join(chr(0x4E00 + place * place * factor % 20_011) for place in range(256)) for factor in (7, 11, 13)]


def test_names_may_be_as_long_as_names_are(database_url: str) -> None:
    """Three dimensions of 256 characters outside of ASCII make a subject of thousands of bytes: its alert is raised, resolved,
    and told, like any other.
    """

    async def scenario(database: Database) -> None:
        account, user, product = LONG
        await meter(database, "calls")
        await watch(database, calls(Dimension.ACCOUNT, Dimension.USER, Dimension.PRODUCT), "10")
        async with posting(database) as post, receiving() as receiver:
            await post.put("hook", receiver.url)
            event = call(1, "2027-03-01T10:00:00Z", "10", account=account, user=user, product=product)
            await use(database, event)
            assert 1 == await evaluate(database, "2027-03-01T11:00:00Z")
            assert 1 == await evaluate(database, "2027-03-02T11:00:00Z")
            await post.deliver_all("hook")

            assert ["alert.raised", "alert.resolved"] == [each.event["type"] for each in receiver.received]
            for each in receiver.received:
                assert {"account": account, "user": user, "product": product} == each.event["data"]["dimensions"]
                assert len(each.event["subject"]) > 3 * 256 * 9

    play(database_url, scenario)


def test_what_nobody_foresaw_of_a_rule_holds_up_no_other(database_url: str) -> None:
    """A rule whose meter is gone, which cannot be, says so in its fault; the others are evaluated all the same, and it is, too,
    when the meter is back.
    """

    async def scenario(database: Database) -> None:
        for key in ("calls", "gone"):
            await meter(database, key)
        await watch(database, msgspec.structs.replace(calls(), meter="gone"), "1", key="a")
        await watch(database, calls(), "1", key="b")
        await use(database, call(1, "2027-03-01T10:00:00Z"))
        await rows(database, "DELETE FROM meter WHERE key = 'gone'")
        evaluator = Evaluator(database, LIMITS)
        counts = [await evaluator.run(at("2027-03-01T11:00:00Z"), all_rules=True) for _ in range(2)]
        faults = dict(await rows(database, "SELECT key, fault FROM alert_rule"))
        await meter(database, "gone")
        counts.append(await evaluator.run(at("2027-03-01T11:00:00Z"), all_rules=True))

        assert [1, 0, 1] == counts
        assert "not foreseen (AssertionError)" in faults["a"]
        assert faults["b"] is None
        assert [(None,)] * 2 == await rows(database, "SELECT fault FROM alert_rule")

    play(database_url, scenario)


def test_a_period_that_cannot_be_read_any_more_holds_up_no_other(database_url: str) -> None:
    """Last week's events are gone: that is the rule's fault, also while the week is not looked at; this week's figure is told."""

    async def scenario(database: Database) -> None:
        await meter(database, "calls", Aggregation.LATEST)
        await watch(database, calls(bucket=Bucket.WEEK), "10")
        await rows(database, "UPDATE retained_range SET taken_from = '2027-03-03', raw_from = '2027-03-03'")
        await use(database, call(1, "2027-03-09T10:00:00Z", "10"))
        evaluator = Evaluator(database, LIMITS)
        told_of, faults = [], []
        for instant, look_back in (("2027-03-10T10:00:00Z", True), ("2027-03-10T10:00:30Z", False)):
            evaluator._rests_until.clear()
            await evaluator.run(at(instant), all_rules=look_back)
            if look_back:
                await correct(database, 1, "9")
            told_of.append(len(await told(database)))
            faults += await rows(database, "SELECT fault FROM alert_rule")

        assert [1, 2] == told_of
        assert [("everyone", "03-08", "10", "BELOW", "9")] == await alerts(database)
        assert all("Of a period that is over" in fault and "not kept any more" in fault for (fault,) in faults)

    play(database_url, scenario)


def test_what_crossed_is_noted_some_subjects_at_a_time(database_url: str) -> None:
    """However many cross a bound at once, and end with their period at once, a transaction tells of no more than so many."""
    limits = msgspec.structs.replace(LIMITS, notification_subjects_max=2)

    async def scenario(database: Database) -> None:
        await meter(database, "calls")
        await watch(database, calls(Dimension.USER), "1")
        await use(database, *(call(number, "2027-03-01T10:00:00Z", user=f"u{number}") for number in range(5)))
        for instant in ("2027-03-01T11:00:00Z", "2027-03-02T11:00:00Z"):
            assert 5 == await Evaluator(database, limits).run(at(instant), all_rules=True)
        counts = await rows(database, "SELECT count(*) FROM notification GROUP BY xmin::text ORDER BY min(sequence)")

        assert [2, 2, 1] * 2 == [count for (count,) in counts]

    play(database_url, scenario)


def test_the_evaluator_may_die_at_every_statement(database_url: str) -> None:
    """At whichever statement it dies, the next one tells what is left: what crossed today, and what ended with the day before
    yesterday, or came late of it, is raised once, resolved once, and each is told once.
    """

    async def scenario(database: Database) -> None:
        await meter(database, "calls")
        await watch(database, calls(Dimension.USER), "10")
        now, number, died = at("2027-03-01T10:00:00Z"), 0, True
        ended: list[tuple[str, str]] = []
        running: list[tuple[str, str]] = []
        while died:
            number += 1
            before, now = now, now + timedelta(days=2)
            await use(
                database,
                call(3 * number, now, "10", user="ann"),
                call(3 * number + 1, now, "10", user="bob"),
                call(3 * number + 2, before, "10", user="late"),
            )

            async def work(mortal: Database, instant: Any = now) -> None:
                assert await Evaluator(mortal, ONE_BY_ONE).run(instant, all_rules=True) is not None

            died = await run_and_die(database_url, Fuse(number, "after"), work)
            # The server notices in its own time that a session is gone, and with it the lock.
            while await Evaluator(database, ONE_BY_ONE).run(now, all_rules=True) is None:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
            ended += [*running, (f"{before:%m-%d}", "user/late")]
            running = [(f"{now:%m-%d}", f"user/{user}") for user in ("ann", "bob")]
            found = await alerts(database)
            closed = sorted((day, subject) for subject, day, _, why, _ in found if why is not None)
            assert sorted(ended) == closed, number
            assert running == sorted((day, subject) for subject, day, _, why, _ in found if why is None), number
            counts = await rows(
                database, "SELECT count(*) FROM notification GROUP BY type, data::jsonb ->> 'alert' ORDER BY 1 DESC"
            )
            assert [(1,)] * (2 * len(ended) + len(running)) == counts, number
        assert number > 20

    play(database_url, scenario)
