"""DataLoaders: what the items of a page ask one by one is read for all of them in one statement."""

from collections.abc import Callable
from datetime import date
from typing import Any, TypeVar

from strawberry.dataloader import DataLoader

from graphql_api.once import Once
from health.measurements import Measurement
from health.score import Health
from metering.attribute_facts import read_attributes
from metering.events import in_utc
from metering.health.cards import Cards, read_cards
from metering.health.customers import UserPage, UsersAsked, list_account_users
from metering.health.early_warnings import Warned, read_warnings_of
from metering.health.reading import (
    Asked,
    HistoryAsked,
    HistoryPoint,
    read_histories,
    read_measured,
    read_scores,
)
from metering.service import Snapshot
from metering.subjects import SubjectRef
from metering.subscriptions import Subscription, subscriptions_of

Key = TypeVar("Key")


class Loaders:
    """The loaders of one operation, each made when it is first asked; all read from the operation's snapshot."""

    def __init__(self) -> None:
        self._loaders: dict[str, DataLoader[Any, Any]] = {}
        self._once = Once()

    async def score(self, snapshot: Snapshot, asked: Asked) -> Health | None:
        """A score."""

        async def load(keys: list[Asked]) -> list[Health | None]:
            return await read_scores(snapshot, keys)

        loader: DataLoader[Asked, Health | None] = self._loader("score", load)
        return await loader.load(asked)

    async def history(self, snapshot: Snapshot, asked: HistoryAsked) -> list[HistoryPoint]:
        """The scores of some days."""

        async def load(keys: list[HistoryAsked]) -> list[list[HistoryPoint]]:
            return await read_histories(snapshot, keys)

        loader: DataLoader[HistoryAsked, list[HistoryPoint]] = self._loader("history", load)
        return await loader.load(asked)

    async def measured(self, snapshot: Snapshot, ref: SubjectRef, day: date) -> dict[str, Measurement] | None:
        """What was measured of a subject on a day."""

        async def load(keys: list[tuple[SubjectRef, date]]) -> list[dict[str, Measurement] | None]:
            return await read_measured(snapshot, keys)

        loader: DataLoader[tuple[SubjectRef, date], dict[str, Measurement] | None] = self._loader("measured", load)
        return await loader.load((ref, day))

    async def attributes(self, snapshot: Snapshot, ref: SubjectRef) -> dict[str, Any]:
        """What a subject is said to be now."""

        async def load(keys: list[SubjectRef]) -> list[dict[str, Any]]:
            return await read_attributes(snapshot, keys, in_utc((await snapshot.horizon()).as_of))

        loader: DataLoader[SubjectRef, dict[str, Any]] = self._loader("attributes", load)
        return await loader.load(ref)

    async def users(self, snapshot: Snapshot, asked: UsersAsked) -> UserPage:
        """A page of an account's users."""

        async def load(keys: list[UsersAsked]) -> list[UserPage]:
            return await list_account_users(snapshot, keys)

        loader: DataLoader[UsersAsked, UserPage] = self._loader("users", load)
        return await loader.load(asked)

    async def subscriptions(self, snapshot: Snapshot, account: str, page_rows: int) -> list[Subscription]:
        """All of an account's, by key."""

        async def load(keys: list[str]) -> list[list[Subscription]]:
            of_accounts = await subscriptions_of(snapshot, keys, page_rows)
            return [of_accounts[key] for key in keys]

        loader: DataLoader[str, list[Subscription]] = self._loader("subscriptions", load)
        return await loader.load(account)

    async def warnings(self, snapshot: Snapshot, account: str, first: int) -> list[Warned]:
        """The newest warnings of an account."""

        async def load(keys: list[tuple[str, int]]) -> list[list[Warned]]:
            return await read_warnings_of(snapshot, keys)

        loader: DataLoader[tuple[str, int], list[Warned]] = self._loader("warnings", load)
        return await loader.load((account, first))

    async def cards(self, snapshot: Snapshot) -> Cards:
        """Every scorecard."""
        return await self._once.ask("cards", lambda: read_cards(snapshot))

    def _loader(self, name: str, load: Callable[[list[Key]], Any]) -> DataLoader[Key, Any]:
        if name not in self._loaders:
            self._loaders[name] = DataLoader(load_fn=load)
        return self._loaders[name]
