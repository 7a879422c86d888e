"""What customer success asks: seats, drop-offs, champions, renewals, who needs help, and silence that is not health."""

from typing import Final

from health.lists.conditions import Condition, above, at_least, at_most, below
from health.lists.rules import ACCOUNT_SCORE, QUIET_DAYS, Rank, Rule
from health.lists.thresholds import DEFAULTS
from health.scorecards import Subject

_EXPECTED: Final = at_least("expected", 1, "is expected to come: has access, and is not done with the set-up")
_FOUR_WEEKS: Final = at_least(
    "drop_z",
    "dropZFourWeeks",
    "four weeks are low against the twelve before: z is {value:.1f}, {threshold:g} or more",
)
_ONE_WEEK: Final = at_least(
    "drop_z_week",
    "dropZOneWeek",
    "the last week is low against its own twelve: z is {value:.1f}, {threshold:g} or more",
)
_CHAMPION_LOST: Final = at_least("champion_lost", 1, "who carried the account 28 days ago has no access, or is silent")
_SILENT: Final = at_least(
    "silence",
    "silenceMin",
    "is silent for longer than the own cadence explains: {value:.1f}, {threshold:g} or more",
)
_FEW_SEATS: Final = below(
    "seat_utilisation", "underusedBelow", "{value:.0%} of the seats are used, less than {threshold:.0%}"
)
_RENEWS: Final = at_most(
    "renewal_days", "renewalDaysMax", "the renewal is {value:.0f} days ahead, {threshold:.0f} at most"
)

UNUSED_SEATS: Final = Rule(
    name="unusedSeats",
    subject=Subject.SUBSCRIPTION,
    question="Which seats are paid for and not used?",
    required=(
        at_least("unused_seats", 1, "{value:.0f} seats were not used in 28 days"),
        _FEW_SEATS,
        at_least("seats", "underusedSeatsMin", "there are {value:.0f} seats, {threshold:.0f} or more"),
        at_least("age_days", "underusedAgeDaysMin", "it began {value:.0f} days ago, {threshold:.0f} or more"),
    ),
    rank=Rank("unused_seats"),
    blind="who was given a seat, and who shares one: seats are those of the contract, users those whom events name",
)

_DROP_BLIND: Final = "usage that is not metered, and whether a fall was planned: holidays that all have are taken out"
DROP_OFFS: Final = {
    Subject.ACCOUNT: Rule(
        name="dropOffs",
        subject=Subject.ACCOUNT,
        question="Whose usage drops off?",
        required=(),
        signs=((_FOUR_WEEKS,), (_ONE_WEEK,), (_CHAMPION_LOST,)),
        signs_min=1,
        rank=Rank("drop_z"),
        blind=_DROP_BLIND,
    ),
    Subject.SUBSCRIPTION: Rule(
        name="dropOffs",
        subject=Subject.SUBSCRIPTION,
        question="Whose usage drops off?",
        required=(),
        signs=((_FOUR_WEEKS,), (_ONE_WEEK,)),
        signs_min=1,
        rank=Rank("drop_z"),
        blind=_DROP_BLIND,
    ),
    Subject.USER: Rule(
        name="dropOffs",
        subject=Subject.USER,
        question="Whose usage drops off?",
        required=(_SILENT, _EXPECTED),
        remarks=(at_least("champion", 1, "carries the account"),),
        rank=Rank("silence"),
        blind=_DROP_BLIND,
    ),
}

RENEWALS_AT_RISK: Final = Rule(
    name="renewalsAtRisk",
    subject=Subject.ACCOUNT,
    question="Which renewals are at risk?",
    required=(
        _RENEWS,
        below(ACCOUNT_SCORE, "renewalScoreBelow", "the account's score is {value:.0f}, less than {threshold:.0f}"),
    ),
    remarks=(
        _FOUR_WEEKS,
        _ONE_WEEK,
        _CHAMPION_LOST,
        _FEW_SEATS,
        at_least("tickets_severe_open", 1, "{value:.0f} severe tickets are open"),
        at_least("invoice_overdue_days", 1, "an invoice is overdue for {value:.0f} days"),
    ),
    rank=Rank("renewal_days", descending=False),
    blind="accounts of which too little is known for a score, and renewals that nobody told us of",
)

CHAMPIONS: Final = Rule(
    name="champions",
    subject=Subject.USER,
    question="Who carries an account?",
    required=(at_least("champion", 1, "was named, or is busy, broad and there for long enough"), _EXPECTED),
    remarks=(
        at_least("active_days", 1, "was active on {value:.0f} of 28 days"),
        _SILENT,
        below(
            "active_days_share_of_own",
            DEFAULTS.help_share_of_own_max,
            "comes {value:.0%} as often as in the twelve weeks before, less than {threshold:.0%}",
        ),
    ),
    rank=Rank("active_days"),
    blind="influence without use: whoever decides and does not use it is a champion only if somebody says so",
)

