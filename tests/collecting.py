"""A collector: a small HTTP server on this machine that takes OTLP, and keeps the spans; or takes a request and never answers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_ERROR: Final = 2


class Collected(msgspec.Struct, frozen=True):
    """A span as it came over the wire."""

    process: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    failed: bool
    status_text: str
    events: int

    def is_below(self, other: "Collected") -> bool:
        """Whether it is a part of that one, at once."""
        return (self.trace_id, self.parent_id) == (other.trace_id, other.span_id)


class Collector:
    """What was sent to it."""

    def __init__(self) -> None:
        self.spans: list[Collected] = []
        # As it came: whatever is in it was told.
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        # Requests that were begun, and whether they are answered.
        self.asked = threading.Event()
        self.answers = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def take(self, headers: dict[str, str], body: bytes) -> None:
        """Keep what was sent."""
        self.headers.append(headers)
        self.bodies.append(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            process = _attributes(group.resource.attributes)["service.instance.id"]
            self.spans += [_collected(process, span) for scope in group.scope_spans for span in scope.spans]

    def named(self, name: str, trace_id: str | None = None) -> list[Collected]:
        """The spans of this name; of this trace."""
        return [each for each in self.spans if each.name == name and trace_id in {None, each.trace_id}]

    def one(self, name: str, trace_id: str | None = None) -> Collected:
        """The only span of this name."""
        (found,) = self.named(name, trace_id)
        return found

    def below(self, span: Collected) -> list[Collected]:
        """All that is a part of this span, and of its parts."""
        parts = [each for each in self.spans if each.is_below(span)]
        return parts + [each for part in parts for each in self.below(part)]


def _collected(process: str, span: Any) -> Collected:
    return Collected(
        process=process,
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_attributes(span.attributes),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        failed=span.status.code == _ERROR,
        status_text=span.status.message,
        events=len(span.events),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    found = getattr(value, value.WhichOneof("value"))
    return [_value(each) for each in found.values] if value.HasField("array_value") else found


@contextmanager
def collecting(*, answers: bool = True) -> Iterator[Collector]:
    """A collector that listens until the block ends; one that does not answer leaves whoever sends waiting until then."""
    collector = Collector()
    if answers:
        collector.answers.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.asked.set()
            collector.answers.wait()
            collector.take({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_arguments: Any) -> None:
            """Whoever was left waiting may have gone."""

    with Server(("127.0.0.1", 0), Handler) as server:
        collector.port = server.server_address[1]
        listening = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        listening.start()
        try:
            yield collector
        finally:
            collector.answers.set()
            server.shutdown()
            listening.join()
