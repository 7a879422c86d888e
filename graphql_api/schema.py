"""The schema, assembled. Its text is committed as schema.graphql; a test compares the two."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import date
from functools import cache
from typing import Annotated

import strawberry
from graphql import GraphQLSchema

from graphql_api.accounts import (
    Account,
    AccountConnection,
    AccountFilter,
    AccountListOrder,
    PutAccountInput,
    PutAccountResult,
    resolve_account,
    resolve_accounts,
    resolve_put_account,
)
from graphql_api.alert_rules import (
    AlertRuleConnection,
    PutAlertRuleInput,
    PutAlertRuleResult,
    resolve_alert_rules,
    resolve_put_alert_rule,
)
from graphql_api.alerts import AlertConnection, AlertFilter, resolve_alerts
from graphql_api.api_keys import (
    ApiKey,
    ApiKeyConnection,
    CreateApiKeyInput,
    CreateApiKeyResult,
    RotateApiKeyInput,
    RotateApiKeyResult,
    resolve_api_keys,
    resolve_create_api_key,
    resolve_revoke_api_key,
    resolve_rotate_api_key,
)
from graphql_api.audit_log import AuditEntryConnection, AuditFilter, resolve_audit_log
from graphql_api.auth import Requires, requires
from graphql_api.backtests import BacktestInput, BacktestResult, resolve_backtest
from graphql_api.charges import ChargesResult, resolve_charges
from graphql_api.charges_by_customer import ChargesByCustomerResult, resolve_charges_by_customer
from graphql_api.context import MeteringInfo
from graphql_api.credits import (
    CreditBalanceResult,
    CreditLedgerConnection,
    GrantCreditInput,
    GrantCreditResult,
    VoidCreditGrantInput,
    VoidCreditGrantResult,
    resolve_credit_balance,
    resolve_credit_ledger,
    resolve_grant_credit,
    resolve_void_credit_grant,
)
from graphql_api.deliveries import (
    DeliveryConnection,
    ReplayDeliveriesInput,
    ReplayDeliveriesResult,
    resolve_deliveries,
    resolve_replay_deliveries,
)
from graphql_api.destinations import (
    DeleteDestinationResult,
    DestinationConnection,
    PutDestinationInput,
    PutDestinationResult,
    RotateDestinationSecretInput,
    RotateDestinationSecretResult,
    resolve_delete_destination,
    resolve_destinations,
    resolve_put_destination,
    resolve_rotate_destination_secret,
)
from graphql_api.device_mix import DeviceMix, resolve_device_mix
from graphql_api.early_warnings import (
    EarlyWarningConnection,
    PutWarningThresholdsInput,
    PutWarningThresholdsResult,
    WarningFilter,
    WarningRate,
    WarningThresholds,
    resolve_put_warning_thresholds,
    resolve_warning_rates,
    resolve_warning_thresholds,
    resolve_warnings,
)
from graphql_api.erasure import EraseUserInput, EraseUserResult, resolve_erase_user
from graphql_api.events import Event, EventConnection, resolve_event, resolve_events
from graphql_api.explain_charges import ExplainChargesInput, ExplainChargesResult, resolve_explain_charges
from graphql_api.facts import (
    OutcomeInput,
    OverrideHealthInput,
    OverrideHealthResult,
    PutUserInput,
    PutUserResult,
    RecordOutcomesResult,
    RecordSignalsResult,
    SetPulseInput,
    SignalInput,
    resolve_override_health,
    resolve_put_user,
    resolve_record_outcomes,
    resolve_record_signals,
    resolve_set_pulse,
)
from graphql_api.feature_reception import FeatureReception, resolve_feature_reception
from graphql_api.features import FeatureConnection, resolve_features
from graphql_api.finding import resolve_node
from graphql_api.interventions import (
    HoldOutInput,
    HoldOutResult,
    InterventionConnection,
    MeasuredIntervention,
    RecordInterventionInput,
    RecordInterventionResult,
    resolve_hold_out,
    resolve_intervention,
    resolve_interventions,
    resolve_record_intervention,
)
from graphql_api.left_out import given_or_none
from graphql_api.lists import Lists
from graphql_api.live_usage import stream_usage_totals
from graphql_api.meter_usage import MeterUsageResult, resolve_meter_usage
from graphql_api.meters import (
    Meter,
    MeterConnection,
    PutMeterInput,
    PutMeterResult,
    resolve_meter,
    resolve_meters,
    resolve_put_meter,
)
from graphql_api.nodes import Node
from graphql_api.plan_fit import PlanFitInput, PlanFitResult, resolve_plan_fit
from graphql_api.plan_revenue import PlanRevenueResult, resolve_plan_revenue
from graphql_api.plans import (
    Plan,
    PlanConnection,
    PublishPlanInput,
    PublishPlanResult,
    resolve_plan,
    resolve_plans,
    resolve_publish_plan,
)
from graphql_api.portfolio import PortfolioCell, resolve_portfolio
from graphql_api.problems import HANDLERS
from graphql_api.questions import OrderDirection, PeriodInput, UsageQuery
from graphql_api.rate_preview import RatePreviewInput, RatePreviewResult, resolve_rate_preview
from graphql_api.recording import (
    CorrectEventInput,
    CorrectEventResult,
    RecordUsageInput,
    RecordUsageResult,
    resolve_correct_event,
    resolve_record_usage,
)
from graphql_api.rejected import (
    RejectedEventConnection,
    RetryRejectedInput,
    RetryRejectedResult,
    resolve_rejected_events,
    resolve_retry_rejected_events,
)
from graphql_api.revenue import RevenueResult, resolve_revenue_movements
from graphql_api.scalars import CONFIG, Instant, JsonObject, ZoneName
from graphql_api.scorecards import (
    PublishScorecardResult,
    Scorecard,
    ScorecardInput,
    resolve_publish_scorecard,
    resolve_scorecards,
)
from graphql_api.service import ServiceStatus, resolve_service
from graphql_api.simulate_plan import SimulatePlanInput, SimulatePlanResult, resolve_simulate_plan
from graphql_api.statements import (
    StatementConnection,
    StatementFilter,
    StatementResult,
    resolve_finalize_statement,
    resolve_statement,
    resolve_statements,
    resolve_void_statement,
)
from graphql_api.subscriptions import PutSubscriptionInput, PutSubscriptionResult, resolve_put_subscription
from graphql_api.survey_candidates import SurveyCandidateConnection, SurveyFilter, resolve_survey_candidates
from graphql_api.unmet_commitments import UNMET_COMMITMENTS, UnmetCommitmentConnection, resolve_unmet_commitments
from graphql_api.usage import UsageResult, UsageTotal, resolve_usage
from graphql_api.users_at_once import UsersAtOnceResult, resolve_users_at_once
from graphql_api.values import resolve_dimension_values
from graphql_api.ways import WaysResult, resolve_ways
from metering.events import Dimension
from metering.health.customers import CustomerField
from metering.health.features import FeatureKind
from metering.keys import Scope
from metering.outbox.deliveries import DeliveryState
from metering.periods import Bucket
from rating.billing_periods import BillingInterval


@strawberry.type
class Query(Lists):
    """The questions that can be asked."""

    @strawberry.field(
        description="Metered quantities in a period: totals, groups and time series.", **requires(Scope.USAGE_READ)
    )
    async def usage(self, query: UsageQuery, info: MeteringInfo) -> UsageResult:
        """See graphql_api/usage.py."""
        return await resolve_usage(query, info)

    @strawberry.field(
        description="The recorded events behind a usage figure, newest first.", **requires(Scope.USAGE_READ)
    )
    async def events(
        self,
        query: UsageQuery,
        info: MeteringInfo,
        attributes: Annotated[
            JsonObject | None, strawberry.argument(description="Keep events whose attributes contain these.")
        ] = strawberry.UNSET,
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> EventConnection:
        """See graphql_api/events.py."""
        return await resolve_events(query, info, attributes or None, first, after or None)

    @strawberry.field(
        description="One event by its name; `occurredAt` where the same name was used on several days.",
        **requires(Scope.USAGE_READ),
    )
    async def event(
        self,
        account: str,
        source: str,
        id: str,
        info: MeteringInfo,
        occurred_at: Instant | None = strawberry.UNSET,
    ) -> Event | None:
        """See graphql_api/events.py."""
        return await resolve_event(account, source, id, occurred_at or None, info)

    @strawberry.field(
        description="The values a dimension has in the usage asked for, by prefix.", **requires(Scope.USAGE_READ)
    )
    async def dimension_values(
        self, dimension: Dimension, query: UsageQuery, info: MeteringInfo, prefix: str = "", first: int = 50
    ) -> list[str]:
        """See graphql_api/values.py."""
        return await resolve_dimension_values(dimension, query, prefix, first, info)

    @strawberry.field(
        description="Events that were refused and kept, newest first, each with the reason.",
        **requires(Scope.USAGE_WRITE),
    )
    async def rejected_events(
        self,
        info: MeteringInfo,
        source: str | None = strawberry.UNSET,
        code: str | None = strawberry.UNSET,
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> RejectedEventConnection:
        """See graphql_api/rejected.py."""
        source, code = (None if given is strawberry.UNSET else given for given in (source, code))
        return await resolve_rejected_events(source, code, first, after or None, info)

    @strawberry.field(
        description="What a meter says of the usage in a period: in total, by group and over time.",
        **requires(Scope.USAGE_READ),
    )
    async def meter_usage(
        self,
        meter: Annotated[str, strawberry.argument(description="The meter's key.")],
        query: Annotated[UsageQuery, strawberry.argument(description="Narrows what the meter counts.")],
        info: MeteringInfo,
    ) -> MeterUsageResult:
        """See graphql_api/meter_usage.py."""
        return await resolve_meter_usage(meter, query, info)

    @strawberry.field(description="All meters, by key.", **requires(Scope.CATALOG_READ))
    async def meters(
        self, info: MeteringInfo, first: int = 50, after: str | None = strawberry.UNSET
    ) -> MeterConnection:
        """See graphql_api/meters.py."""
        return await resolve_meters(first, after or None, info)

    @strawberry.field(description="The meter of this key.", **requires(Scope.CATALOG_READ))
    async def meter(self, key: str, info: MeteringInfo) -> Meter | None:
        """See graphql_api/meters.py."""
        return await resolve_meter(key, info)

    @strawberry.field(description="All plans by key, each in its newest version.", **requires(Scope.CATALOG_READ))
    async def plans(self, info: MeteringInfo, first: int = 50, after: str | None = strawberry.UNSET) -> PlanConnection:
        """See graphql_api/plans.py."""
        return await resolve_plans(first, after or None, info)

    @strawberry.field(
        description="The plan of this key, in this version or in its newest.", **requires(Scope.CATALOG_READ)
    )
    async def plan(self, key: str, info: MeteringInfo, version: int | None = strawberry.UNSET) -> Plan | None:
        """See graphql_api/plans.py."""
        return await resolve_plan(key, given_or_none(version), info)

    @strawberry.field(
        description="What a subscription owes for a billing period: a draft until the period is closed, then final.",
        **requires(Scope.CHARGES_READ),
    )
    async def statement(
        self,
        subscription: str,
        at: Annotated[Instant, strawberry.argument(description="An instant of the period.")],
        info: MeteringInfo,
    ) -> StatementResult:
        """See graphql_api/statements.py."""
        return await resolve_statement(subscription, at, info)

    @strawberry.field(
        description="Statements by account, subscription, status or period. A draft is there for each period that has "
        "begun and is not final; one whose usage is not kept any more is left out.",
        **requires(Scope.CHARGES_READ),
    )
    async def statements(
        self,
        info: MeteringInfo,
        filter: StatementFilter = StatementFilter(),  # noqa: B008 - an input without fields, which nobody changes
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> StatementConnection:
        """See graphql_api/statements.py."""
        return await resolve_statements(filter, first, after or None, info)

    @strawberry.field(
        description="Rated amounts, grouped by any dimensions; the parts add up to the statements to the cent. Each line is "
        "attributed once, at the finest grain (every dimension, and the time of the usage), by share of quantity with "
        "largest remainder; what has no usage behind it (recurring, minimum, flat at zero) has null users, devices, "
        "products and is spread evenly over its period; an adjustment stands at the beginning of the period of the "
        "statement that carries it. Final statements count as they were frozen, all others as of now. The time zone plays "
        "no part.",
        **requires(Scope.CHARGES_READ),
    )
    async def charges(self, query: UsageQuery, info: MeteringInfo) -> ChargesResult:
        """See graphql_api/charges.py."""
        return await resolve_charges(query, info)

    @strawberry.field(
        description="What an account's credits are at an instant, past or to come; now, unless given.",
        **requires(Scope.CHARGES_READ),
    )
    async def credit_balance(
        self, account: str, info: MeteringInfo, at: Instant | None = strawberry.UNSET
    ) -> CreditBalanceResult:
        """See graphql_api/credits.py."""
        return await resolve_credit_balance(account, given_or_none(at), info)

    @strawberry.field(
        description="How an account's credits came to what they are, in order of the instants that entries are of; what has "
        "left grants until now is among them.",
        **requires(Scope.CHARGES_READ),
    )
    async def credit_ledger(
        self, account: str, info: MeteringInfo, first: int = 50, after: str | None = strawberry.UNSET
    ) -> CreditLedgerConnection:
        """See graphql_api/credits.py."""
        return await resolve_credit_ledger(account, first, after or None, info)

    @strawberry.field(
        description="Why the charges of one period differ from another's; the parts add up to the difference. Usage lines are "
        "re-rated step by step: new usage at the old prices (VOLUME), then at the new version of the same plan (PRICE), then "
        "on the new plan (PLAN); each step's attribution by key is the difference of the attributions before and after it. "
        "What is owed for time, and adjustments, are compared directly.",
        **requires(Scope.CHARGES_READ),
    )
    async def explain_charges(self, input: ExplainChargesInput, info: MeteringInfo) -> ExplainChargesResult:
        """See graphql_api/explain_charges.py."""
        return await resolve_explain_charges(input, info)

    @strawberry.field(
        description="What each customer was charged in a period, and in one before: `charges` by account for both, side by side, "
        "the biggest differences first; `explainCharges` says why. It cannot see what is billed elsewhere.",
        **requires(Scope.CHARGES_READ),
    )
    async def charges_by_customer(
        self, period: PeriodInput, compared_with: PeriodInput, info: MeteringInfo
    ) -> ChargesByCustomerResult:
        """See graphql_api/charges_by_customer.py."""
        return await resolve_charges_by_customer(period, compared_with, info)

    @strawberry.field(description="Apply one price to one quantity; stores nothing.", **requires(Scope.CHARGES_READ))
    async def rate_preview(self, input: RatePreviewInput, info: MeteringInfo) -> RatePreviewResult:
        """See graphql_api/rate_preview.py."""
        return await resolve_rate_preview(input, info)

    @strawberry.field(
        description="Re-rate a period's usage under another plan, both sides without adjustments: who would pay more, who "
        "less. A draft's key, effectiveFrom and dryRun are ignored. More subscriptions, or users, than one answer has time "
        "for are TooLarge; `metering simulate` takes any number.",
        **requires(Scope.CHARGES_READ),
    )
    async def simulate_plan(self, input: SimulatePlanInput, info: MeteringInfo) -> SimulatePlanResult:
        """See graphql_api/simulate_plan.py."""
        return await resolve_simulate_plan(input, info)

    @strawberry.field(
        description="Whom another plan would fit better: what each subscription owes for a period as it is, and what it would "
        "owe on each other plan of its currency; who would save most comes first. More than one answer has time for is "
        "TooLarge: ask for an account, or name plans. Needs CHARGES_READ besides; not for callers that are bound to accounts.",
        **requires(Scope.HEALTH_READ),
    )
    async def plan_fit(self, input: PlanFitInput, info: MeteringInfo) -> PlanFitResult:
        """See graphql_api/plan_fit.py."""
        return await resolve_plan_fit(input, info)

    @strawberry.field(description=UNMET_COMMITMENTS, **requires(Scope.HEALTH_READ))
    async def unmet_commitments(
        self,
        info: MeteringInfo,
        filter: AccountFilter = AccountFilter(),  # noqa: B008 - an input without fields, which nobody changes
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> UnmetCommitmentConnection:
        """See graphql_api/unmet_commitments.py."""
        return await resolve_unmet_commitments(filter, first, after or None, info)

    @strawberry.field(
        description="Which plans monetise best: what was charged on each plan in a period, for time and for usage, by account, "
        "by active user and by unit, and what is kept of its subscriptions. It does not see what a plan costs to serve, or why "
        "it was chosen. Needs CHARGES_READ besides.",
        **requires(Scope.HEALTH_READ),
    )
    async def plan_revenue(self, period: PeriodInput, info: MeteringInfo) -> PlanRevenueResult:
        """See graphql_api/plan_revenue.py."""
        return await resolve_plan_revenue(period, info)

    @strawberry.field(
        description="One customer with everything known of it: an account that was put, or has subscriptions or usage.",
        **requires(Scope.USAGE_READ),
    )
    async def account(self, key: str, info: MeteringInfo) -> Account | None:
        """See graphql_api/accounts.py."""
        return await resolve_account(key, info)

    @strawberry.field(
        description="Customers: accounts that were put, have subscriptions, or usage of the last 112 days.",
        **requires(Scope.USAGE_READ),
    )
    async def accounts(
        self,
        info: MeteringInfo,
        filter: AccountFilter = AccountFilter(),  # noqa: B008 - an input without fields, which nobody changes
        order_by: AccountListOrder = AccountListOrder(field=CustomerField.KEY, direction=OrderDirection.ASC),  # noqa: B008 - as above
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> AccountConnection:
        """See graphql_api/accounts.py."""
        return await resolve_accounts(filter, order_by, first, after or None, info)

    @strawberry.field(
        description="Recurring revenue and counts by health band, any attribute, and the quarter of the renewal.",
        **requires(Scope.HEALTH_READ),
    )
    async def portfolio(
        self,
        info: MeteringInfo,
        group_by: Annotated[
            list[str], strawberry.argument(description="Names of attributes of accounts, three at most.")
        ] = [],  # noqa: B006 - as the contract has it; nobody changes it
        purpose: str = "health",
        as_of: Annotated[
            date | None, strawberry.argument(description="A UTC day; today, unless given.")
        ] = strawberry.UNSET,
        by_renewal_quarter: bool = False,  # noqa: FBT001, FBT002 - given by name
    ) -> list[PortfolioCell]:
        """See graphql_api/portfolio.py."""
        return await resolve_portfolio(group_by, purpose, as_of, info, by_renewal_quarter=by_renewal_quarter)

    @strawberry.field(
        description="How recurring revenue moved, by period of the calendar: start + new + expansion - contraction - churned = "
        "end in each currency, with retention (GRR, NRR), growth, churn, and the customers whose amounts moved. Of contracts: "
        "what was used or billed is in `charges`. Needs CHARGES_READ besides.",
        **requires(Scope.HEALTH_READ),
    )
    async def revenue_movements(
        self,
        period: PeriodInput,
        info: MeteringInfo,
        interval: BillingInterval = BillingInterval.MONTH,
        time_zone: Annotated[ZoneName, strawberry.argument(description="Cuts the periods.")] = ZoneName("UTC"),  # noqa: B008 - a text
    ) -> RevenueResult:
        """See graphql_api/revenue.py."""
        return await resolve_revenue_movements(period, interval, time_zone, info)

    @strawberry.field(
        description="Features of products, the most used first: how many users and accounts used each in the 28 days before a "
        "UTC day, how often, who comes back to it, who stays that tried it, and who is entitled to it and does not use it. "
        "Counted from usage, without service accounts, reversals and what is classified `background`; a feature is what events "
        "name so, and one that no event of the year names is seen only where somebody is said to be entitled to it.",
        **requires(Scope.HEALTH_READ),
    )
    async def features(
        self,
        info: MeteringInfo,
        product: Annotated[str | None, strawberry.argument(description="All, unless given.")] = strawberry.UNSET,
        kind: FeatureKind | None = strawberry.UNSET,
        as_of: Annotated[
            date | None, strawberry.argument(description="A UTC day, which is not counted itself; today, unless given.")
        ] = strawberry.UNSET,
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> FeatureConnection:
        """See graphql_api/features.py."""
        return await resolve_features(given_or_none(product), given_or_none(kind), as_of, first, after or None, info)

    @strawberry.field(
        description="How a new feature is received, since its first use in the year before a UTC day: its penetration week by "
        "week (users who have used it, of those who have been active in the product since), who comes back, who adopted it, who "
        "is lukewarm and who never touched it, and what users answer to surveys against the others. It does not know who was "
        "told of the feature, or may use it. Null where nobody used it.",
        **requires(Scope.HEALTH_READ),
    )
    async def feature_reception(
        self,
        product: str,
        feature: str,
        info: MeteringInfo,
        as_of: Annotated[
            date | None, strawberry.argument(description="A UTC day, which is not counted itself; today, unless given.")
        ] = strawberry.UNSET,
    ) -> FeatureReception | None:
        """See graphql_api/feature_reception.py."""
        return await resolve_feature_reception(product, feature, as_of, info)

    @strawberry.field(
        description="Whom to survey: users who used a product or feature in the 28 days before a UTC day and were not asked for "
        "a while, without service accounts and who is said to have no access any more. The order is drawn by lot, so that the "
        "first of them are a fair sample. Who was asked is known from signals of users alone.",
        **requires(Scope.HEALTH_READ),
    )
    async def survey_candidates(
        self,
        info: MeteringInfo,
        filter: SurveyFilter = SurveyFilter(),  # noqa: B008 - an input without fields, which nobody changes
        as_of: Annotated[
            date | None, strawberry.argument(description="A UTC day, which is not counted itself; today, unless given.")
        ] = strawberry.UNSET,
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> SurveyCandidateConnection:
        """See graphql_api/survey_candidates.py."""
        return await resolve_survey_candidates(filter, as_of, first, after or None, info)

    @strawberry.field(
        description="The scorecards in force, each in its newest version, with those that are there from the start. None for a "
        "caller that is bound to accounts.",
        **requires(Scope.HEALTH_READ),
    )
    async def scorecards(self, info: MeteringInfo) -> list[Scorecard]:
        """See graphql_api/scorecards.py."""
        return await resolve_scorecards(info)

    @strawberry.field(
        description="Early warnings, the newest first: what was alarming of accounts, subscriptions and users, and of all "
        "customers together. None for a caller that is bound to accounts.",
        **requires(Scope.HEALTH_READ),
    )
    async def warnings(
        self,
        info: MeteringInfo,
        filter: WarningFilter = WarningFilter(),  # noqa: B008 - an input without fields, which nobody changes
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> EarlyWarningConnection:
        """See graphql_api/early_warnings.py."""
        return await resolve_warnings(filter, first, after or None, info)

    @strawberry.field(
        description="How often warnings of each type were raised in the last days, for each subject and year, against the "
        "budget. Those that are withdrawn do not count. None for a caller that is bound to accounts.",
        **requires(Scope.HEALTH_READ),
    )
    async def warning_rates(self, info: MeteringInfo, days: int = 365) -> list[WarningRate]:
        """See graphql_api/early_warnings.py."""
        return await resolve_warning_rates(days, info)

    @strawberry.field(
        description="From when on something is alarming. Null for a caller that is bound to accounts.",
        **requires(Scope.HEALTH_READ),
    )
    async def warning_thresholds(self, info: MeteringInfo) -> WarningThresholds | None:
        """See graphql_api/early_warnings.py."""
        return await resolve_warning_thresholds(info)

    @strawberry.field(
        description="Interventions, by key. None for a caller that is bound to accounts.", **requires(Scope.HEALTH_READ)
    )
    async def interventions(
        self, info: MeteringInfo, first: int = 50, after: str | None = strawberry.UNSET
    ) -> InterventionConnection:
        """See graphql_api/interventions.py."""
        return await resolve_interventions(first, after or None, info)

    @strawberry.field(
        description="The intervention of this key, with what it did. Null for a caller that is bound to accounts.",
        **requires(Scope.HEALTH_READ),
    )
    async def intervention(self, key: str, info: MeteringInfo) -> MeasuredIntervention | None:
        """See graphql_api/interventions.py."""
        return await resolve_intervention(key, info)

    @strawberry.field(
        description="Whom to leave alone, so that it can be told what an intervention did: asked before anything is done. "
        "Nothing is kept, and the lot falls always the same.",
        **requires(Scope.HEALTH_READ),
    )
    async def hold_out(self, input: HoldOutInput, info: MeteringInfo) -> HoldOutResult:
        """See graphql_api/interventions.py."""
        return await resolve_hold_out(input, info)

    @strawberry.field(
        description="Would a scorecard have warned? Its scores some time before customers left or stayed, as far as they were "
        "known then, against what became of them. Not for a caller that is bound to accounts.",
        **requires(Scope.HEALTH_READ),
    )
    async def backtest(self, input: BacktestInput, info: MeteringInfo) -> BacktestResult:
        """See graphql_api/backtests.py."""
        return await resolve_backtest(input, info)

    @strawberry.field(
        description="On which devices usage happened in the 28 days before a day, today unless given, and which features are "
        "typical of each; of one account, or of all. It sees devices as events name them.",
        **requires(Scope.USAGE_READ),
    )
    async def device_mix(
        self,
        info: MeteringInfo,
        account: str | None = strawberry.UNSET,
        as_of: date | None = strawberry.UNSET,
        first: int = 10,
    ) -> DeviceMix:
        """See graphql_api/device_mix.py."""
        return await resolve_device_mix(account, as_of, first, info)

    @strawberry.field(
        description="Which ways users walk from one feature to the next within a session: those that are walked most often, and "
        "how much of what users do is routine. Read from events; the query has no groups.",
        **requires(Scope.USAGE_READ),
    )
    async def ways(
        self,
        query: UsageQuery,
        info: MeteringInfo,
        first: int = 10,
        repeats: Annotated[  # noqa: FBT002 - given by name
            bool, strawberry.argument(description="Whether to use a feature again right away is a way, too.")
        ] = False,
    ) -> WaysResult:
        """See graphql_api/ways.py."""
        return await resolve_ways(query, first, info, repeats=repeats)

    @strawberry.field(
        description="How many users were there at once, at most, and when; with a `groupBy` also of each group, and with a "
        "`bucket` over time. Read from events.",
        **requires(Scope.USAGE_READ),
    )
    async def users_at_once(
        self,
        query: UsageQuery,
        info: MeteringInfo,
        bucket: Bucket | None = strawberry.UNSET,
        first: Annotated[int, strawberry.argument(description="How many groups are listed.")] = 10,
    ) -> UsersAtOnceResult:
        """See graphql_api/users_at_once.py."""
        return await resolve_users_at_once(query, bucket, first, info)

    @strawberry.field(description="API keys, the newest first.", **requires(Scope.ADMIN))
    async def api_keys(
        self, info: MeteringInfo, first: int = 50, after: str | None = strawberry.UNSET
    ) -> ApiKeyConnection:
        """See graphql_api/api_keys.py."""
        return await resolve_api_keys(first, after or None, info)

    @strawberry.field(
        description="Alert rules, by key; of a key that is bound to accounts, those that are about them alone.",
        **requires(Scope.CATALOG_READ),
    )
    async def alert_rules(
        self, info: MeteringInfo, first: int = 50, after: str | None = strawberry.UNSET
    ) -> AlertRuleConnection:
        """See graphql_api/alert_rules.py."""
        return await resolve_alert_rules(first, after or None, info)

    @strawberry.field(
        description="Alerts, the newest first. Those of amounts are shown to who has CHARGES_READ besides.",
        **requires(Scope.USAGE_READ),
    )
    async def alerts(
        self,
        info: MeteringInfo,
        filter: AlertFilter = AlertFilter(),  # noqa: B008 - an input without fields, which nobody changes
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> AlertConnection:
        """See graphql_api/alerts.py."""
        return await resolve_alerts(filter, first, after or None, info)

    @strawberry.field(description="Where notifications are sent, by key.", **requires(Scope.ADMIN))
    async def destinations(
        self, info: MeteringInfo, first: int = 50, after: str | None = strawberry.UNSET
    ) -> DestinationConnection:
        """See graphql_api/destinations.py."""
        return await resolve_destinations(first, after or None, info)

    @strawberry.field(
        description="What was sent to a destination, and what is to be, the newest first; each with all of its attempts.",
        **requires(Scope.ADMIN),
    )
    async def deliveries(
        self,
        destination: str,
        info: MeteringInfo,
        state: DeliveryState | None = strawberry.UNSET,
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> DeliveryConnection:
        """See graphql_api/deliveries.py."""
        return await resolve_deliveries(destination, given_or_none(state), first, after or None, info)

    @strawberry.field(
        description="Who changed what, the newest first: catalogs, keys, corrections, statements, credits, scorecards, "
        "overrides, alert rules, destinations.",
        **requires(Scope.ADMIN),
    )
    async def audit_log(
        self,
        info: MeteringInfo,
        filter: AuditFilter = AuditFilter(),  # noqa: B008 - an input without fields, which nobody changes
        first: int = 50,
        after: str | None = strawberry.UNSET,
    ) -> AuditEntryConnection:
        """See graphql_api/audit_log.py."""
        return await resolve_audit_log(filter, first, after or None, info)

    @strawberry.field(description="Any object by its global ID.")
    async def node(self, id: strawberry.ID, info: MeteringInfo) -> Node | None:
        """See graphql_api/finding.py."""
        return await resolve_node(id, info)

    @strawberry.field(description="Whether the service can do its work; needs no scope.")
    async def service(self, info: MeteringInfo) -> ServiceStatus:
        """See graphql_api/service.py."""
        return await resolve_service(info)


@strawberry.type
class Mutation:
    """What can be changed."""

    @strawberry.mutation(
        description="Record a few events; producers of many use POST /v1/events. Safe to repeat: an event is known by "
        "source and id.",
        **requires(Scope.USAGE_WRITE),
    )
    async def record_usage(self, input: RecordUsageInput, info: MeteringInfo) -> RecordUsageResult:
        """See graphql_api/recording.py."""
        return await resolve_record_usage(input, info)

    @strawberry.mutation(
        description="Take an event out of every figure, or put other values in its place; the original stays on record.",
        **requires(Scope.USAGE_WRITE),
    )
    async def correct_event(self, input: CorrectEventInput, info: MeteringInfo) -> CorrectEventResult:
        """See graphql_api/recording.py."""
        return await resolve_correct_event(input, info)

    @strawberry.mutation(
        description="Send kept rejected events through admission again, as they are or with another body.",
        **requires(Scope.USAGE_WRITE),
    )
    async def retry_rejected_events(self, input: list[RetryRejectedInput], info: MeteringInfo) -> RetryRejectedResult:
        """See graphql_api/rejected.py."""
        return await resolve_retry_rejected_events(input, info)

    @strawberry.mutation(
        description="Make a meter, or give it another name. It counts events from before it was made, too. Safe to repeat; "
        "a meter that is there and says something else is a Conflict: put it with another key.",
        **requires(Scope.CATALOG_WRITE),
    )
    async def put_meter(self, input: PutMeterInput, info: MeteringInfo) -> PutMeterResult:
        """See graphql_api/meters.py."""
        return await resolve_put_meter(input, info)

    @strawberry.mutation(
        description="Publish a plan as a new, immutable version. Safe to repeat: what the newest version says is that "
        "version. One that would take effect before the newest one does is a Conflict.",
        **requires(Scope.CATALOG_WRITE),
    )
    async def publish_plan(self, input: PublishPlanInput, info: MeteringInfo) -> PublishPlanResult:
        """See graphql_api/plans.py."""
        return await resolve_publish_plan(input, info)

    @strawberry.mutation(
        description="Make an account, or change what is known of it. What is left out is cleared. Safe to repeat.",
        **requires(Scope.CATALOG_WRITE),
    )
    async def put_account(self, input: PutAccountInput, info: MeteringInfo) -> PutAccountResult:
        """See graphql_api/accounts.py."""
        return await resolve_put_account(input, info)

    @strawberry.mutation(
        description="Make a subscription, or change it. What is left out is cleared. Safe to repeat: what holds already "
        "stays. Another plan, version or number of seats takes effect at `effectiveAt`; another account, start, anchor or "
        "time zone is a Conflict, and so is a plan in another currency.",
        **requires(Scope.CATALOG_WRITE),
    )
    async def put_subscription(self, input: PutSubscriptionInput, info: MeteringInfo) -> PutSubscriptionResult:
        """See graphql_api/subscriptions.py."""
        return await resolve_put_subscription(input, info)

    @strawberry.mutation(
        description="Freeze a period's statement, with its evidence; repeating it answers the same statement. When usage of "
        "a frozen period changes afterwards, the rounded difference (new minus frozen and already adjusted) becomes an "
        "adjustment line of the earliest open statement after it; a subscription that has ended gets a closing statement "
        "for it. A period that is not over yet is a Conflict.",
        **requires(Scope.CHARGES_WRITE),
    )
    async def finalize_statement(self, subscription: str, at: Instant, info: MeteringInfo) -> StatementResult:
        """See graphql_api/statements.py."""
        return await resolve_finalize_statement(subscription, at, info)

    @strawberry.mutation(
        description="Take a final statement back, with a reason; it stays on record, the period is a draft again, and credits "
        "have back what they paid of it.",
        **requires(Scope.CHARGES_WRITE),
    )
    async def void_statement(self, id: strawberry.ID, reason: str, info: MeteringInfo) -> StatementResult:
        """See graphql_api/statements.py."""
        return await resolve_void_statement(id, reason, info)

    @strawberry.mutation(
        description="Grant an account a credit, which its statements draw down when they are frozen. Safe to repeat: a grant "
        "is known by account and key; one that says something else is a Conflict.",
        **requires(Scope.CHARGES_WRITE),
    )
    async def grant_credit(self, input: GrantCreditInput, info: MeteringInfo) -> GrantCreditResult:
        """See graphql_api/credits.py."""
        return await resolve_grant_credit(input, info)

    @strawberry.mutation(
        description="Take a grant back, with a reason: what is left leaves it, what it has paid stays paid.",
        **requires(Scope.CHARGES_WRITE),
    )
    async def void_credit_grant(self, input: VoidCreditGrantInput, info: MeteringInfo) -> VoidCreditGrantResult:
        """See graphql_api/credits.py."""
        return await resolve_void_credit_grant(input, info)

    @strawberry.mutation(
        description="Make an alert rule, or change it: what it raised when it said something else is resolved then. Safe to "
        "repeat.",
        **requires(Scope.CATALOG_WRITE),
    )
    async def put_alert_rule(self, input: PutAlertRuleInput, info: MeteringInfo) -> PutAlertRuleResult:
        """See graphql_api/alert_rules.py."""
        return await resolve_put_alert_rule(input, info)

    @strawberry.mutation(
        description="Make a destination of notifications, or change it; what waits for it is then tried at once. A webhook's "
        "secret is in the answer when it is made, and nowhere else.",
        **requires(Scope.ADMIN),
    )
    async def put_destination(self, input: PutDestinationInput, info: MeteringInfo) -> PutDestinationResult:
        """See graphql_api/destinations.py."""
        return await resolve_put_destination(input, info)

    @strawberry.mutation(
        description="Sign what is sent to a webhook with a new secret; for a while also with the ones before.",
        **requires(Scope.ADMIN),
    )
    async def rotate_destination_secret(
        self, input: RotateDestinationSecretInput, info: MeteringInfo
    ) -> RotateDestinationSecretResult:
        """See graphql_api/destinations.py."""
        return await resolve_rotate_destination_secret(input, info)

    @strawberry.mutation(
        description="Forget a destination, with the log of its deliveries. What waits there is not sent any more; what is on its "
        "way may still arrive.",
        **requires(Scope.ADMIN),
    )
    async def delete_destination(self, key: str, info: MeteringInfo) -> DeleteDestinationResult:
        """See graphql_api/destinations.py."""
        return await resolve_delete_destination(key, info)

    @strawberry.mutation(
        description="Send notifications to a destination again, by their ids: what was not delivered, or all.",
        **requires(Scope.ADMIN),
    )
    async def replay_deliveries(self, input: ReplayDeliveriesInput, info: MeteringInfo) -> ReplayDeliveriesResult:
        """See graphql_api/deliveries.py."""
        return await resolve_replay_deliveries(input, info)

    @strawberry.mutation(
        description="Survey scores, tickets, invoices, renewals, a CSM's pulse: dated values by name, all or none of them. Safe "
        "to repeat: a signal is known by source and externalId, or by all that it says.",
        **requires(Scope.HEALTH_WRITE),
    )
    async def record_signals(self, input: list[SignalInput], info: MeteringInfo) -> RecordSignalsResult:
        """See graphql_api/facts.py."""
        return await resolve_record_signals(input, info)

    @strawberry.mutation(
        description="What became of customers: renewed, churned, and so on. All or none of them; safe to repeat, as signals are.",
        **requires(Scope.HEALTH_WRITE),
    )
    async def record_outcomes(self, input: list[OutcomeInput], info: MeteringInfo) -> RecordOutcomesResult:
        """See graphql_api/facts.py."""
        return await resolve_record_outcomes(input, info)

    @strawberry.mutation(
        description="Say how a customer is doing, with a note; it ends by itself. A signal of the name `pulse`.",
        **requires(Scope.HEALTH_WRITE),
    )
    async def set_pulse(self, input: SetPulseInput, info: MeteringInfo) -> RecordSignalsResult:
        """See graphql_api/facts.py."""
        return await resolve_set_pulse(input, info)

    @strawberry.mutation(
        description="Bound one score with a reason, until a day; the score below is kept.",
        **requires(Scope.HEALTH_WRITE),
    )
    async def override_health(self, input: OverrideHealthInput, info: MeteringInfo) -> OverrideHealthResult:
        """See graphql_api/facts.py."""
        return await resolve_override_health(input, info)

    @strawberry.mutation(
        description="Record what was done for customers, and whom it was meant for; or that it has ended. Safe to repeat: an "
        "intervention is known by its key, and one that says something else is a Conflict.",
        **requires(Scope.HEALTH_WRITE),
    )
    async def record_intervention(self, input: RecordInterventionInput, info: MeteringInfo) -> RecordInterventionResult:
        """See graphql_api/interventions.py."""
        return await resolve_record_intervention(input, info)

    @strawberry.mutation(
        description="Say what is known of a user from an instant on: these attributes and no others.",
        **requires(Scope.HEALTH_WRITE),
    )
    async def put_user(self, input: PutUserInput, info: MeteringInfo) -> PutUserResult:
        """See graphql_api/facts.py."""
        return await resolve_put_user(input, info)

    @strawberry.mutation(
        description="Erase a user of an account: the usage stays, and with it every figure that is not asked for by user, but it "
        "is nobody's any more; what was said of the user is deleted. Safe to repeat. It cannot be taken back.",
        **requires(Scope.ADMIN),
    )
    async def erase_user(self, input: EraseUserInput, info: MeteringInfo) -> EraseUserResult:
        """See graphql_api/erasure.py."""
        return await resolve_erase_user(input, info)

    @strawberry.mutation(
        description="Publish a scorecard as a new, immutable version; with dryRun, only show who would change band.",
        **requires(Scope.HEALTH_WRITE),
    )
    async def publish_scorecard(
        self,
        input: ScorecardInput,
        info: MeteringInfo,
        dry_run: bool = False,  # noqa: FBT001, FBT002 - an argument of the contract, given by name
    ) -> PublishScorecardResult:
        """See graphql_api/scorecards.py."""
        return await resolve_publish_scorecard(input, info, dry_run=dry_run)

    @strawberry.mutation(
        description="Have other thresholds of early warnings in force, from the next day that is scored on. Safe to repeat.",
        **requires(Scope.HEALTH_WRITE),
    )
    async def put_warning_thresholds(
        self, input: PutWarningThresholdsInput, info: MeteringInfo
    ) -> PutWarningThresholdsResult:
        """See graphql_api/early_warnings.py."""
        return await resolve_put_warning_thresholds(input, info)

    @strawberry.mutation(
        description="Make an API key. Its secret is in the answer, and nowhere else.", **requires(Scope.ADMIN)
    )
    async def create_api_key(self, input: CreateApiKeyInput, info: MeteringInfo) -> CreateApiKeyResult:
        """See graphql_api/api_keys.py."""
        return await resolve_create_api_key(input, info)

    @strawberry.mutation(
        description="Make an API key in the place of another one: it may do the same, and the old one goes on for a while.",
        **requires(Scope.ADMIN),
    )
    async def rotate_api_key(self, input: RotateApiKeyInput, info: MeteringInfo) -> RotateApiKeyResult:
        """See graphql_api/api_keys.py."""
        return await resolve_rotate_api_key(input, info)

    @strawberry.mutation(
        description="Revoke an API key: within seconds no process takes it any more. Null where there is none.",
        **requires(Scope.ADMIN),
    )
    async def revoke_api_key(self, prefix: str, info: MeteringInfo) -> ApiKey | None:
        """See graphql_api/api_keys.py."""
        return await resolve_revoke_api_key(prefix, info)


@strawberry.type(name="Subscription")
class LiveQuestions:
    """What is answered again and again: as a stream of events, or over a WebSocket."""

    @strawberry.subscription(
        description="Totals for the query, at once and again whenever they have changed, at most once in `everySeconds`.",
        directives=[Requires(scope=[Scope.USAGE_READ])],
    )
    async def usage_totals(
        self, query: UsageQuery, info: MeteringInfo, every_seconds: int = 5
    ) -> AsyncGenerator[list[UsageTotal], None]:
        """See graphql_api/live_usage.py, which requires the scope each time anew."""
        async with aclosing(stream_usage_totals(query, every_seconds, info)) as totals:
            async for each in totals:
                yield each


class Schema(strawberry.Schema):
    """The schema. Operations are executed on its core, not by it: see operations.py."""

    @property
    def core(self) -> GraphQLSchema:
        """What graphql-core executes."""
        return self._schema


@cache
def make_schema() -> Schema:
    """The schema. It says what can be asked and holds nothing of who asks, so that every service of a process has the same."""
    return Schema(
        query=Query, mutation=Mutation, subscription=LiveQuestions, config=CONFIG, exception_handlers=HANDLERS
    )


def sdl() -> str:
    """The schema as text, as it is committed."""
    return make_schema().as_str() + "\n"
