"""What docs/alerts.md shows is so: its verification verifies, its mutations are understood, its example is what is sent."""

import json
import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from graphql import build_schema, parse, validate

from graphql_api.schema import sdl
from metering.outbox.event import Published, cloud_event
from metering.outbox.signature import secret_text, signed_headers

DOCUMENT = (Path(__file__).parents[3] / "docs" / "alerts.md").read_text()


def blocks(language: str) -> list[str]:
    """The blocks of the document that are in this language."""
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


def test_the_verification_that_is_shown_verifies() -> None:
    """It takes what we sign, with either of two secrets; and nothing that was changed, is old, or is of another secret."""
    shown: dict[str, Any] = {}
    exec(blocks("python")[0], shown)  # noqa: S102 - the document's own lines
    is_genuine: Callable[[str, dict[str, str], bytes], bool] = shown["is_genuine"]
    old, new, other = (bytes([number] * 32) for number in range(3))
    headers = signed_headers([new, old], "an-id", int(time.time()), b"{}")
    late = signed_headers([new], "an-id", int(time.time()) - 400, b"{}")

    assert [True, True, False] == [is_genuine(secret_text(each), headers, b"{}") for each in (old, new, other)]
    assert not is_genuine(secret_text(new), headers, b"{ }")
    assert not is_genuine(secret_text(new), late, b"{}")


def test_the_mutations_that_are_shown_are_understood() -> None:
    """Each is valid in the schema that is served."""
    schema = build_schema(sdl())

    assert [[]] * 2 == [validate(schema, parse(each)) for each in blocks("graphql")]


def test_the_example_is_what_is_sent() -> None:
    """The example, taken apart and written by the code that writes what is sent, is itself."""
    (example,) = (json.loads(each) for each in blocks("json"))
    event = Published(
        id=msgspec.convert(example["id"], type=UUID),
        sequence=int(example["sequence"]),
        type=example["type"],
        subject=example["subject"],
        data=json.dumps(example["data"]),
        published_at=msgspec.convert(example["time"], type=datetime),
    )

    assert example == json.loads(cloud_event(event))
