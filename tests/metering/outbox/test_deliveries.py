"""Deliveries against a real receiver: nothing is lost, nothing is out of order, and nothing is sent where it should not be."""

import asyncio
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import msgspec
import pytest

from metering.errors import ConflictError
from metering.outbox.addresses import Allowed
from metering.outbox.deliveries import DeliveryState, ReplayOrder, replay
from metering.outbox.destinations import DestinationKind
from metering.outbox.dispatch import forget_older
from metering.outbox.event import OutboxEvent
from metering.outbox.publish import publish
from metering.outbox.schedule import ATTEMPTS_MAX, WAITS_SECONDS
from metering.store.pool import Database
from tests.conftest import lock_waiters
from tests.metering.catalog import play, rows
from tests.metering.outbox.posting import OPERATOR, PATIENT, posting
from tests.metering.outbox.receiver import OK, Received, answer, receiving


def test_whatever_a_receiver_does_nothing_is_lost(database_url: str) -> None:
    """A receiver fails, hangs up, is busy and is gone, and another one takes its place: each notification is taken at last, of
    each subject in order; each attempt is signed, and each repetition has the same id and body.
    """
    moods = iter(
        [answer(500), None, answer(429, **{"Retry-After": "7000"}), answer(302, Location="/"), answer(404)] * 3
    )
    gone_after = 30

    async def moody(_received: Received) -> str | None:
        if len(first.received) > gone_after:
            return answer(410)
        return OK if len(first.received) % 2 else next(moods, OK)

    async def scenario(database: Database) -> None:
        nonlocal first
        async with posting(database) as post, receiving(moody) as first, receiving() as second:
            secret = (await post.put("hook", first.url, types=("test",))).secret or ""
            subjects = [f"account/a{number % 7}" for number in range(40)]
            published = [(await post.publish(subject, number=place), subject) for place, subject in enumerate(subjects)]
            await post.deliver_all("hook")
            assert "410" in (await post.state("hook")).disabled_reason
            assert (await post.put("hook", second.url, types=("test",))).secret is None
            await post.deliver_all("hook")

            everything = [*first.received, *second.received]
            assert all(each.is_signed(secret) for each in everything)
            bodies = {each.headers["webhook-id"]: each.body for each in everything}
            assert all(bodies[each.headers["webhook-id"]] == each.body for each in everything)
            assert {str(id) for id, _ in published} == set(bodies)
            assert len(everything) > len(bodies)
            seen: dict[str, list[int]] = {}
            for each in everything:
                seen.setdefault(each.event["subject"], []).append(each.event["data"]["number"])
            assert all(earlier <= later for numbers in seen.values() for earlier, later in pairwise(numbers))
            log = await post.log("hook")
            assert {DeliveryState.DELIVERED} == {each.state for each in log}
            assert sum(len(each.attempts) for each in log) == len(everything)

    first: Any = None
    play(database_url, scenario)


def test_a_receiver_that_stays_away_is_given_up_after_three_days(database_url: str) -> None:
    """Ten attempts by the schedule; then the destination is given up, which is said to the others; put again, it goes on with
    what waits, and what failed is sent again when it is asked for.
    """

    async def refuse(_received: Received) -> str:
        return answer(503, **{"Retry-After": "1"})

    async def scenario(database: Database) -> None:
        async with posting(database) as post, receiving(refuse) as away, receiving() as other:
            await post.put("away", away.url, types=("test",))
            await post.put("other", other.url, types=("destination",))
            begun = post.clock.now
            for number in range(2):
                await post.publish(number=number)
            waited = await post.deliver_all("away")

            assert list(WAITS_SECONDS[1:]) == waited
            assert (post.clock.now - begun) == timedelta(seconds=sum(WAITS_SECONDS))
            failed, waiting = await post.log("away")
            assert (failed.state, len(failed.attempts)) == (DeliveryState.FAILED, ATTEMPTS_MAX)
            assert (waiting.state, waiting.attempts) == (DeliveryState.PENDING, ())
            assert {503} == {each.status for each in failed.attempts}
            assert f"nothing since {begun:%FT%TZ}" in (await post.state("away")).disabled_reason
            (told,) = (each.event for each in other.received)
            assert ("destination.disabled", "away") == (told["type"], told["data"]["destination"])

            async def taking(_received: Received) -> str:
                return OK

            away.answering = taking
            await post.put("away", None, types=("test",))
            await post.deliver_all("away")
            order = ReplayOrder(destination="away", since=begun, until=None, undelivered_only=True)
            post.clock.now += timedelta(seconds=1)
            assert 1 == await replay(database, order, OPERATOR, post.clock.now)
            await post.deliver_all("away")

            assert [1, 0] == [each.event["data"]["number"] for each in away.received[ATTEMPTS_MAX:]]
            assert (await post.state("away")).failing_since is None

    play(database_url, scenario)


