"""What a destination is sent besides its signature, and what becomes of one that is deleted."""

import asyncio
from typing import Any

import pytest

from metering.errors import ConflictError, InvalidInputError, NotFoundError
from metering.key_digests import Digests
from metering.limits import LIMITS
from metering.outbox.destinations import DestinationKind, DestinationOrder
from metering.outbox.vault import Vault
from metering.store.pool import Database
from tests.conftest import lock_waiters
from tests.metering.catalog import play, rows
from tests.metering.outbox.posting import OPERATOR, Post, posting
from tests.metering.outbox.receiver import OK, Received, receiving

TOKEN = "a-token.of~some+kind/4=="


def test_a_bearer_is_sent_until_it_is_another_one(database_url: str) -> None:
    """It goes with every request, signed all the same; it stays through changes and rotation, is replaced, and ends."""

    async def scenario(database: Database) -> None:
        async with posting(database) as post, receiving() as receiver:
            made = await post.put("hook", receiver.url, bearer=TOKEN)
            changes: list[tuple[dict[str, Any], str | None]] = [
                ({}, TOKEN),
                ({"types": ("test",)}, TOKEN),
                # Another path of the same host.
                ({"url": f"{receiver.url}/other"}, TOKEN),
                ({"bearer": "new"}, "new"),
                ({"bearer": ""}, None),
                ({"bearer": TOKEN}, TOKEN),
            ]
            for number, (fields, expected) in enumerate(changes):
                changed = await post.put("hook", fields.pop("url", None), **fields)
                assert (expected is not None) == changed.destination.has_bearer
                await post.publish(number=number)
                await post.deliver_all("hook")
            await post.destinations.rotate("hook", post.clock.now - post.clock.now, OPERATOR)
            await post.publish(number=len(changes))
            await post.deliver_all("hook")

            sent = [each.headers.get("authorization") for each in receiver.received]
            bearers = [*(expected for _, expected in changes), TOKEN]
            assert [None if each is None else f"Bearer {each}" for each in bearers] == sent
            assert all(each.is_signed(made.secret or "") for each in receiver.received[:-1])
            kept = await rows(database, "SELECT encrypted FROM destination")
            assert all(TOKEN.encode() not in encrypted for (encrypted,) in kept)

    play(database_url, scenario)


def test_a_bearer_does_not_follow_to_another_host(database_url: str) -> None:
    """Who may change an address does not learn by it what was sent to the one before: the bearer is given anew, or none."""

    async def scenario(database: Database) -> None:
        async with posting(database) as post, receiving() as first, receiving() as second:
            await post.put("hook", first.url, bearer=TOKEN)
            with pytest.raises(InvalidInputError, match="another host"):
                await post.put("hook", second.url)
            assert first.url.startswith((await post.state("hook")).address.removesuffix("…"))
            await post.put("hook", second.url, bearer="")
            await post.publish()
            await post.deliver_all("hook")

            assert ([], None) == (first.received, second.received[0].headers.get("authorization"))

    play(database_url, scenario)


@pytest.mark.parametrize(
    "bearer", ["two words", "line\r\nX: y", "ümlaut", "=", "a" * (LIMITS.destination_bearer_chars_max + 1)]
)
def test_what_is_no_bearer_is_refused_without_repeating_it(database_url: str, bearer: str) -> None:
    """The fault says what a bearer is made of, not what was given; so does that of a kind which is sent none."""

    async def scenario(database: Database) -> None:
        async with posting(database) as post:
            for kind, given in ((DestinationKind.WEBHOOK, bearer), (DestinationKind.SLACK, "fine")):
                with pytest.raises(InvalidInputError) as refused:
                    await post.put("hook", "https://example.com/", kind, bearer=given)
                assert [("input", "bearer")] == [issue.path for issue in refused.value.issues]
                assert given == "=" or given not in str(refused.value)

    play(database_url, scenario)


def test_a_bearer_of_another_service_s_secret_is_given_anew(database_url: str) -> None:
    """Where METERING_KEY_SECRET is another one, what is kept is not opened: putting says so, and takes all of it anew."""

    async def scenario(database: Database) -> None:
        async with posting(database) as post, receiving() as receiver:
            other = Post(database, post.courier._limits, post.destinations._allowed, 0.5)
            other.destinations._vault = Vault(Digests(database, "another secret of the service, long enough"))
            await other.put("hook", receiver.url, bearer=TOKEN)
            for fields in ({"url": receiver.url}, {"url": None, "bearer": TOKEN}):
                with pytest.raises(ConflictError, match="METERING_KEY_SECRET"):
                    await post.put("hook", **fields)
            assert (await post.put("hook", receiver.url, bearer="new")).secret is not None
            await other.courier.close()

    play(database_url, scenario)


def test_a_deleted_destination_is_sent_nothing_more(database_url: str) -> None:
    """It goes with its log; what waited is counted and not sent; others are not touched, and its key may be put again."""

    async def scenario(database: Database) -> None:
        async with posting(database) as post, receiving() as receiver, receiving() as other:
            await post.put("hook", receiver.url)
            await post.put("other", other.url)
            await post.publish(number=0)
            await post.deliver_all("hook")
            await post.publish(number=1)
            deleted = await post.destinations.delete("hook", OPERATOR)
            await post.publish(number=2)
            await post.deliver_all("other")

            assert ("hook", 1) == (deleted.destination.key, deleted.waiting)
            assert ([0], [0, 1, 2]) == tuple(
                [each.event["data"]["number"] for each in of.received] for of in (receiver, other)
            )
            assert [] == await post.log("hook")
            for missing in ("hook", "\0"):
                with pytest.raises(NotFoundError):
                    await post.destinations.delete(missing, OPERATOR)
            assert (await post.put("hook", receiver.url)).secret is not None

    play(database_url, scenario)


def test_deleting_waits_for_who_is_at_work_and_fails_nobody(database_url: str) -> None:
    """What is on its way is sent, and its attempt is noted nowhere; who publishes meanwhile succeeds, for whoever is left."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_received: Received) -> str:
        arrived.set()
        await go_on.wait()
        return OK

    async def scenario(database: Database) -> None:
        async with posting(database) as post, receiving(slow) as receiver:
            order = DestinationOrder(key="hook", kind=DestinationKind.WEBHOOK, url=receiver.url)
            await post.destinations.put(order, OPERATOR)
            await post.publish()
            sending = asyncio.create_task(post.dispatcher.run())
            await arrived.wait()
            async with database.transaction() as connection:
                # Somebody holds what is deleted with it, so deleting it stops half-way, and publishing waits for that.
                await connection.execute("SELECT FROM delivery FOR UPDATE")
                deleting = asyncio.create_task(post.destinations.delete("hook", OPERATOR))
                await lock_waiters(database_url, 1)
                publishing = asyncio.create_task(post.publish("account/beta"))
                await lock_waiters(database_url, 2)
            deleted = await deleting
            await publishing
            go_on.set()
            assert await sending

            assert 1 == deleted.waiting
            assert 1 == len(receiver.received)
            assert [] == await rows(database, "SELECT * FROM delivery_attempt")
            assert 2 == len(await rows(database, "SELECT * FROM notification"))

    play(database_url, scenario)
