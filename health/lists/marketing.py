"""What marketing asks: whom to train or offer something, whom to write to, who would speak for us."""

from typing import Final

from health.lists.conditions import at_least, at_most
from health.lists.rules import ACCOUNT_SCORE, ACCOUNT_SCORE_LOWEST, Rank, Rule
from health.lists.thresholds import DEFAULTS
from health.scorecards import Subject

_NO_SEVERE: Final = at_most(
    "tickets_severe_open", 0, "no severe ticket is open", unknown="no severe ticket was told of"
)

TRAINING_CANDIDATES: Final = Rule(
    name="trainingCandidates",
    subject=Subject.USER,
    question="Who would gain by training, or is to be offered something?",
    required=(
        at_least("expected", 1, "is expected to come: has access, and is not done with the set-up"),
        at_least(
            "age_days", DEFAULTS.training_age_days_min, "first came {value:.0f} days ago, {threshold:.0f} or more"
        ),
    ),
    signs=(
        (
            at_least(
                "active_days",
                DEFAULTS.training_busy_days_min,
                "busy: active on {value:.0f} of 28 days, {threshold:.0f} or more",
            ),
        ),
        (
            at_most(
                "breadth",
                DEFAULTS.training_breadth_max,
                "narrow: uses {value:.0%} of the features there are, {threshold:.0%} at most",
            ),
            at_least(
                "active_days",
                DEFAULTS.training_narrow_days_min,
                "active on {value:.0f} of 28 days, {threshold:.0f} or more",
            ),
        ),
    ),
    signs_min=1,
    rank=Rank("active_days"),
    blind="what a role needs: narrow use may be all that somebody's work takes",
)

CAMPAIGN_AUDIENCE: Final = Rule(
    name="campaignAudience",
    subject=Subject.ACCOUNT,
    question="Who is to be in a campaign?",
    required=(
        at_least(
            ACCOUNT_SCORE,
            DEFAULTS.campaign_score_min,
            "the account's score is {value:.0f}, {threshold:.0f} or more",
        ),
        _NO_SEVERE,
        at_least(
            "touch_days",
            DEFAULTS.campaign_touch_days_min,
            "the last contact was {value:.0f} days ago, {threshold:.0f} or more",
            unknown="no contact was told",
        ),
        at_most(
            "invoice_overdue_days",
            DEFAULTS.campaign_overdue_days_max,
            "an invoice is overdue for {value:.0f} days, {threshold:.0f} at most",
            unknown="no overdue invoice was told",
        ),
    ),
    rank=Rank("active_users"),
    blind="consent to be written to, and campaigns that nobody told us of",
    is_internal=True,
)

REFERENCE_CUSTOMERS: Final = Rule(
    name="referenceCustomers",
    subject=Subject.ACCOUNT,
    question="Who would speak for us?",
    required=(
        at_least(
            ACCOUNT_SCORE_LOWEST,
            DEFAULTS.reference_score_min,
            "the score was never below {value:.0f} in 84 days, {threshold:.0f} or more",
        ),
        at_least("nps", DEFAULTS.reference_nps_min, "the NPS is {value:.0f}, {threshold:.0f} or more"),
        at_least("age_days", DEFAULTS.reference_age_days_min, "it began {value:.0f} days ago, {threshold:.0f} or more"),
        at_least(
            "bus_factor",
            DEFAULTS.reference_bus_factor_min,
            "{value:.0f} users have half of the active days, {threshold:.0f} or more",
        ),
        _NO_SEVERE,
    ),
    rank=Rank("nps"),
    blind="whether they may speak: a contract or a rule of theirs can forbid it; few answers are a weak NPS",
    is_internal=True,
)
