"""Credits of accounts: granting and voiding them, their balance at any instant, and the ledger of how it came about."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
import strawberry

from graphql_api.auth import HIDDEN, INTERNAL
from graphql_api.context import Context, MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.money import Money, money_of
from graphql_api.nodes import CreditGrantName, Node, sealed_id
from graphql_api.pages import (
    CursorInstant,
    PageInfo,
    check_first,
    check_instant,
    decode_cursor,
    encode_cursor,
    opened,
    page_info,
)
from graphql_api.problems import Conflict, InvalidInput, NotFound
from graphql_api.scalars import CurrencyCode, DecimalText, Instant
from metering import credit_ledger
from metering.credits import CreditGrant as GrantedCredit
from metering.credits import GrantOrder, find_grant, known_currency, money_in
from metering.errors import NotFoundError
from metering.events import in_utc
from metering.keys import Scope
from metering.reach import Reach
from metering.seal import Seal
from rating.credits import Pot
from rating.exact import ZERO

_NOTHING: Final = DecimalText(ZERO)
_KIND: Final = "CreditGrant"
_ENTRY_KIND: Final = "CreditEntry"
_POTS: Final[Mapping[Pot, str]] = {
    Pot.ISSUED: "Where all credit comes from.",
    Pot.GRANT: "A grant of the account.",
    Pot.STATEMENT: "What statements drew.",
    Pot.EXPIRED: "What was left when its grant expired.",
    Pot.VOIDED: "What was left when its grant was voided.",
}
_pot: Any = strawberry.enum(Pot, name="CreditPot")
for _value in _pot.__strawberry_definition__.values:
    _value.description = _POTS[Pot(_value.value)]


@strawberry.type(description="A quantity of a meter.")
class CreditQuantity:
    """So much of a meter."""

    meter: str
    quantity: DecimalText


@strawberry.type(
    description="A credit that an account was granted: an amount of money or a quantity of a meter, one of the two. It pays "
    "for what falls into the time from effectiveAt to expiresAt, whenever that is frozen. What was granted stays as it is."
)
class CreditGrant(Node):
    """One grant."""

    id: strawberry.ID = strawberry.field(description="Globally unique and opaque.")
    account: str
    key: str
    amount: Money | None
    quantity: CreditQuantity | None
    meters: list[str] = strawberry.field(
        description="Of an amount: it pays for the prices of these meters only; none: for everything."
    )
    priority: int = strawberry.field(description="0 is drawn first; then what expires first, and what is older.")
    overdraft_max: DecimalText = strawberry.field(description="How far it may go below zero, in what it is in.")
    effective_at: Instant
    expires_at: Instant | None
    note: str | None
    granted_at: Instant
    granted_by: str | None = strawberry.field(directives=INTERNAL, extensions=HIDDEN)
    voided_at: Instant | None
    voided_by: str | None = strawberry.field(directives=INTERNAL, extensions=HIDDEN)
    void_reason: str | None


@strawberry.input
class CreditAmountInput:
    """An amount of money."""

    amount: DecimalText
    currency_code: CurrencyCode
    meters: list[str] = strawberry.field(
        default_factory=list, description="Pay for the prices of these meters only; none: for everything."
    )


@strawberry.input
class CreditQuantityInput:
    """A quantity of a meter."""

    quantity: DecimalText
    meter: str


@strawberry.input(one_of=True, description="What is granted.")
class CreditInput:
    """An amount or a quantity."""

    amount: CreditAmountInput | None = strawberry.UNSET
    quantity: CreditQuantityInput | None = strawberry.field(
        default=strawberry.UNSET,
        description="Pays the share of a price's amount that it is of the quantity that is charged; before all amounts.",
    )


@strawberry.input
class GrantCreditInput:
    """A credit as it is granted."""

    key: str = strawberry.field(
        description="The account's own: what is granted again by the same key is the same grant."
    )
    account: str
    credit: CreditInput
    effective_at: Instant = strawberry.field(description="What was used before, it does not pay.")
    expires_at: Instant | None = strawberry.field(default=strawberry.UNSET, description="Never, unless given.")
    priority: int = strawberry.field(
        default=0, description="0 is drawn first; then what expires first, and what is older."
    )
    overdraft_max: DecimalText = strawberry.field(
        default=_NOTHING, description="How far it may go below zero, once all that can pay is drawn down to zero."
    )
    note: str | None = strawberry.UNSET


@strawberry.input
class VoidCreditGrantInput:
    """A grant that is taken back."""

    account: str
    key: str
    reason: str


GrantCreditResult = Annotated[CreditGrant | InvalidInput | Conflict, strawberry.union("GrantCreditResult")]
VoidCreditGrantResult = Annotated[
    CreditGrant | InvalidInput | NotFound | Conflict, strawberry.union("VoidCreditGrantResult")
]


@strawberry.type(description="A grant at an instant, in what it is in: granted - drawn - expired - voided = balance.")
class CreditGrantBalance:
    """How a grant stands."""

    grant: CreditGrant
    granted: DecimalText
    drawn: DecimalText = strawberry.field(description="What statements drew and did not give back.")
    expired: DecimalText
    voided: DecimalText
    balance: DecimalText


@strawberry.type(
    description="An account's credits at an instant, by all that is booked: what a statement drew is gone from the end of "
    "what it paid for, whenever it was frozen; what was given back was never gone."
)
class CreditBalance:
    """How an account's credits stand."""

    account: str
    at: Instant
    as_of: Instant = strawberry.field(description="What was booked before this instant is in it.")
    amounts: list[Money] = strawberry.field(description="One for each currency.")
    quantities: list[CreditQuantity] = strawberry.field(description="One for each meter.")
    grants: list[CreditGrantBalance] = strawberry.field(description="All of them, by key.")


