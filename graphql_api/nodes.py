"""Global ids: opaque, and made of what names the object."""

import strawberry

from graphql_api.pages import encode_cursor


@strawberry.interface
class Node:
    """What has a global id."""

    id: strawberry.ID = strawberry.field(description="Globally unique and opaque.")


def node_id(kind: str, *name: object) -> strawberry.ID:
    """The global id of the object of this kind and name."""
    return strawberry.ID(encode_cursor([kind, *name]))
