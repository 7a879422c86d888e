"""The life of a key: made, used, rotated, expired, revoked; and what is kept of it."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import msgspec
import pytest

from metering import keys as keys_of_ring
from metering.config import Settings
from metering.credentials import Credentials
from metering.errors import ConflictError, InvalidInputError, UnauthenticatedError
from metering.key_uses import KeyUses
from metering.keys import ApiKey, Caller, KeyLimits, KeyRing, Scope
from metering.limits import LIMITS
from metering.store.pool import Database

SERVICE_SECRET: Final = "a secret of the service, from its settings"
HOUR: Final = timedelta(hours=1)
READ: Final = [Scope.USAGE_READ]


def play(url: str, scenario: Callable[[Database], Awaitable[None]]) -> None:
    """Play a scenario on this database."""

    async def run() -> None:
        database = await Database.connect(Settings(database_url=url), LIMITS)
        try:
            await scenario(database)
        finally:
            await database.close()

    asyncio.run(run())


async def change(database: Database, statement: str, *arguments: object) -> Any:
    """Run a statement beside the code that is tested; return its first value."""
    async with database.connection() as connection:
        return await connection.fetchval(statement, *arguments)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """What time it is."""
        return self.now


# ---------------------------------------------------------------- what is kept


@pytest.mark.parametrize("service_secret", [None, SERVICE_SECRET])
def test_what_is_kept_of_a_secret(database_url: str, service_secret: str | None) -> None:
    """Neither the secret nor its plain hash is kept: without the service's secret no guess can be tried."""

    async def scenario(database: Database) -> None:
        key, secret = await KeyRing(database, service_secret).create("k", READ)
        row = await change(database, "SELECT to_jsonb(api_key)::text FROM api_key WHERE prefix = $1", key.prefix)

        assert secret.startswith(f"{key.prefix}_")
        assert secret.removeprefix(key.prefix) not in row
        assert sha256(secret.encode()).hexdigest() not in row
        assert key == await KeyRing(database, service_secret).find(secret)

    play(database_url, scenario)


def test_keys_from_before_go_on_working(database_url: str) -> None:
    """A key whose plain hash was kept, and one made before a setting said the service's secret, are found all the same."""

    async def scenario(database: Database) -> None:
        old, old_secret = await KeyRing(database).create("old", READ)
        await change(
            database,
            "UPDATE api_key SET digest = $2 WHERE prefix = $1",
            old.prefix,
            sha256(old_secret.encode()).digest(),
        )
        middle, middle_secret = await KeyRing(database).create("middle", READ)
        new, new_secret = await KeyRing(database, SERVICE_SECRET).create("new", READ)

        ring = KeyRing(database, SERVICE_SECRET)
        assert [old, middle, new] == [await ring.find(each) for each in (old_secret, middle_secret, new_secret)]
        # Without the setting the newest is not known; with another one neither.
        assert [old, middle, None] == [
            await KeyRing(database).find(each) for each in (old_secret, middle_secret, new_secret)
        ]
        assert await KeyRing(database, SERVICE_SECRET + "!").find(new_secret) is None

    play(database_url, scenario)


def test_a_service_has_one_secret(database_url: str) -> None:
    """Processes that start at once on a new database make one secret together, and know each other's keys."""

    async def scenario(database: Database) -> None:
        rings = [KeyRing(database) for _ in range(5)]
        made = await asyncio.gather(*(ring.create("k", READ) for ring in rings))

        assert 1 == await change(database, "SELECT count(*) FROM server_secret")
        for ring in rings:
            assert [key for key, _ in made] == [await ring.find(secret) for _, secret in made]

    play(database_url, scenario)


@pytest.mark.parametrize("before", [None, "plain", "without the setting"])
def test_the_bootstrap_key_is_one(database_url: str, before: str | None) -> None:
    """However its digest was kept before, the bootstrap key is made once; and one that was revoked stays revoked."""

    async def scenario(database: Database) -> None:
        secret = "a bootstrap secret"
        await KeyRing(database, None if before else SERVICE_SECRET).bootstrap(secret)
        if before == "plain":
            await change(database, "UPDATE api_key SET digest = $1", sha256(secret.encode()).digest())
        ring = KeyRing(database, SERVICE_SECRET)
        await ring.bootstrap(secret)
        (key,) = await ring.list()
        assert key == await ring.find(secret)
        assert key.holds(Scope.ADMIN)
        await ring.revoke(key.prefix)
        await ring.bootstrap(secret)
        assert 1 == len(await ring.list())
        assert await ring.find(secret) is None

    play(database_url, scenario)


def test_processes_that_start_at_once_make_one_bootstrap_key(database_url: str) -> None:
    """Each looks before another one's key is there; they make it together, and none of them stops."""

    async def scenario(database: Database) -> None:
        for round_ in range(100):
            secret = f"a bootstrap secret {round_}"
            await asyncio.gather(*(KeyRing(database, SERVICE_SECRET).bootstrap(secret) for _ in range(5)))
            assert round_ + 1 == len(await KeyRing(database).list())

    play(database_url, scenario)


