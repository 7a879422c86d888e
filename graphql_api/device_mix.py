"""The mix of devices: on which ones usage happens, and what is typical of each."""

from datetime import UTC, date
from typing import Final

import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.pages import check_first
from graphql_api.scalars import BigInt
from metering.errors import InputIssue, InvalidInputError
from metering.health.devices import DeviceShare as Share
from metering.health.devices import read_device_mix

_FEATURES_SHOWN: Final = 5


@strawberry.type(
    description="A feature's share of the events on a device by its share on all: 1 is as everywhere, 2 twice as often."
)
class FeatureLift:
    """What is typical of a device."""

    feature: str
    lift: float


@strawberry.type
class DeviceShare:
    """One device."""

    device: str | None = strawberry.field(description="As events say it; null is usage that names none.")
    active_days: int = strawberry.field(description="Days of users, each on each day, with activity there.")
    active_days_share: float | None = strawberry.field(
        description="Of the active days of all devices; these add up to 1."
    )
    events: BigInt
    events_share: float | None
    users: int
    features: list[FeatureLift] = strawberry.field(description="The five most typical ones.")


@strawberry.type(description="The devices of 28 days, those with most events first; a device is what events call so.")
class DeviceMix:
    """All of it."""

    as_of: date = strawberry.field(description="The UTC day at whose beginning the 28 days end.")
    devices: list[DeviceShare]
    active_days: int
    events: BigInt
    users: int = strawberry.field(description="Users with activity.")
    several_devices_share: float | None = strawberry.field(
        description="Of the users with activity, the share that was active on two devices or more; usage that names none is one."
    )


async def resolve_device_mix(account: str | None, as_of: date | None, first: int, info: MeteringInfo) -> DeviceMix:
    """Of one account, or of all within reach; of who reaches a part of accounts nothing is told, for it is of whole accounts."""
    context = info.context
    check_first(first, context.limits, ("first",))
    chosen = given_or_none(account)
    if chosen is not None and "\0" in chosen:
        raise InvalidInputError([InputIssue(("account",), "A NUL character, which no account has.")])
    snapshot = context.snapshot
    day = given_or_none(as_of) or (await snapshot.horizon()).as_of.astimezone(UTC).date()
    limits = context.limits
    if not limits.asked_from_min.date() < day < limits.asked_to_max.date():
        message = f"This must be later than {limits.asked_from_min:%F} and before {limits.asked_to_max:%F}."
        raise InvalidInputError([InputIssue(("asOf",), message)])
    if snapshot.reach.is_narrow:
        return DeviceMix(as_of=day, devices=[], active_days=0, events=BigInt(0), users=0, several_devices_share=None)
    found = await read_device_mix(
        snapshot, None if chosen is None else [chosen], day, devices=first, features=_FEATURES_SHOWN
    )
    return DeviceMix(
        as_of=day,
        devices=[_share(each, found.active_days, found.events) for each in found.devices],
        active_days=found.active_days,
        events=BigInt(found.events),
        users=found.users,
        several_devices_share=found.several_devices / found.users if found.users else None,
    )


def _share(share: Share, active_days: int, events: int) -> DeviceShare:
    return DeviceShare(
        device=share.device,
        active_days=share.active_days,
        active_days_share=share.active_days / active_days if active_days else None,
        events=BigInt(share.events),
        events_share=share.events / events if events else None,
        users=share.users,
        features=[FeatureLift(feature=each.feature, lift=each.lift) for each in share.features],
    )
