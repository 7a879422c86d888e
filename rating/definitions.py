"""Plans and prices as the contract writes them in JSON, read and written without loss."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from rating.billing_periods import BillingInterval
from rating.exact import ZERO
from rating.plans import Plan, PlanPrice, PriceTiming
from rating.prices import KIND_NAMES, KINDS, Price


class _PriceDefinition(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    key: str
    price: dict[str, Any]
    meter: str | None = None
    included_quantity: Decimal = ZERO
    minimum_amount: Decimal | None = None
    maximum_amount: Decimal | None = None
    discount_percent: Decimal = ZERO
    timing: PriceTiming = PriceTiming.IN_ARREARS
    prorated: bool = True


class _PlanDefinition(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    key: str
    version: int
    name: str
    currency_code: str
    effective_from: datetime
    interval: BillingInterval
    prices: tuple[_PriceDefinition, ...]
    minimum_amount: Decimal | None = None


def price_of(definition: Mapping[str, Any]) -> Price:
    """A price from its one name and what is said of it: {"perUnit": {"unitPrice": "0.02"}}.

    Raises msgspec.ValidationError where there is not exactly one name, or a field that the kind does not have.
    """
    if len(definition) != 1:
        raise msgspec.ValidationError(f"a price is of one kind; here are {len(definition)}: {', '.join(definition)}")
    ((name, fields),) = definition.items()
    if name not in KINDS:
        raise msgspec.ValidationError(f"there is no price of the kind {name!r}; there are {', '.join(KINDS)}")
    return msgspec.convert(fields, KINDS[name])


def plan_of(definition: Mapping[str, Any]) -> Plan:
    """A plan from what definition_of() wrote. Raises msgspec.ValidationError."""
    read = msgspec.convert(definition, _PlanDefinition)
    prices = tuple(PlanPrice(**{**msgspec.structs.asdict(each), "price": price_of(each.price)}) for each in read.prices)
    return Plan(**{**msgspec.structs.asdict(read), "prices": prices})


def price_definition_of(price: Price) -> dict[str, Any]:
    """A price as price_of() reads it."""
    return {KIND_NAMES[type(price)]: _plain(price)}


def definition_of(plan: Plan) -> dict[str, Any]:
    """A plan as JSON holds it: decimals as strings in plain notation, names and values in the contract's spelling."""
    prices = tuple(
        _PriceDefinition(**{**msgspec.structs.asdict(each), "price": price_definition_of(each.price)})
        for each in plan.prices
    )
    return dict(_plain(_PlanDefinition(**{**msgspec.structs.asdict(plan), "prices": prices})))


def _plain(value: Any) -> Any:
    """Builtins, with each decimal as a string without an exponent."""
    return _spelled(msgspec.to_builtins(value, builtin_types=(Decimal,)))


def _spelled(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return {name: _spelled(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(part) for part in value]
    return value
