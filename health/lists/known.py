"""Every rule of a list that there is."""

from typing import Final

from health.lists.customer_success import (
    ADOPTION_GAPS,
    CHAMPIONS,
    DROP_OFFS,
    RENEWALS_AT_RISK,
    SILENT_ACCOUNTS,
    UNUSED_SEATS,
    USERS_NEEDING_HELP,
    VALUE_FOR_RENEWAL,
)
from health.lists.marketing import CAMPAIGN_AUDIENCE, REFERENCE_CUSTOMERS, TRAINING_CANDIDATES
from health.lists.rules import Rule
from health.lists.sales import DISCOUNTS_TO_PHASE_OUT, TRIALS_LIKELY_TO_CLOSE, UPSELLS

RULES: Final[tuple[Rule, ...]] = (
    UNUSED_SEATS,
    *DROP_OFFS.values(),
    RENEWALS_AT_RISK,
    CHAMPIONS,
    USERS_NEEDING_HELP,
    ADOPTION_GAPS,
    SILENT_ACCOUNTS,
    VALUE_FOR_RENEWAL,
    TRIALS_LIKELY_TO_CLOSE,
    UPSELLS,
    DISCOUNTS_TO_PHASE_OUT,
    TRAINING_CANDIDATES,
    CAMPAIGN_AUDIENCE,
    REFERENCE_CUSTOMERS,
)
