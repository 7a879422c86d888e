"""What was promised is kept: the names of the contract, and the schema of the last release."""

from importlib.resources import files
from pathlib import Path
from typing import Final

import pytest
from graphql import build_schema, validate_schema

from graphql_api.breaking import breaking_changes, main
from graphql_api.schema import sdl

CONTRACT: Final = Path(__file__).parent / "contract.graphql"
# Where we ask for more than the contract does: who may read usage is not told how its customers are.
ASKED_FOR_MORE: Final = frozenset(
    f"Field {owner}.health asks for HEALTH_READ, and asked for no scope."
    for owner in ("Account", "SubscriptionFacts", "User")
)
SMALL: Final = """
schema { query: Query }
directive @requires(scope: [Scope!]!) on FIELD_DEFINITION
enum Scope { READ WRITE ADMIN }
type Query {
  usage(first: Int! = 50, filter: Filter): [Int!]! @requires(scope: [READ])
  open: Int
  old: Int @deprecated(reason: "ask usage")
}
input Filter { size: Int = 1, unit: String }
"""


def test_the_contract_is_kept() -> None:
    """Every type, field, argument, default, enum value and scope of the contract is ours; health needs a scope of its own."""
    assert set(breaking_changes(CONTRACT.read_text(encoding="utf-8"), sdl())) == ASKED_FOR_MORE


def test_nothing_is_broken_since_the_last_release(capsys: pytest.CaptureFixture[str]) -> None:
    """`make check` asks the same, and the schema of the last release is a schema."""
    released = files("graphql_api").joinpath("released.graphql").read_text(encoding="utf-8")

    assert [] == validate_schema(build_schema(released))
    assert (0, "") == (main(), capsys.readouterr().err)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("  open: Int\n", "", ["Field Query.open was removed."]),
        ("[Int!]!", "[Int]!", ["Field Query.usage changed type from [Int!]! to [Int]!."]),
        ("filter: Filter)", "filter: Filter, by: Int!)", ["A required argument Query.usage(by:) was added."]),
        (" WRITE ADMIN", " ADMIN", ["Enum value Scope.WRITE was removed."]),
        ("= 50", "= 20", ["Query.usage(first:) has changed defaultValue from 50 to 20."]),
        ("size: Int = 1", "size: Int", ["Input field Filter.size has changed its default value."]),
        ("[READ]", "[ADMIN]", ["Field Query.usage asks for ADMIN, and asked for READ."]),
        ("open: Int\n", "open: Int @requires(scope: [READ, WRITE])\n", ["READ or WRITE, and asked for no scope."]),
        # Not broken: a scope more that will do, an addition, what was deprecated before it went.
        ("[READ]", "[READ, ADMIN]", []),
        (" @requires(scope: [READ])", "", []),
        ("unit: String }", "unit: String, user: String }", []),
        ('  old: Int @deprecated(reason: "ask usage")\n', "", []),
    ],
)
def test_each_change_that_breaks_is_told(old: str, new: str, told: list[str]) -> None:
    """Documents that become invalid, defaults and scopes; nothing is said of additions, or of what was deprecated."""
    assert old in SMALL
    found = breaking_changes(SMALL, SMALL.replace(old, new))

    assert len(told) == len(found)
    assert all(sentence.endswith(expected) for sentence, expected in zip(found, told, strict=True)), found


def test_the_check_names_what_is_broken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A schema without a field that was released fails the check, which names the field and where to read on."""
    monkeypatch.setattr(
        "graphql_api.breaking.sdl", lambda: sdl().replace("  service: ServiceStatus!", "  services: ServiceStatus!")
    )

    assert 1 == main()
    first, last = capsys.readouterr().err.splitlines()
    assert first == "graphql_api/released.graphql: Field Query.service was removed."
    assert "CONTRIBUTING.md" in last
