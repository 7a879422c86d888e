"""docs/rating.md says what the code does: its examples, its bounds, and where we differ."""

import json
import re
from decimal import Decimal
from pathlib import Path

from rating import bounds
from rating.explain import Explanation
from rating.plans import PlanPrice
from rating.prices import KINDS, Flat, PerSeat, PerUnit
from rating.stages import Reference
from rating.subscriptions import PlanPhase, SeatChange
from tests.rating.comparisons import Comparison
from tests.rating.tables import CASES, MARCH, at, cases, owed, period, plan, rated, subscription

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "rating.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in cells] for cells in lines[2:]]


def test_every_kind_of_price_has_an_example_that_is_right() -> None:
    """There is one example for each kind, of that kind, and it comes to what the page says, to the digit."""
    examples = rows("Kinds of price")

    assert [row[0].strip("`") for row in examples] == list(KINDS)
    for kind, _, price, quantity, amount in examples:
        definition = json.loads(price.strip("`"))
        lines = rated({"price": definition, "quantity": quantity, "events": 3, "currencyCode": "EUR"})
        assert [kind.strip("`")] == list(definition)
        assert amount == str(owed(lines))


def test_bounds_are_those_of_the_code() -> None:
    """The bounds on the page are those that validate() holds a plan to."""
    expected = [
        bounds.DIGITS_MAX,
        bounds.FRACTION_DIGITS_MAX,
        bounds.PRICES_MAX,
        bounds.TIERS_MAX,
        bounds.NAME_CHARS_MAX,
    ]

    assert [str(bound) for bound in expected] == [row[1] for row in rows("What a plan may hold")]


def test_every_difference_is_on_the_page() -> None:
    """Each case in which we differ from its source is named in the table of differences, by its topic."""
    page = {topic for topic, *_ in rows("Where we differ from others")}
    topics: dict[str, list[str]] = {}
    for case in cases("differences"):
        topics.setdefault(case["topic"], []).append(f"`{case['id']}`")

    assert {f"{topic} ({', '.join(sorted(ids))})" for topic, ids in topics.items()} <= page


def test_the_explanation_on_the_page_is_right() -> None:
    """The parts on the page are those of its example, in their order, to the digit, and add up to what it says."""
    page = [[cell.strip("`") for cell in row] for row in rows("Why charges differ") if len(row) > 2][2:]
    explanation = explained_example()
    parts = [
        [part.cause.value, part.key[0] or "", str(part.amount.amount)]
        + ["" if each is None else str(each) for each in (part.quantity_before, part.quantity_after)]
        for part in explanation.parts
    ]

    assert parts == page
    assert f"\n{explanation.before.amount} became {explanation.after.amount}, because of:\n" in TEXT
    assert 0 == explanation.remainder.amount


def explained_example() -> Explanation:
    """The example: a flat price, seats and calls; a seat more and a dearer version from March on."""
    base, seats = PlanPrice(key="base", price=Flat(Decimal(10))), PlanPrice(key="seats", price=PerSeat(Decimal(4)))
    old, new = (
        plan(base, seats, PlanPrice(key="calls", meter="meter", price=PerUnit(Decimal(price))), version=version)
        for price, version in (("0.20", 1), ("0.25", 2))
    )
    start = at("2026-01-01")
    customer = subscription(
        PlanPhase(old, start, MARCH.start),
        PlanPhase(new, MARCH.start),
        seats=(SeatChange(start, 2), SeatChange(MARCH.start, 3)),
    )
    calls = [("ann", "02", "100"), ("bob", "02", "50"), ("ann", "03", "160"), ("cleo", "03", "40")]
    return Comparison(
        customer=customer,
        used=[((user, None), at(f"2026-{month}-10"), Decimal(count)) for user, month, count in calls],
        before=period("2026-02-01", "2026-03-01"),
        after=MARCH,
        reference=Reference(old, Decimal(0), 2),
        versions=[old, new],
        by=[0],
    ).explained()


def test_number_of_facts_is_the_one_on_the_page() -> None:
    """The page says how many facts there are, in how many we differ, and how many are left out."""
    facts = len((CASES / "facts.txt").read_text(encoding="utf-8").split())
    differing, left_out = len(cases("differences")), len(cases("left_out"))

    assert [(str(facts), str(differing), str(left_out))] == re.findall(
        r"The (\d+) facts .* in (\d+) of them .* and (\d+) are left out", TEXT
    )


def test_every_file_of_the_core_is_in_its_readme() -> None:
    """The README's map names each file of rating/ once."""
    text = (ROOT / "rating" / "README.md").read_text(encoding="utf-8").partition("## Ownership")[0]
    named = re.findall(r"`(\w+\.py)`", text)

    assert sorted(path.name for path in (ROOT / "rating").glob("*.py") if path.name != "__init__.py") == sorted(named)
    assert Decimal(len(named)) == len(set(named))