USERS_NEEDING_HELP: Final = Rule(
    name="usersNeedingHelp",
    subject=Subject.USER,
    question="Which users are active, and need help?",
    required=(
        at_least("active_days", 1, "was active on {value:.0f} of 28 days"),
        _EXPECTED,
        at_least("age_days", DEFAULTS.help_age_days_min, "first came {value:.0f} days ago, {threshold:.0f} or more"),
    ),
    signs=(
        (
            at_least(
                "trouble_share",
                DEFAULTS.help_trouble_share_min,
                "{value:.0%} of the events are errors, failures or calls for help, {threshold:.0%} or more",
            ),
        ),
        (
            at_most("features_used", 1, "features used in 28 days: {value:.0f}, {threshold:.0f} at most"),
            at_least(
                "age_days",
                DEFAULTS.help_one_feature_age_days_min,
                "first came {value:.0f} days ago, {threshold:.0f} or more",
            ),
        ),
        (
            at_most(
                "active_days_share_of_own",
                DEFAULTS.help_share_of_own_max,
                "comes {value:.0%} as often as in the twelve weeks before, {threshold:.0%} at most",
            ),
        ),
    ),
    signs_min=1,
    rank=Rank("active_days"),
    blind="who never came, and trouble that no event is classified by",
)

ADOPTION_GAPS: Final = Rule(
    name="adoptionGaps",
    subject=Subject.ACCOUNT,
    question="Which customers need help with adoption?",
    required=(
        at_least("age_days", DEFAULTS.adoption_age_days_min, "it began {value:.0f} days ago, {threshold:.0f} or more"),
    ),
    signs=(
        (_FEW_SEATS,),
        (
            below(
                "median_l28",
                DEFAULTS.adoption_median_days_below,
                "the median user came on {value:g} of 28 days, less than {threshold:g}",
            ),
        ),
        (
            below("activation", 1, "{value:.0%} of the onboarding steps are done"),
            at_least(
                "age_days",
                DEFAULTS.adoption_steps_age_days_min,
                "it began {value:.0f} days ago, {threshold:.0f} or more",
            ),
        ),
        (
            below(
                "breadth_core",
                DEFAULTS.adoption_core_below,
                "{value:.0%} of the core features are used, less than {threshold:.0%}",
            ),
        ),
    ),
    signs_min=1,
    rank=Rank("unused_seats"),
    blind="what was sold for later, and steps and core features that nobody named",
)

_LITTLE: Final[tuple[Condition, ...]] = (
    at_least(
        "drop_z",
        DEFAULTS.quiet_drop_z_min,
        "four weeks are low against the twelve before: z is {value:.1f}, {threshold:g} or more",
    ),
    at_most(
        "trend", DEFAULTS.quiet_trend_max, "usage changes by {value:+.0%} in four weeks, {threshold:+.0%} or worse"
    ),
    at_most("active_days", DEFAULTS.quiet_active_days_max, "active on {value:.0f} of 28 days, {threshold:.0f} at most"),
    below(
        "seat_utilisation",
        DEFAULTS.quiet_seats_below,
        "{value:.0%} of the seats are used, less than {threshold:.0%}",
    ),
)
SILENT_ACCOUNTS: Final = Rule(
    name="silentAccounts",
    subject=Subject.ACCOUNT,
    question="Who says nothing, and is not well?",
    required=(
        at_least(
            QUIET_DAYS,
            DEFAULTS.quiet_days_min,
            "no ticket, answer or contact for {value:.0f} days, {threshold:.0f} or more",
            unknown="no ticket, answer or contact was ever told",
        ),
        at_least("age_days", DEFAULTS.quiet_days_min, "it began {value:.0f} days ago, {threshold:.0f} or more"),
    ),
    signs=tuple((each,) for each in _LITTLE),
    signs_min=1,
    rank=Rank("trend", descending=False),
    blind="what nobody tells us of: without signals every account is silent, and only its usage speaks",
)

VALUE_FOR_RENEWAL: Final = Rule(
    name="valueForRenewal",
    subject=Subject.ACCOUNT,
    question="Where is the value, for a renewal?",
    required=(_RENEWS, above("active_days", 0, "active on {value:.0f} of 28 days")),
    rank=Rank("renewal_days", descending=False),
    blind="what a feature is worth to a customer: it tells what is used most, by whom and how often",
)
