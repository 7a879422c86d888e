"""What sales asks: trials, up-sell, cross-sell, and discounts."""

from typing import Final

from health.lists.conditions import above, at_least, at_most, below
from health.lists.rules import ACCOUNT_SCORE, DISCOUNT_PERCENT, Rank, Rule
from health.lists.thresholds import DEFAULTS
from health.scorecards import Subject

TRIALS_LIKELY_TO_CLOSE: Final = Rule(
    name="trialsLikelyToClose",
    subject=Subject.SUBSCRIPTION,
    question="Which trials are most likely to close?",
    required=(at_least("trial_days_left", 0, "the trial ends in {value:.0f} days"),),
    signs=(
        (
            at_least(
                "features_used", DEFAULTS.trial_features_min, "{value:.0f} features are used, {threshold:.0f} or more"
            ),
        ),
        (at_least("active_users", DEFAULTS.trial_users_min, "{value:.0f} users are active, {threshold:.0f} or more"),),
        (
            at_least(
                "active_days",
                DEFAULTS.trial_days_min,
                "active on {value:.0f} of 28 days, {threshold:.0f} or more: no single long session",
            ),
        ),
    ),
    signs_min=1,
    rank=Rank("active_days"),
    blind="budgets and decisions; that trials like these were paid for is an association, not a cause",
    is_internal=True,
)

UPSELLS: Final = Rule(
    name="upsells",
    subject=Subject.SUBSCRIPTION,
    question="Who could be sold more?",
    required=(
        at_least(
            ACCOUNT_SCORE,
            DEFAULTS.upsell_score_min,
            "the account's score is {value:.0f}, {threshold:.0f} or more",
            unknown="the account has no score",
        ),
        below("trial_days_left", 0, "the trial is over", unknown="no trial is running"),
    ),
    signs=(
        (
            at_least(
                "allowance_use",
                DEFAULTS.upsell_allowance_min,
                "{value:.0%} of what is included is used so far, {threshold:.0%} or more",
            ),
        ),
        (
            at_least(
                "seat_utilisation",
                DEFAULTS.upsell_seats_used_min,
                "{value:.0%} of the seats are used, {threshold:.0%} or more",
            ),
            at_least("seats", DEFAULTS.upsell_seats_min, "there are {value:.0f} seats, {threshold:.0f} or more"),
        ),
    ),
    signs_min=1,
    remarks=(
        at_least("trend", DEFAULTS.growth_min, "usage changes by {value:+.0%} in four weeks"),
        at_least("growth_users", DEFAULTS.growth_min, "there are more users than in the 28 days before"),
    ),
    rank=Rank("allowance_use"),
    blind="periods before the running one, and what the next plan would cost: `simulatePlan` tells that",
    is_internal=True,
)

DISCOUNTS_TO_PHASE_OUT: Final = Rule(
    name="discountsToPhaseOut",
    subject=Subject.SUBSCRIPTION,
    question="Which discounts are to be phased out?",
    required=(
        above(DISCOUNT_PERCENT, 0, "the discount is {value:g} %"),
        at_most(
            "renewal_days",
            "renewalDaysMax",
            "the renewal is {value:.0f} days ahead, {threshold:.0f} at most",
        ),
        at_least(
            ACCOUNT_SCORE,
            DEFAULTS.discount_score_min,
            "the account's score is {value:.0f}, {threshold:.0f} or more",
        ),
        at_least("trend", 0, "usage changes by {value:+.0%} in four weeks"),
        at_least(
            "seat_utilisation",
            DEFAULTS.discount_seats_used_min,
            "{value:.0%} of the seats are used, {threshold:.0%} or more",
            unknown="no seats are sold",
        ),
    ),
    rank=Rank(DISCOUNT_PERCENT),
    blind="what a discount was promised for: no commitment is kept here, and discounts within a plan are its prices",
    is_internal=True,
)
