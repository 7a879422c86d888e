"""Users of accounts: when they were last active, what is said of them, and their health."""

import msgspec
import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.health import health_field
from graphql_api.pages import CursorText, PageInfo, check_first, decode_cursor, encode_cursor, page_info
from graphql_api.scalars import Instant, JsonObject
from health.scorecards import Subject
from metering.attribute_facts import read_attributes
from metering.events import in_utc
from metering.health.customers import AccountUser, UsersAsked, list_account_users
from metering.service import Snapshot
from metering.subjects import SubjectRef


def _ref(user: "User") -> SubjectRef:
    return SubjectRef(Subject.USER, user.account, user.key)


@strawberry.type(description="A user of an account.")
class User:
    """One user."""

    key: str
    account: str
    last_used_at: Instant | None = strawberry.field(
        description="To the day's beginning, where its events are not kept any more; null without usage of a year."
    )
    active_days28: int = strawberry.field(description="UTC days with activity, of the last 28 with today.")
    known: strawberry.Private[dict[str, object] | None] = None

    @strawberry.field(description="What it is said to be now.")
    async def attributes(self, info: MeteringInfo) -> JsonObject:
        """All of them."""
        if self.known is not None:
            return JsonObject(self.known)
        context = info.context
        return JsonObject(await context.loaders.attributes(context.snapshot, _ref(self)))

    health = health_field(_ref, "Its score as of a UTC day, today unless given.")


@strawberry.type
class UserConnection:
    """One page of users."""

    nodes: list[User]
    page_info: PageInfo
    total_count: int


class _UserPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds."""

    user: CursorText


async def users_of(account: str, first: int, after: str | None, info: MeteringInfo) -> UserConnection:
    """A page of an account's users, by key."""
    context = info.context
    check_first(first, context.limits, ("first",))
    place = decode_cursor(after, _UserPlace, ("after",)) if after else None
    asked = UsersAsked(account, first, None if place is None else place.user)
    page = await context.loaders.users(context.snapshot, asked)
    cursors = [encode_cursor(_UserPlace(each.key)) for each in page.users]
    return UserConnection(
        nodes=[_shown(account, each) for each in page.users],
        page_info=page_info(cursors, has_next=page.has_next, has_previous=place is not None),
        total_count=page.total,
    )


async def new_user(snapshot: Snapshot, account: str, key: str) -> User:
    """A user that was put just now."""
    (page,) = await list_account_users(snapshot, [UsersAsked(account, 1)], only=key)
    (known,) = await read_attributes(
        snapshot, [SubjectRef(Subject.USER, account, key)], in_utc((await snapshot.horizon()).as_of)
    )
    # Of whom nothing is said, and who used nothing, is in no list.
    user = _shown(account, page.users[0] if page.users else AccountUser(key, None, 0))
    user.known = known
    return user


def _shown(account: str, user: AccountUser) -> User:
    return User(
        key=user.key,
        account=account,
        last_used_at=None if user.last_used_at is None else Instant(user.last_used_at),
        active_days28=user.active_days,
    )
