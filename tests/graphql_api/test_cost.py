"""What operations cost, and the budget of a key."""

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.cost import BURST_SECONDS, Budget, Budgets, Cost
from metering.errors import ThrottledError, TooLargeError
from metering.keys import Scope
from metering.limits import Limits
from tests.conftest import ADMIN_KEY, ENGINES, Api, Server, bearer, make_key, running, usage_event

PERIOD: Final = 'period: { from: "2026-03-01T00:00:00Z", to: "2026-03-02T00:00:00Z" }'
SERIES: Final = (
    "... on UsageReport { groups { nodes { series(bucket: HOUR) { columns { events } } } } } "
    "... on TooLarge { code points maximum }"
)
DAY: Final = f"usage(query: {{ {PERIOD} }}) {{ {SERIES} }}"


def cost_of(api: Api, query: str) -> Any:
    """What an operation says that it costs."""
    return api.answer(query)["extensions"]["cost"]


def test_an_answer_says_what_it_cost(api: Api) -> None:
    """One for each field at the root, fragments too, and one for each point of a series; without a budget that is all."""
    api.send([usage_event()])

    assert {"requestedQueryCost": 1, "actualQueryCost": 1} == cost_of(api, "{ service { status } }")
    assert {"requestedQueryCost": 1, "actualQueryCost": 25} == cost_of(api, f"{{ {DAY} }}")
    spread = f"{{ ...F a: {DAY} }} fragment F on Query {{ service {{ status }} b: {DAY} }}"
    assert {"requestedQueryCost": 3, "actualQueryCost": 51} == cost_of(api, spread)
    chosen = f"query A {{ {DAY} }} query B {{ service {{ status }} again: service {{ status }} }}"
    response = api.client.post("/graphql", json={"query": chosen, "operationName": "B"})
    assert {"requestedQueryCost": 2, "actualQueryCost": 2} == response.json()["extensions"]["cost"]


def test_what_was_not_executed_cost_nothing(api: Api) -> None:
    """An answer without data has no cost either."""
    assert {"errors"} == api.answer("{ nonsense }").keys()


def test_the_points_of_an_operation_are_counted_together(database_url: str) -> None:
    """Two series that are each allowed are not allowed in one operation: the one that comes too much is TooLarge."""
    with running(database_url, Limits(points_max=30)) as api:
        api.send([usage_event()])
        alone = api.answer(f"{{ {DAY} }}")
        both = api.answer(f"{{ a: {DAY} b: {DAY} }}")

    assert 24 == len(alone["data"]["usage"]["groups"]["nodes"][0]["series"][0]["columns"]["events"])
    refused = [each for each in both["data"].values() if "code" in each]
    assert [{"code": "TOO_LARGE", "points": 48, "maximum": 30}] == refused
    assert 2 + 24 == both["extensions"]["cost"]["actualQueryCost"]


def test_a_key_that_has_spent_its_budget_waits(servers: dict[str, Server]) -> None:
    """429 with Retry-After and THROTTLED in either media type, and at the field where points are too dear; others go on."""
    with servers[ENGINES[0]].cloned() as url, running(url, graphql_cost_per_second=1) as api:
        api.send([usage_event()])
        _, other = make_key(url, Scope.USAGE_READ)
        first = api.answer(f"{{ a: {DAY} b: {DAY} }}")
        dear = api.answer(f"{{ {DAY} }}")
        spent = [api.answer("{ service { status } }") for _ in range(BURST_SECONDS)]
        responses = [
            api.client.post(
                "/graphql", json={"query": "{ service { status } }"}, headers={"Accept": accept, **bearer(ADMIN_KEY)}
            )
            for accept in ("application/json", "application/graphql-response+json")
        ]
        others = api.answer(f"{{ {DAY} }}", key=other)

    status = first["extensions"]["cost"]["throttleStatus"]
    assert (BURST_SECONDS, 1) == (status["maximumAvailable"], status["restoreRate"])
    assert status["currentlyAvailable"] < BURST_SECONDS - 2
    (error,) = dear["errors"]
    assert ("THROTTLED", ["usage"]) == (error["extensions"]["code"], error["path"])
    assert 0 < error["extensions"]["retryAfterSeconds"] <= BURST_SECONDS
    assert "errors" in spent[-1]
    for response in responses:
        assert 429 == response.status_code
        assert 0 < int(response.headers["retry-after"]) <= 2
        (error,) = response.json()["errors"]
        assert ("THROTTLED", {"errors"}) == (error["extensions"]["code"], response.json().keys())
    assert "errors" not in others


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


def test_what_is_dearer_than_a_full_budget_is_owed() -> None:
    """A full budget takes anything; afterwards nothing is taken until what is owed has come in, as the error says."""
    clock = Clock()
    budget = Budget(10, clock)
    budget.spend(10 * BURST_SECONDS + 1_000)
    with pytest.raises(ThrottledError) as refused:
        budget.spend(1)
    clock.now += refused.value.wait_seconds
    budget.spend(1)

    assert 101 == refused.value.wait_seconds
    assert 9 == budget.available()


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 900)), max_size=40))
def test_no_more_is_spent_than_came_in(steps: list[tuple[int, int]]) -> None:
    """Whatever is asked whenever, what was taken is at most a full budget and what came in since; and who waits is let in."""
    clock = Clock()
    budget = Budget(5, clock)
    taken = 0
    for wait, cost in steps:
        clock.now += wait
        try:
            budget.spend(cost)
            taken += cost
        except ThrottledError as error:
            clock.now += error.wait_seconds
            budget.spend(cost)
            taken += cost
        assert taken <= 5 * BURST_SECONDS + 5 * clock.now + max(cost for _, cost in steps)


def test_budgets_are_kept_for_who_spends() -> None:
    """Without a rate there is none; with one each key has its own, and no more of them are kept than are not full."""
    clock = Clock()
    budgets = Budgets(1, clock)
    poor = budgets.of("poor")
    assert poor is not None
    poor.spend(1)
    for number in range(20_000):
        budgets.of(str(number))

    assert Budgets(None).of("anybody") is None
    assert budgets.of("poor") is poor
    assert len(budgets._budgets) <= 10_001


def test_what_is_too_large_is_not_counted() -> None:
    """Points that are refused are not computed, so what was asked beside them is still allowed."""
    cost = Cost()
    cost.take(6, 10)
    with pytest.raises(TooLargeError):
        cost.take(5, 10)
    cost.take(4, 10)

    assert 10 == cost.points
