"""Attributes: a JSON object of whatever is known besides."""

from typing import Any, cast

import strawberry

from graphql_api.scalars import JsonObject


def attributes_of(given: JsonObject | None) -> dict[str, Any]:
    """The attributes that an argument says; none where it is left out or null."""
    # The scalar lets only objects through.
    return {} if given is None or given is strawberry.UNSET else cast("dict[str, Any]", given)
