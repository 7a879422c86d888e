"""One line for each request says what it was, and no secret."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import structlog
from structlog.testing import capture_logs

from metering.telemetry import configure_logs, logger
from tests.conftest import ADMIN_KEY, ENGINES, Api, Server, bearer, running
from tests.graphql_api.worlds import MINE, key_for

EVENT: Final = {
    "id": "1", "source": "gateway", "account": "acme", "product": "maps", "unit": "call", "quantity": "1",
    "occurred_at": "2026-09-02T10:00:00Z",
}  # fmt: skip
SECRET: Final = "hunter2-in-a-variable"
USAGE: Final = """
query Monthly { usage(query: {period: {from: "2026-09-01T00:00:00Z", to: "2026-10-01T00:00:00Z"}}) {
... on UsageReport { groups { nodes { series(bucket: DAY) { unit } } } } } }
"""


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """The log is set up for the whole process: afterwards it is as it was."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="module")
def api(servers: dict[str, Server]) -> Iterator[tuple[Api, str]]:
    """A service that logs each request, and the address of its database."""
    with servers[ENGINES[0]].cloned() as url, running(url, log_level="info") as started:
        yield started, url


def line_of(ask: Callable[[], object]) -> dict[str, Any]:
    """The line of the one request that is made, without how long it took."""
    with capture_logs() as lines:
        ask()
    (line,) = [each for each in lines if each["event"] == "request"]
    assert line.pop("milliseconds") > 0
    return {name: value for name, value in line.items() if name not in {"event", "log_level"}}


def test_the_line_of_events_says_what_became_of_them(api: tuple[Api, str]) -> None:
    """Who sent how many bytes, and what the receipt said, the rejected ones by code."""
    service, _ = api
    body = [EVENT, EVENT, {**EVENT, "id": ""}, {**EVENT, "id": "2", "unit": ""}, {**EVENT, "id": "3", "quantity": "?"}]
    service.send([EVENT])
    line = line_of(lambda: service.send(body))

    assert {"method": "POST", "path": "/v1/events", "status": 200} == {
        name: line.pop(name) for name in ("method", "path", "status")
    }
    assert len(json.dumps(body, separators=(",", ":"))) == line.pop("bytes")
    assert line.pop("key").startswith("bootstrap_")
    # Who sent them was looked up a moment ago; writing them is done for many requests together.
    assert line.pop("statements", 0) <= 1
    assert {"accepted": 0, "duplicates": 2, "rejected": {"text_invalid": 2, "quantity_not_a_number": 1}} == line


def test_the_line_of_a_question_says_what_it_cost(api: tuple[Api, str]) -> None:
    """The operation by its name, its cost and its statements; and of one that fails, the codes."""
    service, url = api
    service.send([EVENT])
    line = line_of(lambda: service.ask(USAGE))
    partner = key_for(url, MINE)
    failed = line_of(lambda: service.answer("query Keys { apiKeys { nodes { prefix } } }", key=partner))
    invalid = line_of(lambda: service.answer("{ nothing }"))

    assert ("Monthly", "query", 200, 1 + 30) == tuple(line[name] for name in ("operation", "kind", "status", "cost"))
    assert line["statements"] > 2
    assert "errors" not in line
    assert ("Keys", ["FORBIDDEN"]) == (failed["operation"], failed["errors"])
    assert ["GRAPHQL_INVALID"] == invalid["errors"]
    assert "operation" not in invalid


def test_no_line_holds_a_secret(api: tuple[Api, str]) -> None:
    """Keys, good and bad, tokens and what stands behind the path of an address are in no line of the log."""
    service, _ = api
    wrong = "mk_wrong_" + SECRET
    with capture_logs() as lines:
        for headers in (
            bearer(ADMIN_KEY),
            bearer(wrong),
            {"Authorization": f"Basic {wrong}"},
            bearer(f"ey.{SECRET}.x"),
        ):
            for path in ("/graphql", "/metrics", "/v1/events"):
                service.client.post(path, params={"key": SECRET}, content=SECRET, headers=headers)
                service.client.get(path, params={"query": f'{{ account(key: "{SECRET}") {{ key }} }}'}, headers=headers)
    logged = repr(lines)

    assert 24 == sum(line["event"] == "request" for line in lines)
    assert [] == [secret for secret in (ADMIN_KEY, SECRET, wrong) if secret in logged]


def fail() -> None:
    """Fail, with a secret at hand."""
    secret = SECRET
    message = "of something"
    raise ValueError(message + secret[:0])


@pytest.mark.parametrize(("form", "is_json"), [("json", True), ("text", False), ("auto", True)])
def test_logs_are_json_or_text(monkeypatch: pytest.MonkeyPatch, form: Any, is_json: bool) -> None:  # noqa: FBT001 - pytest
    """JSON is one object in one line, text is not; `auto` is JSON where nobody reads it on a terminal. An exception is in
    either, without the values of variables.
    """
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    configure_logs("info", form)
    try:
        fail()
    except ValueError as error:
        logger().error("failed", number=1, exc_info=error)
    logger().debug("unseen")
    text = written.getvalue()

    assert "of something" in text
    assert "raise ValueError(message" in text
    assert SECRET not in text
    assert "unseen" not in text
    if is_json:
        assert ("failed", 1, "error") == tuple(json.loads(text)[name] for name in ("event", "number", "level"))
    else:
        assert "\n" in text.rstrip("\n")
        assert "number" in text
