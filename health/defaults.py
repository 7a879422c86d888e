"""The scorecards that are there from the start, as definitions: data to be copied and changed.

Each curve's note says where it is from. "Published" are the thresholds that a vendor's own customer success team uses and
publishes (PostHog's handbook, customer health tracking); "judgement" is ours, until a back-test on one's own customers
says better; "measured" is from this repository's own runs (docs/health.md).
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from health.definitions import Unreadable, scorecard_of
from health.scorecards import Scorecard, Subject

_BANDS: Final = (
    {"from": 0, "key": "critical"},
    {"from": 30, "key": "at_risk"},
    {"from": 50, "key": "watch"},
    {"from": 70, "key": "healthy"},
    {"from": 85, "key": "thriving"},
)

_SEATS: Final = {
    "metric": "seat_utilisation",
    "weight": 20,
    "curve": [[0, 0], [0.2, 20], [0.4, 45], [0.8, 90], [1, 100]],
    "note": "published: a share of active users below 20 % is poor, from 40 % on healthy; above that judgement",
}
_MEDIAN: Final = {
    "metric": "median_l28",
    "weight": 15,
    "curve": [[0, 0], [1, 25], [4, 60], [8, 85], [20, 100]],
    "note": "judgement: once a month, once a week, twice a week, every working day",
}
_DROP: Final = {
    "metric": "drop_z",
    "weight": 15,
    "curve": [[0, 80], [1, 60], [2.5, 25], [4, 0]],
    "note": "measured: 2.5 is about one false alarm in two account-years (loadtests/alarms.py)",
}
_BREADTH: Final = {
    "metric": "breadth_core",
    "weight": 10,
    "curve": [[0, 0], [0.3, 40], [1, 100]],
    "note": "published: users on fewer than 3 of about 10 features are poor",
}
_NPS: Final = {
    "metric": "nps",
    "weight": 10,
    "curve": [[-100, 0], [0, 50], [50, 90], [100, 100]],
    "freshDays": 90,
    "expiresDays": 180,
    "shrink": 5,
    "note": "judgement; a few respondents count little: n / (n + 5)",
}
_TICKETS: Final = {
    "metric": "tickets_28d_per_seat",
    "weight": 5,
    "curve": [[0, 60], [0.05, 85], [0.2, 70], [0.6, 10]],
    "note": "judgement: no ticket at all may be silence, many are trouble; published: more than 10 a month are poor",
}
_PULSE: Final = {
    "metric": "pulse",
    "weight": 10,
    "curve": [[1, 0], [3, 55], [5, 100]],
    "freshDays": 60,
    "expiresDays": 90,
    "note": "judgement: a manager's word, which has to be renewed each quarter",
}
_INVOICES: Final = {
    "metric": "invoice_overdue_days",
    "weight": 15,
    "curve": [[0, 100], [15, 60], [60, 0]],
    "missing": "zero",
    "note": "judgement; nothing told is nothing overdue",
}
_TOUCH: Final = {
    "metric": "touch_days",
    "weight": 5,
    "curve": [[0, 90], [30, 75], [90, 30], [180, 0]],
    "note": "published: the last meeting more than 90 days ago is poor, within 30 healthy",
}
_CAPS: Final = (
    {"metric": "champion_lost", "atLeast": 1, "max": 49, "reason": "a champion is lost"},
    {
        "metric": "pulse",
        "atMost": 1,
        "max": 29,
        "reason": "the customer success manager says critical",
        "expiresDays": 30,
    },
    {"metric": "tickets_severe_open", "atLeast": 3, "max": 69, "reason": "severe tickets are open"},
)

_ACCOUNT: Final = {
    "minCoverage": 0.5,
    "bands": _BANDS,
    "tree": [
        {"name": "usage", "weight": 60, "parts": [_SEATS, _MEDIAN, _DROP, _BREADTH]},
        {"name": "relationship", "weight": 25, "parts": [_NPS, _TICKETS, _PULSE]},
        {"name": "commercial", "weight": 15, "parts": [_INVOICES]},
    ],
    "caps": _CAPS,
}
_SUBSCRIPTION: Final = {
    "minCoverage": 0.5,
    "bands": _BANDS,
    "tree": [
        {"name": "usage", "weight": 75, "parts": [_SEATS, _MEDIAN, _DROP, _BREADTH]},
        {
            "name": "value",
            "weight": 25,
            "parts": [
                {
                    "metric": "allowance_use",
                    "weight": 15,
                    "curve": [[0, 10], [0.5, 60], [0.8, 90], [1, 100], [1.5, 70]],
                    "note": "judgement: what is paid for is used; far beyond it the bill surprises",
                },
                {
                    "metric": "trend",
                    "weight": 10,
                    "curve": [[-0.2, 0], [-0.05, 40], [0, 65], [0.1, 100]],
                    "note": "published: a fall by more than 20 % is poor, by less than 5 % healthy",
                },
            ],
        },
    ],
}
_USER: Final = {
    "minCoverage": 0.4,
    "bands": _BANDS,
    "tree": [
        {
            "metric": "silence",
            "weight": 40,
            "curve": [[0, 90], [1, 75], [4, 15], [6, 0]],
            "note": "measured: 4 is a silence that this user's own cadence explains once in 55 gaps",
        },
        {
            "metric": "active_days_share_of_own",
            "weight": 30,
            "curve": [[0, 0], [0.5, 40], [1, 80], [1.5, 100]],
            "note": "judgement: against the user's own 84 days before, not against others",
        },
        {
            "metric": "active_days",
            "weight": 10,
            "curve": [[0, 0], [1, 30], [4, 60], [12, 90], [20, 100]],
            "note": "judgement: casual below 8 of 28 days, core from there, power from 20 on",
        },
        {**_BREADTH, "metric": "breadth", "weight": 20},
    ],
}
_TRIAL: Final = {
    "when": {"stage": {"in": ["trial"]}},
    "priority": 10,
    "minCoverage": 0.4,
    "bands": _BANDS,
    "tree": [
        {
            "metric": "activation",
            "weight": 35,
            "curve": [[0, 5], [0.5, 50], [1, 100]],
            "note": "judgement: the onboarding checklist is the shortest way to the first value",
        },
        {
            "metric": "active_days",
            "weight": 25,
            "curve": [[0, 0], [2, 30], [5, 70], [10, 100]],
            "note": "judgement: five days of use, not one long session",
        },
        {
            "metric": "active_users",
            "weight": 15,
            "curve": [[0, 0], [1, 40], [2, 75], [5, 100]],
            "note": "judgement: two users have somebody to convince, one has not",
        },
        {**_BREADTH, "weight": 15},
        {
            "metric": "cohort_position",
            "weight": 10,
            "curve": [[0, 0], [50, 60], [100, 100]],
            "note": "by definition: the place among past trials of the same age",
        },
    ],
}
_RENEWAL: Final = {
    "when": {"stage": {"in": ["renewal"]}},
    "priority": 10,
    "minCoverage": 0.5,
    "bands": _BANDS,
    "tree": [
        {"name": "usage", "weight": 50, "parts": [_SEATS, _MEDIAN, {**_DROP, "weight": 25}, _BREADTH]},
        {"name": "relationship", "weight": 35, "parts": [_NPS, _TICKETS, {**_PULSE, "weight": 20}, _TOUCH]},
        {"name": "commercial", "weight": 15, "parts": [_INVOICES]},
    ],
    "caps": (
        *_CAPS,
        {"metric": "bus_factor", "atMost": 1, "max": 69, "reason": "the account hangs on one user"},
    ),
}
# Key, subject, purpose and definition. Cards with a condition come before the one for everybody else, by priority.
DEFINITIONS: Final[tuple[tuple[str, Subject, str, Mapping[str, Any]], ...]] = (
    ("account", Subject.ACCOUNT, "health", _ACCOUNT),
    ("subscription", Subject.SUBSCRIPTION, "health", _SUBSCRIPTION),
    ("user", Subject.USER, "health", _USER),
    ("trial", Subject.SUBSCRIPTION, "health", _TRIAL),
    ("renewal", Subject.ACCOUNT, "health", _RENEWAL),
)


@cache
def default_scorecards() -> tuple[Scorecard, ...]:
    """The first version of each card that is there from the start."""
    cards = []
    for key, subject, purpose, definition in DEFINITIONS:
        card = scorecard_of(definition, key=key, version=1, subject=subject, purpose=purpose)
        assert not isinstance(card, Unreadable), f"{key} is read: {card}"
        cards.append(card)
    return tuple(cards)