CreditBalanceResult = Annotated[CreditBalance | InvalidInput | NotFound, strawberry.union("CreditBalanceResult")]


@strawberry.type(
    description="What one pot gave and another took, so that all pots together hold zero; in money or in a meter's quantity, "
    "as the grant is."
)
class CreditEntry:
    """One entry of the ledger."""

    grant: str = strawberry.field(description="The grant's key.")
    source: Pot
    target: Pot
    amount: Money | None
    quantity: CreditQuantity | None
    worth: Money | None = strawberry.field(description="What it is on the statement.")
    statement: strawberry.ID | None = strawberry.field(description="The statement that moved it, as it was frozen.")
    effective_at: Instant = strawberry.field(
        description="From when on it holds: what is given back, from the instant on at which it had been drawn."
    )
    booked_at: Instant
    booked_by: str | None = strawberry.field(
        description="Nobody, where a grant expired.", directives=INTERNAL, extensions=HIDDEN
    )


@strawberry.type
class CreditLedgerEdge:
    """An entry and its place."""

    node: CreditEntry
    cursor: str


@strawberry.type
class CreditLedgerConnection:
    """One page of the ledger."""

    edges: list[CreditLedgerEdge]
    nodes: list[CreditEntry]
    page_info: PageInfo


class _EntryPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds."""

    effective_at: CursorInstant
    is_end: bool
    sealed: str

    def __post_init__(self) -> None:
        check_instant(self.effective_at)


# ---------------------------------------------------------------- granting and voiding


async def resolve_grant_credit(given: GrantCreditInput, info: MeteringInfo) -> GrantCreditResult:
    """Grant a credit."""
    context = info.context
    key = context.require(Scope.CHARGES_WRITE)
    return _shown(await context.service.grant_credit(_order(given), key), context.service.seal)


async def resolve_void_credit_grant(given: VoidCreditGrantInput, info: MeteringInfo) -> VoidCreditGrantResult:
    """Take a grant back."""
    context = info.context
    key = context.require(Scope.CHARGES_WRITE)
    voided = await context.service.void_credit_grant(given.account, given.key, given.reason, key)
    return _shown(voided, context.service.seal)


def _order(given: GrantCreditInput) -> GrantOrder:
    amount, quantity = given_or_none(given.credit.amount), given_or_none(given.credit.quantity)
    granted = amount.amount if amount is not None else quantity.quantity if quantity is not None else _NOTHING
    return GrantOrder(
        account=given.account,
        key=given.key,
        amount=granted,
        currency_code=None if amount is None else amount.currency_code,
        meter=None if quantity is None else quantity.meter,
        meters=() if amount is None else tuple(amount.meters),
        priority=given.priority,
        overdraft_max=given.overdraft_max,
        effective_at=given.effective_at,
        expires_at=given_or_none(given.expires_at),
        note=given_or_none(given.note),
    )


# ---------------------------------------------------------------- asking


async def resolve_credit_balance(account: str, at: datetime | None, info: MeteringInfo) -> CreditBalanceResult:
    """How an account's credits stand."""
    context = info.context
    context.require(Scope.CHARGES_READ)
    if not _is_visible(account, context.snapshot.reach):
        raise NotFoundError(f"There is no account {account!r:.60} that this key sees.")
    found = await credit_ledger.read_balance(context.snapshot, account, at, context.limits)
    return CreditBalance(
        account=account,
        at=Instant(found.at),
        as_of=Instant(found.as_of),
        amounts=[money_of(each) for each in found.amounts],
        quantities=[CreditQuantity(meter=meter, quantity=DecimalText(held)) for meter, held in found.quantities],
        grants=[
            CreditGrantBalance(
                grant=_shown(each.grant, context.service.seal),
                granted=_in_unit(each.granted, each.grant),
                drawn=_in_unit(each.drawn, each.grant),
                expired=_in_unit(each.expired, each.grant),
                voided=_in_unit(each.voided, each.grant),
                balance=_in_unit(each.balance, each.grant),
            )
            for each in found.grants
        ],
    )


