"""Thresholds of the lists, as data; docs/lists.md says where each is from."""

from typing import Final

import msgspec


class ListThresholds(msgspec.Struct, frozen=True, kw_only=True):
    """When somebody is on a list. What is alarming is there by the alarm's own threshold, which conditions name."""

    adoption_age_days_min: float = 14.0
    adoption_median_days_below: float = 2.0
    adoption_steps_age_days_min: float = 30.0
    adoption_core_below: float = 0.3
    help_age_days_min: float = 14.0
    help_trouble_share_min: float = 0.2
    help_one_feature_age_days_min: float = 28.0
    help_share_of_own_max: float = 0.5
    quiet_days_min: float = 60.0
    quiet_drop_z_min: float = 2.5
    quiet_trend_max: float = -0.1
    quiet_active_days_max: float = 4.0
    quiet_seats_below: float = 0.25
    trial_features_min: float = 3.0
    trial_users_min: float = 2.0
    trial_days_min: float = 5.0
    upsell_score_min: float = 50.0
    upsell_allowance_min: float = 0.9
    upsell_seats_used_min: float = 0.9
    upsell_seats_min: float = 3.0
    growth_min: float = 0.1
    discount_score_min: float = 70.0
    discount_seats_used_min: float = 0.8
    training_age_days_min: float = 28.0
    training_busy_days_min: float = 20.0
    training_narrow_days_min: float = 8.0
    training_breadth_max: float = 0.25
    campaign_score_min: float = 50.0
    campaign_touch_days_min: float = 14.0
    campaign_overdue_days_max: float = 30.0
    reference_score_min: float = 70.0
    reference_nps_min: float = 50.0
    reference_age_days_min: float = 180.0
    reference_bus_factor_min: float = 3.0


DEFAULTS: Final = ListThresholds()
