"""docs/health.md says what the code does: its worked example, its bounds, its thresholds and its cards."""

import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from health import bounds
from health.alarms import AlarmType, Thresholds
from health.change import HealthChangeCause, change_between
from health.defaults import default_scorecards
from health.measurements import Measurement, Observed
from health.score import Health, evaluate
from health.scorecards import leaves_of
from tests.health.cards import utc

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "health.md").read_text(encoding="utf-8")
CARD = default_scorecards()[0]
SEEN = date(2026, 3, 1)


def tables(heading: str) -> list[list[list[str]]]:
    """The cells of the tables below a heading, without their heads."""
    section = re.split(r"\n#+ ", TEXT.partition(f"# {heading}\n")[2])[0]
    blocks = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()[2:]] for block in blocks
    ]


def number(text: str) -> float:
    """A number as the page writes it."""
    return float(text.replace("\N{MINUS SIGN}", "-"))


def account(on: date, **changed: Measurement) -> Health:
    """The account of the worked example."""
    found: dict[str, Measurement] = {
        "seat_utilisation": Observed(0.64),
        "median_l28": Observed(6.0),
        "drop_z": Observed(1.0),
        "nps": Observed(40.0, utc(SEEN - timedelta(days=135)), respondents=5),
        "pulse": Observed(4.0, utc(SEEN - timedelta(days=14))),
        "invoice_overdue_days": Observed(0.0),
        **changed,
    }
    return evaluate(CARD, found, as_of=on)


def test_the_worked_example_is_right() -> None:
    """Each row of the example, its score, coverage and band are what the card comes to."""
    health = account(SEEN)
    rows = tables("A worked example")[0]

    assert [f"`{driver.metric}`" for driver in health.drivers] == [row[0] for row in rows]
    for driver, (_, value, score, prior, share, known, contributes) in zip(health.drivers, rows, strict=True):
        assert ("unknown" if driver.value is None else f"{driver.value:g}") == value
        assert ("" if driver.score is None else f"{driver.score:g}") == score
        assert (f"{driver.prior:g}", f"{driver.weight:g}", f"{driver.known:g}") == (prior, share, known)
        assert driver.contribution == pytest.approx(number(contributes), abs=1e-9)
    total = sum(number(row[-1]) for row in rows)
    assert f"The baseline is {health.baseline:g}, the contributions come to {total:g}" in TEXT
    assert (
        f"**the score is {health.score:g}**, in the band `{health.band}`, with a coverage of {health.coverage:g}"
        in TEXT
    )
    assert health.adjustment is None


def test_the_change_of_the_example_is_right() -> None:
    """Each part of the change is on the page, to a thousandth; there are no others, and they add up."""
    later = account(
        SEEN + timedelta(days=14),
        seat_utilisation=Observed(0.48),
        champion_lost=Observed(1.0),
    )
    change = change_between(account(SEEN), later)
    rows = tables("A worked example")[1]

    assert f"the score is **{later.score:g}**" in TEXT
    assert [f"`{part.cause.value}`" for part in change.parts] == [row[0] for row in rows]
    for part, row in zip(change.parts, rows, strict=True):
        assert part.contribution == pytest.approx(number(row[-1]), abs=0.0005)
        assert not part.path or f"`{part.metric}`" in row[1]
    assert change.difference == pytest.approx(sum(part.contribution for part in change.parts), abs=1e-9)


def test_bounds_are_those_of_the_code() -> None:
    """The bounds on the page are those that cards are held to."""
    expected = [
        bounds.BANDS_MIN,
        bounds.BANDS_MAX,
        bounds.MEASURES_MAX,
        bounds.TREE_LEVELS_MAX,
        bounds.CURVE_POINTS_MAX,
        bounds.CAPS_MAX,
        bounds.CONDITIONS_MAX,
        bounds.EXPRESSIONS_MAX,
        bounds.EXPRESSION_LEVELS_MAX,
        bounds.OVERRIDE_DAYS_MAX,
    ]

    assert [str(bound) for bound in expected] == [row[1] for row in tables("Scorecards")[0]]


def test_thresholds_and_alarms_are_those_of_the_code() -> None:
    """Every alarm and every threshold is on the page, with the default that it has, and none that there is not."""
    section = TEXT.partition("## Early warnings")[2].partition("\n### ")[0]
    named: dict[str, Any] = {
        name: float(value) for name, value in re.findall(r"`([a-z][A-Za-z]+)` ([\d.]*\d)", section)
    }
    defaults = {field.encode_name: field.default for field in msgspec.structs.fields(Thresholds)}

    assert defaults == named
    assert {kind.value for kind in AlarmType} == {row[0].strip("`") for row in tables("Early warnings")[0]}


def test_causes_are_those_of_the_code() -> None:
    """Every cause of a change is on the page, in order."""
    assert [f"`{cause.value}`" for cause in HealthChangeCause] == [row[0] for row in tables("Why a score moved")[0]]


def test_cards_are_those_of_the_code() -> None:
    """Every default card is on the page with its subject, for whom it is, and its measures in order."""
    expected = [
        [
            f"`{card.key}`",
            card.subject.value,
            "; ".join(f"{name}: {', '.join(map(str, one.one_of or ()))}" for name, one in card.when.items())
            or "everybody else",
            ", ".join(f"`{leaf.measure.metric}`" for leaf in leaves_of(card)),
        ]
        for card in default_scorecards()
    ]

    assert expected == tables("The cards that are there")[0]


def test_every_file_of_the_core_is_in_its_readme() -> None:
    """The README's map names each file of health/ once."""
    text = (ROOT / "health" / "README.md").read_text(encoding="utf-8").partition("## Ownership")[0]
    named = [name for name in re.findall(r"`(\w+\.py)`", text) if name != "probes.py"]

    assert sorted(path.name for path in (ROOT / "health").glob("*.py") if path.name != "__init__.py") == sorted(named)