def test_a_receiver_that_is_slow_holds_up_nobody_else(database_url: str) -> None:
    """One that says nothing takes as many requests as one destination may have, and the other ones' are taken meanwhile; when
    its time is over that is an attempt that failed.
    """
    limits = msgspec.structs.replace(PATIENT, delivery_seconds_max=1, destination_deliveries_max=2)

    async def scenario(database: Database) -> None:
        answered = asyncio.Event()

        async def silent(_received: Received) -> str:
            await asyncio.Event().wait()
            return OK

        async def quick(_received: Received) -> str:
            if len(other.received) == 5:
                answered.set()
            return OK

        async with posting(database, limits) as post, receiving(silent) as slow, receiving(quick) as other:
            await post.put("slow", slow.url)
            await post.put("other", other.url)
            for number in range(5):
                await post.publish(f"account/a{number}")
            sending = asyncio.create_task(post.dispatcher.run())
            await answered.wait()
            assert {DeliveryState.PENDING} == {each.state for each in await post.log("slow")}
            assert len(slow.received) <= 2
            assert await sending

            tried = [each.attempts[0] for each in await post.log("slow")]
            assert ["nothing was answered within 1 s"] * 5 == [each.fault for each in tried]

    play(database_url, scenario)


def test_only_what_is_allowed_is_connected_to(database_url: str) -> None:
    """A name that leads to this machine is not connected to, and an answer that leads elsewhere is not followed."""

    async def elsewhere(_received: Received) -> str:
        return answer(307, Location=second.url)

    async def scenario(database: Database) -> None:
        nonlocal second
        careful = Allowed(private=False, plain_http=True)
        async with receiving(elsewhere) as first, receiving() as second:
            async with posting(database, allowed=careful) as post:
                await post.put("inside", f"http://localhost:{first.port}/", types=("test",))
                await post.publish()
                assert await post.dispatcher.run()
                ((attempt,),) = [each.attempts for each in await post.log("inside")]
                assert attempt.status is None
                assert "not a public address" in (attempt.fault or "")
            async with posting(database) as post:
                post.clock.now += timedelta(minutes=1)
                assert await post.dispatcher.run()
                assert 307 == (await post.log("inside"))[0].attempts[-1].status
            assert (1, 0) == (len(first.received), len(second.received))

    second: Any = None
    play(database_url, scenario)


def test_secrets_are_rotated_without_a_gap(database_url: str) -> None:
    """While two secrets overlap either of them verifies, and then only the new one; the database shows neither, nor the path."""

    async def scenario(database: Database) -> None:
        async with posting(database) as post, receiving() as receiver:
            old = (await post.put("hook", f"{receiver.url}/token-of-mine")).secret or ""
            await post.publish()
            await post.deliver_all("hook")
            new = (await post.destinations.rotate("hook", timedelta(hours=24), OPERATOR)).secret or ""
            await post.publish()
            await post.deliver_all("hook")
            post.clock.now += timedelta(hours=24)
            await post.publish()
            await post.deliver_all("hook")

            verified = [(each.is_signed(old), each.is_signed(new)) for each in receiver.received]
            assert [(True, False), (True, True), (False, True)] == verified
            (stored,) = await rows(database, "SELECT destination::text, encrypted FROM destination")
            assert "token-of-mine" not in stored[0]
            assert b"token-of-mine" not in stored[1]
            for _ in range(4):
                await post.destinations.rotate("hook", timedelta(hours=24), OPERATOR)
            with pytest.raises(ConflictError, match="wait until one has ended"):
                await post.destinations.rotate("hook", timedelta(hours=24), OPERATOR)

    play(database_url, scenario)


