"""The mix of devices through GraphQL: what a plain count over the events says."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.conftest import ENGINES, Api, Server, running

DAY: Final = "2026-03-29"
ASK: Final = """
query ($account: String, $first: Int!) {
  deviceMix(asOf: "2026-03-29", account: $account, first: $first) {
    activeDays events users severalDevicesShare
    devices { device activeDays activeDaysShare events eventsShare users features { feature lift } }
  }
}
"""


def drawn() -> list[dict[str, Any]]:
    """Events of 40 days of two accounts, some in the background, some taken back, some that name no device or user."""
    rng = random.Random(8)
    return [
        {
            "id": str(number),
            "source": "test",
            "occurred_at": f"2026-{'02' if day < 0 else '03'}-{day + 28 if day < 0 else day + 1:02}T10:00:00Z",
            "account": rng.choice(["acme", "beta"]),
            "user": rng.choice(["ana", "ben", None, "robot"]),
            "device": rng.choice(["phone", "phone", "desktop", None]),
            "product": "maps",
            "feature": rng.choice(["find", "plan", "plan", None]),
            "classification": rng.choice([None, None, "background"]),
            "unit": "call",
            "quantity": rng.choice(["1", "2", "-1"]),
        }
        for number, day in enumerate(rng.choices(range(-10, 30), k=300))
    ]


@pytest.fixture(scope="module", params=ENGINES)
def world(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[tuple[Api, list[dict[str, Any]]]]:
    """Events, of which one user is no person."""
    events = drawn()
    with servers[request.param].cloned() as url, running(url) as api:
        assert [] == api.send(events)["rejected"]
        for account in ("acme", "beta"):
            given = {
                "account": account,
                "key": "robot",
                "attributes": {"service_account": True},
                "at": "2026-01-01T00:00:00Z",
            }
            api.ask("mutation ($input: PutUserInput!) { putUser(input: $input) { __typename } }", {"input": given})
        yield api, events


@pytest.mark.parametrize("account", [None, "beta"])
def test_the_mix_is_the_naive_one(world: tuple[Api, list[dict[str, Any]]], account: str | None) -> None:
    """Days of users, events, users and lifts of each device are those that are counted one by one; shares add up to 1."""
    api, told = world
    events = [
        each
        for each in told
        if "2026-03-01" <= each["occurred_at"] < DAY and each["user"] != "robot" and account in {None, each["account"]}
    ]
    active = [
        each for each in events if each["user"] and each["quantity"] != "-1" and each["classification"] != "background"
    ]
    users = {(each["account"], each["user"], each["device"]) for each in active}
    of_users = Counter((name, user) for name, user, _ in users)
    days = {(each["account"], each["user"], each["occurred_at"], each["device"]) for each in active}
    found = api.ask(ASK, {"account": account, "first": 10})["deviceMix"]

    assert (len(days), str(len(events)), len(of_users)) == tuple(
        found[name] for name in ("activeDays", "events", "users")
    )
    assert found["severalDevicesShare"] == sum(count > 1 for count in of_users.values()) / len(of_users)
    assert {
        device: (
            sum(day[-1] == device for day in days),
            str(sum(each["device"] == device for each in events)),
            sum(user[-1] == device for user in users),
        )
        for device in ("phone", "desktop", None)
    } == {each["device"]: (each["activeDays"], each["events"], each["users"]) for each in found["devices"]}
    for share in ("activeDaysShare", "eventsShare"):
        assert sum(each[share] for each in found["devices"]) == pytest.approx(1)
    named = [each for each in events if each["feature"]]
    for each in found["devices"]:
        there = [one for one in named if one["device"] == each["device"]]
        lifts = {
            feature: (sum(one["feature"] == feature for one in there) / len(there))
            / (sum(one["feature"] == feature for one in named) / len(named))
            for feature in {one["feature"] for one in there}
        }
        assert lifts == pytest.approx({one["feature"]: one["lift"] for one in each["features"]})
    first = api.ask(ASK, {"account": account, "first": 1})["deviceMix"]
    assert ({**found, "devices": found["devices"][:1]}, "phone") == (first, first["devices"][0]["device"])
