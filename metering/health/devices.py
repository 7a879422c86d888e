"""On which devices usage happens, on demand: their shares, and which features are typical of one. It stands in no scorecard."""

from collections.abc import Sequence
from datetime import date

import msgspec

from metering.health.conventions import SERVICE_ACCOUNT, columns_of, read_conventions
from metering.health.gathering import ask
from metering.store.queries import sql
from metering.store.snapshot import Snapshot


class FeatureLift(msgspec.Struct, frozen=True):
    """How many times as large a feature's share of the events is on a device as it is on all; 1 is as everywhere."""

    feature: str
    lift: float


class DeviceShare(msgspec.Struct, frozen=True, kw_only=True):
    """A device; None is usage that names none, which is always told. Active days are of users, each on each day."""

    device: str | None
    active_days: int
    users: int
    events: int
    features: Sequence[FeatureLift]


class DeviceMix(msgspec.Struct, frozen=True, kw_only=True):
    """The devices that are used most, and what all come to: a user's day on two devices is one of each."""

    devices: Sequence[DeviceShare]
    active_days: int
    events: int
    users: int
    several_devices: int


async def read_device_mix(
    snapshot: Snapshot, accounts: Sequence[str] | None, as_of: date, devices: int, features: int
) -> DeviceMix:
    """The mix of 28 days before a UTC day, of these accounts (None: of all): so many devices, with so many features each."""
    question = await ask(snapshot, accounts, as_of)
    conventions = await read_conventions(snapshot, question.accounts, as_of)
    service = columns_of(conventions.users(SERVICE_ACCOUNT))
    *rows, total = await question.of_window(sql("devices.list_shares"), *service, devices)
    shares = [
        DeviceShare(
            device=row["device"],
            active_days=int(row["active_days"]),
            users=row["users"],
            events=int(row["events"]),
            features=[
                FeatureLift(feature, lift)
                for feature, lift in zip(row["features"][:features], row["lifts"][:features], strict=True)
            ],
        )
        for row in rows
    ]
    return DeviceMix(
        devices=shares,
        active_days=int(total["active_days"]),
        events=int(total["events"]),
        users=total["users"],
        several_devices=int(total["lifts"][0]),
    )