def test_a_notification_is_of_its_transaction(database_url: str) -> None:
    """What is rolled back was never told; and who publishes of a subject waits for those who did, so that the order in which
    notifications can be seen is that of their numbers.
    """

    async def scenario(database: Database) -> None:
        async with posting(database) as post, receiving() as receiver:
            await post.put("hook", receiver.url)
            with pytest.raises(RuntimeError, match="after all not"):
                await _publish_and_fail(database)
            async with database.transaction() as connection:
                await publish(connection, OutboxEvent(type="test.made", subject="s", data={"n": 1}), post.clock())
                later = asyncio.create_task(post.publish("s", n=2))
                await lock_waiters(database_url, 1)
                assert await post.dispatcher.run()
                assert [] == receiver.received
            await later
            await post.deliver_all("hook")

            assert [1, 2] == [each.event["data"]["n"] for each in receiver.received]

    play(database_url, scenario)


async def _publish_and_fail(database: Database) -> None:
    async with database.transaction() as connection:
        await publish(connection, OutboxEvent(type="test.made", subject="s", data={}))
        raise RuntimeError("after all not")


def test_one_process_sends_at_a_time(database_url: str) -> None:
    """A second dispatcher does nothing while one sends; when the session of that one is lost it sends what was under way again,
    and the first one can note nothing any more.
    """

    async def scenario(database: Database) -> None:
        held, arrived = asyncio.Event(), asyncio.Event()

        async def holding(_received: Received) -> str:
            arrived.set()
            await held.wait()
            return OK

        async with posting(database) as first, posting(database) as second, receiving(holding) as receiver:
            await first.put("hook", receiver.url)
            await first.publish()
            sending = asyncio.create_task(first.dispatcher.run())
            await arrived.wait()
            assert not await second.dispatcher.run()
            await _end_session_of_sender(database_url)
            held.set()
            with pytest.raises(Exception, match=r"(?i)clos|away|terminat"):
                await sending
            second.clock.now = first.clock.now + timedelta(seconds=1)
            assert await second.dispatcher.run()

            ids = Counter(each.headers["webhook-id"] for each in receiver.received)
            assert [2] == list(ids.values())
            (delivery,) = await first.log("hook")
            assert (DeliveryState.DELIVERED, 1) == (delivery.state, len(delivery.attempts))

    play(database_url, scenario)


async def _end_session_of_sender(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        ended = await connection.fetch(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory' AND granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert len(ended) == 1
    finally:
        await connection.close()


def test_what_was_told_long_ago_is_forgotten(database_url: str) -> None:
    """Notifications go with the log of their deliveries, whether they were delivered or not; younger ones stay."""

    async def scenario(database: Database) -> None:
        async with posting(database) as post, receiving() as receiver:
            await post.put("hook", receiver.url)
            old = post.clock.now
            await post.publish(n=1)
            await post.deliver_all("hook")
            await post.publish("account/other", n=2)
            post.clock.now += timedelta(days=30)
            young = await post.publish(n=3)
            assert 2 == await forget_older(database, post.clock.now, old)

            assert [young] == [each.notification for each in await post.log("hook")]
            assert [(0,)] == await rows(database, "SELECT count(*) FROM delivery_attempt")

    play(database_url, scenario)


def test_a_channel_of_slack_is_told_in_words(database_url: str) -> None:
    """Slack gets a message with a text, unsigned; what names hold is not taken for its markup."""

    async def scenario(database: Database) -> None:
        async with posting(database) as post, receiving() as receiver:
            made = await post.put("channel", receiver.url, DestinationKind.SLACK, types=("alert", "test.made"))
            await post.publish("account/<!channel>", plan="<https://evil.example|click>")
            await post.publish(type_name="other.made")
            await post.deliver_all("channel")

            (received,) = receiver.received
            assert made.secret is None
            assert "webhook-signature" not in received.headers
            assert b"&lt;!channel&gt;" in received.body
            assert b"<https" not in received.body
            assert {"text", "blocks"} == set(received.event)

    play(database_url, scenario)
