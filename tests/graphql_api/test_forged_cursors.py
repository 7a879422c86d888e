"""Cursors and ids that nobody handed out: well-formed, of the right shape, with anything inside. None is an error of ours."""

from typing import Any, Final

import pytest

from graphql_api.pages import encode_cursor
from tests.conftest import Api, usage_event

PERIOD: Final = {"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}
GROUPS: Final = """
query ($query: UsageQuery!, $order: UsageOrder!, $after: String) { usage(query: $query) {
  ... on UsageReport { groups(orderBy: $order, after: $after) { nodes { key { user } } } }
  ... on InvalidInput { issues { path message } }
} }
"""
EVENTS: Final = (
    "query ($query: UsageQuery!, $after: String) { events(query: $query, after: $after) { nodes { eventId } } }"
)
REJECTED: Final = "query ($after: String) { rejectedEvents(after: $after) { nodes { id } } }"
NUL: Final = "a\0b"
# The first and the last instants of all calendars are none in UTC, and not every time has an offset.
NO_INSTANTS: Final = ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "2026-03-01T00:00:00", "soon", None, 7)


def deep() -> str:
    """A cursor of a hundred thousand lists in each other."""
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(b"[" * 100_000).decode()


def groups_cursor(**changed: Any) -> str:
    """A cursor of groups by user in order of calls, but for what is changed."""
    place = {"group_by": ["user"], "field": "QUANTITY", "descending": True, "unit": "call", "key": ["a"], "value": "1"}
    return encode_cursor(list({**place, **changed}.values()))


@pytest.mark.parametrize(
    "changed",
    [
        {"key": [NUL]},
        {"unit": NUL},
        {"value": None},
        {"value": "NaN"},
        {"value": "Infinity"},
        {"value": "-sNaN"},
        {"value": "1E+999999"},
        {"value": "1E-999999"},
        {"value": "9" * 1_000},
        {"value": "much"},
        {"key": []},
        {"key": ["a", "b"]},
        {"key": [1]},
        {"key": None},
        {"group_by": ["device"]},
        {"group_by": [NUL]},
        {"field": "KEY"},
        {"descending": "yes"},
    ],
)
def test_a_forged_cursor_of_groups_is_refused(api: Api, changed: dict[str, Any]) -> None:
    """Whatever is wrong in a cursor of groups, the answer is InvalidInput at `after`, which says what to pass instead."""
    api.send(usage_event(1, user="a"))
    variables = {
        "query": {"period": PERIOD, "groupBy": ["USER"]},
        "order": {"field": "QUANTITY", "direction": "DESC", "unit": "call"},
    }

    good = api.ask(GROUPS, {**variables, "after": groups_cursor()})["usage"]
    forged = api.ask(GROUPS, {**variables, "after": groups_cursor(**changed)})["usage"]

    assert {"groups": {"nodes": []}} == good
    assert [["groups", "after"]] == [issue["path"] for issue in forged["issues"]]
    assert "cursor" in forged["issues"][0]["message"]


def test_an_order_by_key_takes_no_value(api: Api) -> None:
    """A cursor by key that holds a value all the same is none of ours."""
    variables = {
        "query": {"period": PERIOD, "groupBy": ["USER"]},
        "order": {"field": "KEY", "direction": "ASC"},
        "after": groups_cursor(field="KEY", descending=False, unit=None),
    }

    assert [["groups", "after"]] == [issue["path"] for issue in api.ask(GROUPS, variables)["usage"]["issues"]]


def refusals(api: Api, document: str, variables: dict[str, Any]) -> list[str]:
    """The codes that a document is answered with."""
    return [error["extensions"]["code"] for error in api.answer(document, variables).get("errors", [])]


def test_forged_cursors_of_events_are_refused(api: Api) -> None:
    """A cursor of events with a time that is none, or a text that no account has, is INVALID_INPUT."""
    at = "2026-03-01T00:00:00Z"
    forged = [
        *(encode_cursor([instant, "acme", b"key"]) for instant in NO_INSTANTS),
        encode_cursor([at, NUL, b"key"]),
        encode_cursor([at, None, b"key"]),
        encode_cursor([at, "acme", "no base64!"]),
        encode_cursor([at, "acme"]),
        deep(),
    ]
    variables = {"query": {"period": PERIOD}}

    assert [] == refusals(api, EVENTS, {**variables, "after": encode_cursor([at, "acme", b"key"])})
    for cursor in forged:
        assert ["INVALID_INPUT"] == refusals(api, EVENTS, {**variables, "after": cursor}), cursor[:99]


def test_forged_cursors_of_rejected_events_are_refused(api: Api) -> None:
    """A cursor of rejected events with a time that is none, or no id, is INVALID_INPUT."""
    forged = [
        *(encode_cursor([instant, 1]) for instant in NO_INSTANTS),
        encode_cursor(["2026-03-01T00:00:00Z", 2**63]),
        deep(),
    ]

    for cursor in forged:
        assert ["INVALID_INPUT"] == refusals(api, REJECTED, {"after": cursor}), cursor[:99]


def test_forged_ids_name_nothing(api: Api) -> None:
    """An id that holds what no object has names nothing: null, and no error."""
    ids = [
        *(encode_cursor(["Event", "acme", instant, b"key"]) for instant in NO_INSTANTS),
        encode_cursor(["Event", NUL, "2026-03-01T00:00:00Z", b"key"]),
        deep(),
    ]

    for forged in ids:
        answer = api.ask("query ($id: ID!) { node(id: $id) { id } }", {"id": forged})
        assert {"node": None} == answer, forged[:99]


@pytest.mark.parametrize(
    "place",
    [["acme", "NaN"], ["acme", "1E+999999"], ["acme", "9" * 1_000], [NUL, "1"], ["acme"], [None, None], ["acme", {}]],
)
def test_forged_cursors_of_accounts(api: Api, place: list[Any]) -> None:
    """A cursor of accounts that was made up is refused by its argument."""
    answer = api.answer(
        "query ($after: String) { accounts(after: $after) { totalCount } }", {"after": encode_cursor(place)}
    )

    assert ["INVALID_INPUT"] == [error["extensions"]["code"] for error in answer["errors"]]
