"""The way to a collector: spans as OpenTelemetry's SDK gathers them, and sends them as OTLP over HTTP. Nothing else imports it.

A span that has ended is put into a bounded queue, and a thread of the SDK's sends them in batches. So nobody ever waits for the
collector: where it is slow or away the queue is full, and further spans are dropped.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, StatusCode, Tracer, format_span_id, format_trace_id, set_span_in_context
from opentelemetry.trace import Span as RecordedSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from metering import __version__
from metering.limits import Limits
from metering.spans import Attributes, Kind, Place, Span, Traces
from metering.telemetry import logger

# Of what a caller sends as `traceparent` so much is looked at: the form has 55 characters, and may become longer.
_TRACEPARENT_CHARS_MAX: Final = 128
_KINDS: Final[Mapping[Kind, SpanKind]] = {
    Kind.INTERNAL: SpanKind.INTERNAL,
    Kind.SERVER: SpanKind.SERVER,
    Kind.CLIENT: SpanKind.CLIENT,
}
_CALLERS: Final = TraceContextTextMapPropagator()
# It tells of each attempt; that a batch could not be sent is enough.
logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").setLevel(logging.ERROR)


@asynccontextmanager
async def collecting(url: str, share: float, limits: Limits, process: str) -> AsyncIterator[Traces]:
    """Send spans to a collector until the block ends, then what is left, as long as it may take.

    Of traces that begin here `share`, 0 to 1, is told; one that a caller began is told where the caller says so.
    """
    exporter = OTLPSpanExporter(endpoint=url, timeout=limits.trace_export_seconds_max)
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(share)),
        resource=_resource(process),
        # At the end of the process it would wait for the collector for half a minute.
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=limits.trace_spans_max,
            schedule_delay_millis=1_000 * limits.trace_gather_seconds,
            max_export_batch_size=min(limits.trace_batch_spans_max, limits.trace_spans_max),
        )
    )
    try:
        yield _Collected(provider.get_tracer("metering", __version__))
    finally:
        await _end(provider, exporter, limits.trace_flush_seconds_max)


def _resource(process: str) -> Resource:
    """Who tells: this process, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say otherwise."""
    own = {"service.name": "metering", "service.version": __version__, "service.instance.id": process}
    return Resource.create(own).merge(OTELResourceDetector().detect())


async def _end(provider: TracerProvider, exporter: SpanExporter, seconds: int) -> None:
    """Send what is left. Where it takes too long it is given up: the thread does not keep the process from ending."""
    sending = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
    sending.start()
    await asyncio.to_thread(sending.join, seconds)
    if sending.is_alive():
        # It tries no further.
        exporter.shutdown()
        logger().warning("spans_given_up", reason=f"The collector did not take them within {seconds} s.")


class _Below(Place):
    """Below a span of somebody else's."""

    def __init__(self, tracer: Tracer, context: Context) -> None:
        self._tracer = tracer
        self._context = context

    @property
    def records(self) -> bool:
        """See Place: its first span says whether it is."""
        return True

    def begin(self, name: str, attributes: Attributes, kind: Kind, links: Sequence[Span]) -> Span:
        """See Place."""
        return _begun(self._tracer, self._context, name, attributes, kind, links)


class _Collected(_Below, Traces):
    """What begins a trace."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__(tracer, Context())

    def below(self, traceparent: str | None) -> Place:
        """See Traces."""
        if traceparent is None or len(traceparent) > _TRACEPARENT_CHARS_MAX:
            return self
        return _Below(self._tracer, _CALLERS.extract({"traceparent": traceparent}, Context()))


class _CollectedSpan(Span):
    """A span of the SDK's."""

    def __init__(self, tracer: Tracer, span: RecordedSpan) -> None:
        self._tracer = tracer
        self._span = span
        self.context = span.get_span_context()

    @property
    def records(self) -> bool:
        """See Place."""
        return self.context.trace_flags.sampled

    @property
    def trace_id(self) -> str:
        """See Span."""
        return format_trace_id(self.context.trace_id)

    @property
    def traceparent(self) -> str:
        """See Span."""
        flags = int(self.context.trace_flags)
        return f"00-{self.trace_id}-{format_span_id(self.context.span_id)}-{flags:02x}"

    def begin(self, name: str, attributes: Attributes, kind: Kind, links: Sequence[Span]) -> Span:
        """See Place."""
        return _begun(self._tracer, set_span_in_context(self._span, Context()), name, attributes, kind, links)

    def tell(self, attributes: Attributes) -> None:
        """See Span."""
        self._span.set_attributes(attributes)

    def link(self, other: Span) -> None:
        """See Span."""
        self._span.add_link(_of(other).context)

    def fail(self, fault: str) -> None:
        """See Span."""
        self._span.set_attribute("error.type", fault)
        self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        """See Span."""
        self._span.end()


def _begun(
    tracer: Tracer, context: Context, name: str, attributes: Attributes, kind: Kind, links: Sequence[Span]
) -> Span:
    # What an exception says may be anything, so it is never recorded.
    span = tracer.start_span(
        name,
        context,
        _KINDS[kind],
        attributes,
        [Link(_of(each).context) for each in links],
        record_exception=False,
        set_status_on_exception=False,
    )
    return _CollectedSpan(tracer, span)


def _of(span: Span) -> _CollectedSpan:
    assert isinstance(span, _CollectedSpan), "all spans of a process are collected alike"
    return span
