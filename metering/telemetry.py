"""Logs: one canonical line per request, on standard error; as JSON, or to be read on a terminal.

What is said of a request in its line is noted where it comes to light, in the context of that request.
"""

import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, Literal

import msgspec
import structlog

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
Form = Literal["auto", "json", "text"]
# What is known of the request that is being answered; None where there is none.
_FACTS: Final[ContextVar[dict[str, Any] | None]] = ContextVar("facts", default=None)
# How many SQL statements a request sent.
STATEMENTS_NOTED: Final = "statements"


def configure_logs(level: str, form: Form = "json") -> None:
    """Write log lines to standard error, from `level` up; standard output is for answers to people."""
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    encoder = msgspec.json.Encoder(enc_hook=repr)
    # Exceptions are shown without the values of variables, which may be secrets.
    rendered: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if is_text
        else [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=lambda line, **_: encoder.encode(line).decode()),
        ]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *rendered,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )

    logging.root.handlers = [_OfLibraries(logging.WARNING)]


class _OfLibraries(logging.Handler):
    """What libraries log becomes lines like ours; of an exception its type alone, for nobody knows what its text repeats."""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        fault = None if record.exc_info is None or record.exc_info[0] is None else record.exc_info[0].__name__
        # What asyncio says below its first line repeats the exception.
        message = record.getMessage().partition("\n")[0]
        told = {"library": record.name, "message": message} | ({} if fault is None else {"fault": fault})
        # No line of a library is our error: what comes of it is said where it comes to light.
        logger().warning("library", **told)


def logger() -> structlog.typing.FilteringBoundLogger:
    """The service's log."""
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log


def begin_request() -> dict[str, Any]:
    """What will be known of the request that this context answers; `note` adds to it."""
    facts: dict[str, Any] = {}
    _FACTS.set(facts)
    return facts


def note(**facts: object) -> None:
    """Say this of the request that is being answered; of none, nothing. Never a secret: it is written to the log."""
    noted = _FACTS.get()
    if noted is not None:
        noted.update(facts)


def noted() -> Mapping[str, Any]:
    """What was said up to now of the request that is being answered; of none, nothing."""
    return _FACTS.get() or {}


def note_statement() -> None:
    """The request that is being answered, if there is one, sends an SQL statement."""
    noted = _FACTS.get()
    if noted is not None:
        noted[STATEMENTS_NOTED] = noted.get(STATEMENTS_NOTED, 0) + 1