def test_a_prefix_that_another_key_has_is_not_used_again(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix is short: where chance gives the same one twice, the second key gets another."""

    async def scenario(database: Database) -> None:
        given = iter(["0badcafe", "0badcafe", "600dcafe"])
        monkeypatch.setattr(secrets, "token_hex", lambda _: next(given))
        made = [await KeyRing(database).create("k", READ) for _ in range(2)]
        assert ["mk_0badcafe", "mk_600dcafe"] == [key.prefix for key, _ in made]

    play(database_url, scenario)


# ---------------------------------------------------------------- rotation, expiry, revocation


def test_rotation_with_an_overlap(database_url: str) -> None:
    """The new key may do what the old one may, until when it may; the old one goes on for the overlap, and no longer."""

    async def scenario(database: Database) -> None:
        ring = KeyRing(database)
        until = datetime(2100, 1, 1, tzinfo=UTC)
        limits = KeyLimits(events_per_second_max=5, burst_events_max=7)
        old, old_secret = await ring.create("k", READ, ["acme"], until, default_source="s", limits=limits)
        rotated = await ring.rotate(old.prefix, HOUR)
        assert rotated is not None
        new, new_secret = rotated
        again = await ring.rotate(new.prefix, timedelta(0))
        assert again is not None

        told = ("name", "scopes", "accounts", "expires_at", "default_source", "limits", "reach")
        assert [getattr(old, name) for name in told] == [getattr(new, name) for name in told]
        assert (old.prefix, old.prefix, old.prefix) == (new.replaces, new.sender, again[0].sender)
        found = await ring.find(old_secret)
        assert found is not None
        assert found.expires_at is not None
        assert HOUR - timedelta(minutes=5) < found.expires_at - new.created_at <= HOUR
        # Without an overlap it ends at once.
        assert [None, again[0]] == [await ring.find(each) for each in (new_secret, again[1])]

    play(database_url, scenario)


def test_an_overlap_lengthens_nothing(database_url: str) -> None:
    """A key that ends before the overlap does ends then; what is over, or never was, is not rotated."""

    async def scenario(database: Database) -> None:
        ring = KeyRing(database)
        soon = (await change(database, "SELECT now()")) + HOUR
        old, old_secret = await ring.create("k", READ, expires_at=soon)
        rotated = await ring.rotate(old.prefix, 48 * HOUR)
        assert rotated is not None
        found = await ring.find(old_secret)
        assert found is not None
        assert [soon, soon] == [found.expires_at, rotated[0].expires_at]
        await ring.revoke(old.prefix)
        with pytest.raises(ConflictError, match="revoked or has expired"):
            await ring.rotate(old.prefix, HOUR)
        assert await ring.rotate("mk_nobody", HOUR) is None

    play(database_url, scenario)


def test_expiry_holds_to_the_instant(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process remembers of a key lasts no longer than the key, however long it would be remembered."""
    monkeypatch.setattr(keys_of_ring, "LIMITS", msgspec.structs.replace(LIMITS, key_cache_seconds=7_200.0))

    async def scenario(database: Database) -> None:
        clock = Clock()
        ring = KeyRing(database, clock=clock)
        at = (await change(database, "SELECT now()")) + HOUR
        _, secret = await ring.create("k", READ, expires_at=at)
        assert await ring.find(secret) is not None
        await change(database, "UPDATE api_key SET expires_at = now()")
        clock.now += HOUR.total_seconds()
        assert await ring.find(secret) is None

    play(database_url, scenario)


def test_revocation_holds_within_the_documented_time(database_url: str) -> None:
    """The process that revoked refuses at once; another one that used the key just now does so after `key_cache_seconds`."""

    async def scenario(database: Database) -> None:
        clock = Clock()
        here, elsewhere = KeyRing(database), KeyRing(database, clock=clock)
        key, secret = await here.create("k", READ)
        assert [key, key] == [await here.find(secret), await elsewhere.find(secret)]
        await here.revoke(key.prefix)
        assert await here.find(secret) is None
        clock.now += LIMITS.key_cache_seconds
        assert await elsewhere.find(secret) is None

    play(database_url, scenario)


# ---------------------------------------------------------------- use


def test_last_used_is_written_together(database_url: str) -> None:
    """Uses cost no write of their own: they are written together, as of when they were, and never set back."""

    async def scenario(database: Database) -> None:
        ring, uses = KeyRing(database), KeyUses(database, LIMITS)
        credentials = Credentials(ring, uses, None)
        made = [await ring.create("k", READ) for _ in range(3)]
        for _ in range(100):
            for _, secret in made[:2]:
                await credentials.authenticate(f"Bearer {secret}")
        assert [None] * 3 == await _last_used(ring, made)
        await uses.write()
        first = await _last_used(ring, made)
        now = await change(database, "SELECT clock_timestamp()")
        assert first[2] is None
        assert all(at is not None and at <= now for at in first[:2])
        # Another process knows of a use from before.
        later = KeyUses(database, LIMITS)
        later.note(made[0][0].prefix)
        await change(
            database, "UPDATE api_key SET last_used_at = now() + interval '1 hour' WHERE prefix = $1", made[0][0].prefix
        )
        ahead = await _last_used(ring, made)
        await later.write()
        assert ahead == await _last_used(ring, made)

    play(database_url, scenario)


async def _last_used(ring: KeyRing, made: list[tuple[ApiKey, str]]) -> list[datetime | None]:
    listed = {key.prefix: key.last_used_at for key in await ring.list()}
    return [listed[key.prefix] for key, _ in made]


def test_uses_are_written_when_it_ends(database_url: str) -> None:
    """What was noted since the last time is written when the service stops in good order."""

    async def scenario(database: Database) -> None:
        ring, uses = KeyRing(database), KeyUses(database, LIMITS)
        key, secret = await ring.create("k", READ)
        uses.start()
        await Credentials(ring, uses, None).authenticate(f"Bearer {secret}")
        await uses.close()
        assert None not in await _last_used(ring, [(key, secret)])

    play(database_url, scenario)


def test_uses_wait_for_a_database_that_is_away(database_url: str) -> None:
    """What cannot be written is kept for the next time."""

    async def scenario(database: Database) -> None:
        ring = KeyRing(database)
        key, secret = await ring.create("k", READ)
        away = await Database.connect(Settings(database_url=database_url), LIMITS)
        uses = KeyUses(away, LIMITS)
        uses.note(key.prefix)
        await away.close()
        await uses.write()
        uses._database = database
        await uses.write()
        assert None not in await _last_used(ring, [(key, secret)])

    play(database_url, scenario)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"scopes": []}, ["scopes"]),
        ({"accounts": []}, ["accounts"]),
        ({"accounts": ["", "a\0", "x" * 257]}, ["accounts.0", "accounts.1", "accounts.2"]),
        ({"accounts": [f"a{number}" for number in range(1_001)]}, ["accounts"]),
        ({"scopes": [Scope.ADMIN], "accounts": ["acme"]}, ["scopes"]),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, ["expires_at"]),
        ({"name": "x" * 257}, ["name"]),
    ],
)
def test_what_no_key_can_be(database_url: str, given: dict[str, Any], expected: list[str]) -> None:
    """A key that allows nothing, is bound to nothing, or is over already, is refused by its path, and nothing is made."""

    async def scenario(database: Database) -> None:
        ring = KeyRing(database)
        with pytest.raises(InvalidInputError) as caught:
            await ring.create(**{"name": "k", "scopes": READ, **given})
        assert expected == [".".join(issue.path) for issue in caught.value.issues]
        assert [] == await ring.list()

    play(database_url, scenario)


