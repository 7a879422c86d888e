"""Between what was charged and the reference one thing is changed at a time."""

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from rating.plans import Plan
from rating.stages import AsFrozen, Reference, Stage, as_frozen, stages_after, stages_before
from rating.subscriptions import PlanPhase, SeatChange
from tests.rating.tables import MARCH, at, period, plan, subscription

YEAR, APRIL, MAY, JUNE = at("2026-01-01"), at("2026-04-01"), at("2026-05-01"), at("2026-06-01")
TEAM: Final = plan()
NEWER: Final = plan(version=2, effective_from=at("2026-05-15"))
OTHER: Final = plan(key="other")
REFERENCE: Final = Reference(TEAM, Decimal(5), 3)


def shown(stage: Stage) -> tuple[Any, ...]:
    """Its cause, the plans over time, seats, discount and trial."""
    return (
        stage.cause.value,
        [(phase.plan.key, phase.plan.version, phase.start, phase.end) for phase in stage.terms.phases],
        [change.seats for change in stage.terms.seats],
        stage.terms.discount_percent,
        stage.terms.trial_ends_at,
    )


def phase(of: Plan, start: datetime, end: datetime | None) -> tuple[str, int, datetime, datetime | None]:
    """A phase as it is shown."""
    return of.key, of.version, start, end


def test_stages_by_hand() -> None:
    """Seats first; then, of the earlier period, prices of the same plan, and plans; of the later one plans, and prices."""
    customer = subscription(
        PlanPhase(OTHER, YEAR, APRIL),
        PlanPhase(NEWER, APRIL, MAY),
        PlanPhase(OTHER, MAY, at("2026-07-01")),
        seats=(SeatChange(YEAR, 1), SeatChange(MAY, 9)),
        trial_ends_at=at("2026-02-01"),
        discount_percent=Decimal(10),
    )
    real = [phase(OTHER, YEAR, APRIL), phase(NEWER, APRIL, MAY), phase(OTHER, MAY, at("2026-07-01"))]
    end = ("PLAN", [phase(TEAM, YEAR, None)], [3], Decimal(5), None)
    seated = ("RECURRING", real, [3], Decimal(10), at("2026-02-01"))

    assert [
        seated,
        ("PRICE", [real[0], phase(TEAM, APRIL, MAY), real[2]], [3], Decimal(5), None),
        end,
    ] == [shown(stage) for stage in stages_before(customer, {}, REFERENCE)]

    # Had it stayed: the first version, and the newer one from the first month on that begins after it takes effect.
    stayed = [
        phase(TEAM, YEAR, APRIL),
        phase(NEWER, APRIL, MAY),
        phase(TEAM, MAY, JUNE),
        phase(NEWER, JUNE, at("2026-07-01")),
    ]
    later = stages_after(customer, {}, REFERENCE, versions=[TEAM, NEWER], pinned=None, until=at("2026-07-01"))
    assert [seated, ("PLAN", stayed, [3], Decimal(10), at("2026-02-01")), ("PRICE", *end[1:])] == [
        shown(stage) for stage in later
    ]
    kept = stages_after(customer, {}, REFERENCE, versions=[TEAM, NEWER], pinned=1, until=at("2026-07-01"))
    assert [stayed[0], stayed[1], phase(TEAM, MAY, at("2026-07-01"))] == shown(kept[1])[1]


def test_where_no_version_was_in_effect_the_reference_stands_in() -> None:
    """A plan that was published later has no version for the time before; its reference is what would have applied."""
    late = plan(effective_from=MAY)
    customer = subscription(PlanPhase(OTHER, YEAR, at("2026-07-01")))
    reference = Reference(late, Decimal(0), 0)
    stage = stages_after(customer, {}, reference, versions=[late], pinned=None, until=at("2026-06-02"))[1]

    assert [phase(late, YEAR, at("2026-07-01"))] == shown(stage)[1]


def test_billing_periods_keep_what_they_were_frozen_with() -> None:
    """A frozen period has its own discount and trial, until the stage that takes those of the reference."""
    customer = subscription(PlanPhase(TEAM, YEAR), discount_percent=Decimal(10))
    frozen = {MARCH: AsFrozen(Decimal(50), MARCH.end)}
    asked = period("2026-03-15", "2026-04-02")
    for stages in (
        stages_before(customer, frozen, REFERENCE),
        stages_after(customer, frozen, REFERENCE, versions=[TEAM], pinned=None, until=JUNE),
    ):
        found = [
            [
                (billing.served.start, terms.discount_percent, terms.trial_ends_at)
                for terms, billing in each.billed(asked, JUNE)
            ]
            for each in stages
        ]
        as_charged = [(MARCH.start, Decimal(50), MARCH.end), (APRIL, Decimal(10), None)]
        at_reference = [(MARCH.start, Decimal(5), None), (APRIL, Decimal(5), None)]
        assert as_charged == found[0]
        assert at_reference == found[-1]


def test_billing_periods_of_a_stage() -> None:
    """They are those in which a plan applies in what is asked, and that have begun; also behind a time without a plan."""
    customer = subscription(PlanPhase(TEAM, YEAR, at("2026-02-10")), PlanPhase(OTHER, at("2026-04-10"), JUNE))
    stage = Stage(stages_before(customer, {}, REFERENCE)[0].cause, customer)

    def starts(start: str, end: str, until: datetime) -> list[datetime]:
        return [billing.served.start for _, billing in stage.billed(period(start, end), until)]

    assert [at("2026-02-01"), APRIL] == starts("2026-02-03", "2026-05-01", JUNE)
    assert [APRIL, MAY] == starts("2026-03-01", "2030-01-01", JUNE)
    assert [APRIL] == starts("2026-03-01", "2030-01-01", MAY)
    assert [] == starts("2026-02-15", "2026-03-15", JUNE)
    assert [] == starts("2020-01-01", "2026-01-01", JUNE)


def test_phases_as_they_were_frozen() -> None:
    """The parts of a frozen period take the place of what lies in it now; in a trial, which has no parts, that stays."""
    now = (PlanPhase(OTHER, YEAR, JUNE),)
    parts = [PlanPhase(TEAM, at("2026-03-05"), at("2026-03-20")), PlanPhase(NEWER, at("2026-03-20"), APRIL)]

    assert (
        PlanPhase(OTHER, YEAR, at("2026-03-05")),
        *parts,
        PlanPhase(OTHER, APRIL, JUNE),
    ) == as_frozen(now, parts, MARCH)
    assert now == as_frozen(now, [], MARCH)
    assert now == as_frozen(now, [PlanPhase(OTHER, MARCH.start, MARCH.end)], MARCH)
    open_end = (PlanPhase(OTHER, YEAR),)
    assert (PlanPhase(OTHER, YEAR, MARCH.start), PlanPhase(TEAM, MARCH.start, APRIL), PlanPhase(OTHER, APRIL)) == (
        as_frozen(open_end, [PlanPhase(TEAM, MARCH.start, APRIL)], MARCH)
    )