async def resolve_credit_ledger(
    account: str, first: int, after: str | None, info: MeteringInfo
) -> CreditLedgerConnection:
    """The ledger of an account, in order of the instants that entries are of. One that the caller may not see has none."""
    context = info.context
    context.require(Scope.CHARGES_READ)
    seal = context.service.seal
    check_first(first, context.limits, ("first",))
    cursor = decode_cursor(after, _EntryPlace, ("after",)) if after else None
    place = None if cursor is None else _place(cursor, seal)
    entries: list[credit_ledger.Entry] = []
    has_next = False
    if _is_visible(account, context.snapshot.reach):
        entries, has_next = await credit_ledger.read_ledger(context.snapshot, account, first, place)
    nodes = [_entry(each, seal) for each in entries]
    cursors = [encode_cursor(_cursor_of(each, seal)) for each in entries]
    return CreditLedgerConnection(
        edges=[CreditLedgerEdge(node=node, cursor=cursor) for node, cursor in zip(nodes, cursors, strict=True)],
        nodes=nodes,
        page_info=page_info(cursors, has_next=has_next, has_previous=place is not None),
    )


async def find_credit_grant_node(name: CreditGrantName, info: MeteringInfo) -> CreditGrant | None:
    """The grant of a global id, if the caller sees its account."""
    context: Context = info.context
    context.require(Scope.CHARGES_READ)
    reach, seal = context.snapshot.reach, context.service.seal
    number = seal.opened(_KIND, name.sealed)
    # A statement that does not know subscriptions is not run for who is bound to some.
    found = None if number is None or reach.is_narrow else await find_grant(context.snapshot, number)
    return _shown(found, seal) if found is not None and _is_visible(found.order.account, reach) else None


def _is_visible(account: str, reach: Reach) -> bool:
    """Credits are a whole account's: what is drawn of them tells of all its subscriptions."""
    return reach.shows_account(account) and not reach.is_narrow


def _place(cursor: _EntryPlace, seal: Seal) -> credit_ledger.EntryPlace:
    number = opened(seal, _ENTRY_KIND, cursor.sealed, ("after",))
    return credit_ledger.EntryPlace(in_utc(cursor.effective_at), cursor.is_end, number)


def _cursor_of(entry: credit_ledger.Entry, seal: Seal) -> _EntryPlace:
    place = credit_ledger.place_of(entry)
    return _EntryPlace(place.effective_at, place.is_end, seal.closed(_ENTRY_KIND, place.id))


def _entry(entry: credit_ledger.Entry, seal: Seal) -> CreditEntry:
    return CreditEntry(
        grant=entry.grant,
        source=entry.source,
        target=entry.target,
        amount=_amount(entry.amount, entry.currency_code),
        quantity=_quantity(entry.amount, entry.meter),
        worth=None if entry.worth is None else money_of(entry.worth),
        statement=None if entry.statement is None else sealed_id("Statement", entry.statement, seal),
        effective_at=Instant(entry.effective_at),
        booked_at=Instant(entry.booked_at),
        booked_by=entry.booked_by,
    )


def _shown(found: GrantedCredit, seal: Seal) -> CreditGrant:
    order = found.order
    return CreditGrant(
        id=sealed_id(_KIND, found.id, seal),
        account=order.account,
        key=order.key,
        amount=_amount(order.amount, order.currency_code),
        quantity=_quantity(order.amount, order.meter),
        meters=list(order.meters),
        priority=order.priority,
        overdraft_max=_in_unit(order.overdraft_max, found),
        effective_at=Instant(order.effective_at),
        expires_at=None if order.expires_at is None else Instant(order.expires_at),
        note=order.note,
        granted_at=Instant(found.granted_at),
        granted_by=found.granted_by,
        voided_at=None if found.voided_at is None else Instant(found.voided_at),
        voided_by=found.voided_by,
        void_reason=found.void_reason,
    )


def _amount(amount: Decimal, code: str | None) -> Money | None:
    return None if code is None else money_of(money_in(amount, known_currency(code)))


def _quantity(quantity: Decimal, meter: str | None) -> CreditQuantity | None:
    return None if meter is None else CreditQuantity(meter=meter, quantity=DecimalText(quantity))


def _in_unit(amount: Decimal, grant: GrantedCredit) -> DecimalText:
    """Money with the digits of its currency, a quantity without zeros behind."""
    currency = grant.currency
    return DecimalText(amount) if currency is None else money_of(money_in(amount, currency)).amount
