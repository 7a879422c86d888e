"""Ways and users at once through GraphQL: a morning by hand, shares that add up, and what may not be asked."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.conftest import ENGINES, Api, Server, running

# Account, user, minute after nine, feature.
TOLD: Final = [
    *(("acme", "ana", 0, "open"), ("acme", "ana", 5, "edit"), ("acme", "ana", 6, "edit"), ("acme", "ana", 40, "open")),
    *(("acme", "ben", 5, "edit"), ("acme", "ben", 20, None), ("acme", "ben", 49, "save")),
    *(("beta", "ana", 1440, "open"), ("beta", "ana", 1441, "edit"), ("beta", "cy", 1441, "save")),
]
WAYS: Final = """
query ($query: UsageQuery!, $first: Int! = 10, $repeats: Boolean! = false) {
  ways(query: $query, first: $first, repeats: $repeats) {
    ... on WaysReport {
      times wayCount users walkers activeDays routineDays routineStrength others { ways times share }
      ways { first { product feature } then { feature } times share users days }
    }
    ... on InvalidInput { issues { path message } }
  }
}
"""
AT_ONCE: Final = """
query ($query: UsageQuery!, $bucket: Bucket, $first: Int! = 10) {
  usersAtOnce(query: $query, bucket: $bucket, first: $first) {
    ... on UsersAtOnceReport {
      users at groupCount groups { key { account feature } users at } series { bucket columns { from users } }
    }
    ... on Problem { code message }
  }
}
"""
PERIOD: Final = {"from": "2026-06-01T00:00:00Z", "to": "2026-06-03T00:00:00Z"}


@pytest.fixture(scope="module", params=ENGINES)
def api(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[Api]:
    """Two days of three users of two accounts."""
    events = [
        {
            "id": str(number),
            "source": "test",
            "occurred_at": f"2026-06-0{1 + minute // 1440}T{9 + minute % 1440 // 60:02}:{minute % 60:02}:00Z",
            "account": account,
            "user": user,
            "product": "notes",
            "feature": feature,
            "unit": "call",
            "quantity": "1",
        }
        for number, (account, user, minute, feature) in enumerate(TOLD)
    ]
    with servers[request.param].cloned() as url, running(url) as started:
        assert [] == started.send(events)["rejected"]
        yield started


def ask(api: Api, document: str, *, group_by: list[str] | None = None, **given: Any) -> Any:
    """The answer to a question about these two days."""
    filters = {name: {"in": given.pop(name)} for name in ("account", "user") if name in given}
    query = {"period": given.pop("period", PERIOD), "filter": filters, "groupBy": group_by or []}
    ((_, answer),) = api.ask(document, {"query": query, **given}).items()
    return answer


def test_ways_lead_from_feature_to_feature_within_a_session(api: Api) -> None:
    """What is between two features and names none ends no session; half an hour does. Listed ways and others are the whole."""
    found = ask(api, WAYS)

    assert {
        "times": "3",
        "wayCount": 2,
        # An account's user is another one than that of the same name elsewhere.
        "users": 4,
        "walkers": 3,
        "activeDays": "4",
        "routineDays": "3",
        "routineStrength": 0.75,
        "others": {"ways": 0, "times": "0", "share": 0},
        "ways": [
            _way("open", "edit", times="2", share=2 / 3, users=2, days="2"),
            _way("edit", "save", times="1", share=1 / 3, users=1, days="1"),
        ],
    } == found
    assert {**found, "ways": found["ways"][:1], "others": {"ways": 1, "times": "1", "share": 1 / 3}} == ask(
        api, WAYS, first=1
    )
    assert ("4", 3) == tuple(ask(api, WAYS, repeats=True)[name] for name in ("times", "wayCount"))
    assert 1 == ask(api, WAYS, account=["beta"], user=["ana"])["routineStrength"]
    assert (None, []) == tuple(ask(api, WAYS, user=["nobody"])[name] for name in ("routineStrength", "ways"))


def _way(first: str, then: str, **figures: Any) -> dict[str, Any]:
    return {"first": {"product": "notes", "feature": first}, "then": {"feature": then}, **figures}


def test_users_are_there_from_their_first_use_to_their_last(api: Api) -> None:
    """The peak is of everything together; each group has its own sessions; who goes on into a minute is there in it."""
    found = ask(api, AT_ONCE, group_by=["ACCOUNT"], bucket="HOUR", period={**PERIOD, "to": "2026-06-02T12:00:00Z"})

    assert (2, "2026-06-01T09:05:00Z", 2) == (found["users"], found["at"], found["groupCount"])
    assert [
        {"key": {"account": "acme", "feature": None}, "users": 2, "at": "2026-06-01T09:05:00Z"},
        {"key": {"account": "beta", "feature": None}, "users": 2, "at": "2026-06-02T09:01:00Z"},
    ] == found["groups"]
    columns = found["series"]["columns"]
    assert {"2026-06-01T09:00:00Z": 2, "2026-06-02T09:00:00Z": 2} == {
        start: users for start, users in zip(columns["from"], columns["users"], strict=True) if users
    }
    assert 36 == len(columns["from"])
    # Of sessions as far as they are in the period, ana's ends soon, and ben's goes on.
    minutes = {"from": "2026-06-01T09:03:00Z", "to": "2026-06-01T09:21:00Z"}
    of_minutes = ask(api, AT_ONCE, bucket="MINUTE", period=minutes)["series"]["columns"]["users"]
    assert [0, 0, 2, 2, *[1] * 14] == of_minutes
    of_features = ask(api, AT_ONCE, group_by=["FEATURE"], first=1)
    assert (4, [{"key": {"account": None, "feature": "edit"}, "users": 2, "at": "2026-06-01T09:05:00Z"}]) == (
        of_features["groupCount"],
        of_features["groups"],
    )
    nobody = ask(api, AT_ONCE, user=["nobody"], group_by=["ACCOUNT"])
    assert {"users": 0, "at": None, "groups": [], "groupCount": 0, "series": None} == nobody


def test_what_may_not_be_asked_is_told_all_at_once(api: Api) -> None:
    """A period that is too long and groups of ways are told together, each with what to do; so are too many points."""
    long = {"from": "2026-01-01T00:00:00Z", "to": "2026-06-03T00:00:00Z"}
    refused = ask(api, WAYS, group_by=["ACCOUNT"], period=long)["issues"]

    assert [["query", "period"], ["query", "groupBy"]] == [each["path"] for each in refused]
    assert refused[0]["message"].endswith("ask for a shorter one.")
    assert "by a filter" in refused[1]["message"]
    assert "INVALID_INPUT" == ask(api, AT_ONCE, period=long)["code"]
    assert "TOO_LARGE" == ask(api, AT_ONCE, period=long, bucket="MINUTE")["code"]
    assert "INVALID_INPUT" == ask(api, AT_ONCE, first=0)["code"]
