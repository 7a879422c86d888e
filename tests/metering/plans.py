"""What PostgreSQL did for a statement, by EXPLAIN (ANALYZE, FORMAT JSON)."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec


def plan_of(explained: str) -> Mapping[str, Any]:
    """The plan that EXPLAIN answered."""
    (answer,) = msgspec.json.decode(explained)
    plan: Mapping[str, Any] = answer["Plan"]
    return plan


def nodes_of(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A plan's nodes."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes_of(part)


def rows_seen(node: Mapping[str, Any]) -> float:
    """How many rows a node looked at, those that it dropped included."""
    dropped = sum(rows for name, rows in node.items() if name.startswith("Rows Removed"))
    return float((node["Actual Rows"] + dropped) * node["Actual Loops"])