ACCOUNTS: Final = frozenset({"acme"})
SUBSCRIPTION: Final = {"accounts": ACCOUNTS, "subscriptions": frozenset({"s"})}


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize(
    ("bound", "never"),
    [
        ({"accounts": None}, set()),
        ({"accounts": ACCOUNTS}, {Scope.ADMIN}),
        (SUBSCRIPTION, set(Scope) - {Scope.USAGE_READ, Scope.CHARGES_READ, Scope.CATALOG_READ}),
        ({"accounts": ACCOUNTS, "user": "ana"}, set(Scope) - {Scope.USAGE_READ, Scope.CATALOG_READ}),
        ({**SUBSCRIPTION, "user": "ana"}, set(Scope) - {Scope.USAGE_READ, Scope.CATALOG_READ}),
    ],
)
def test_what_a_reach_leaves_of_scopes(scope: Scope, bound: dict[str, Any], never: set[Scope]) -> None:
    """The narrower the reach, the fewer scopes are of use, whatever a key or token names, ADMIN too."""
    for named in (scope, Scope.ADMIN):
        caller = Caller(prefix="p", name="n", scopes=frozenset({named}), **bound)
        assert (scope not in never) is caller.holds(scope)


def test_what_is_sent_wrongly(database_url: str) -> None:
    """Nothing, another scheme, an unknown key, and a token where none are taken are each refused."""

    async def scenario(database: Database) -> None:
        credentials = Credentials(KeyRing(database), KeyUses(database, LIMITS), None)
        for sent in (None, "", "Bearer", "Bearer ", "Basic x", "Bearer unknown", "Bearer eyJ9.e30.x"):
            with pytest.raises(UnauthenticatedError):
                await credentials.authenticate(sent)

    play(database_url, scenario)
