"""The settings: METERING_* variables, read once into one frozen struct; every fault is reported at once."""

import os
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal

import msgspec

from metering.errors import ConfigurationError

PREFIX: Final = "METERING_"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How this process runs. A field `data_dir` is the variable METERING_DATA_DIR; docs/operating.md explains each."""

    # Unset means: the embedded PostgreSQL in the data directory.
    database_url: str | None = None
    data_dir: Path = Path(".metering")
    host: str = "127.0.0.1"
    # 0 picks a free one.
    port: int = 8000
    # Whether what is before the service speaks TLS: then browsers are told to come that way only.
    behind_tls: bool = False
    # Each worker process has a pool of its own: workers x pool_connections must stay below max_connections.
    workers: int = 1
    pool_connections: int = 10
    # An ADMIN key of exactly this secret is made at first start; for scripts that cannot read one from the screen.
    bootstrap_key: str | None = None
    # What digests of keys are made with; unset means a secret that is made at first start and kept in the database.
    key_secret: str | None = None
    # Who signs tokens, and for whom; with both, tokens are taken beside keys.
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    # The issuer's public keys, a path or an address; and a secret shared with it.
    jwt_jwks: str | None = None
    jwt_secret: str | None = None
    # How far the issuer's clock may be from ours.
    jwt_leeway_seconds: int = 30
    # A producer that stamps a new time on each retry is counted once across midnight within this time; 1,440 at most.
    restamp_window_minutes: int = 60
    # An event that occurred longer ago is refused, and dropped when it becomes that old; unset means that none is too old.
    retention_days: int | None = None
    # What rollups tell of usage longer ago is dropped; unset means never.
    rollup_retention_days: int | None = None
    # Events older than this become columns, where the engine has them: about a quarter of the size, dearer to add to.
    columnstore_after_days: int = 14
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    # auto is text where standard error is a terminal, and JSON elsewhere.
    log_format: Literal["auto", "json", "text"] = "auto"
    # What Prometheus shows at /metrics as its bearer token; unset means that only keys are taken which reach everything.
    metrics_key: str | None = None
    # Where spans are sent, as OTLP over HTTP; unset means that nothing is traced. And of how many traces that begin here.
    traces_url: str | None = None
    traces_share: float = 1.0
    # Whether this process does background work too; where none of those that serve does, `metering work` has to run.
    work: bool = True
    # How often the refresher looks for work; figures are exact at any setting, only the tail read raw grows.
    refresh_seconds: float = 5.0
    # How often alert rules are evaluated, and the outbox is looked at.
    notify_seconds: float = 0.5
    # Webhooks go to public addresses over TLS, and nowhere else; these let them go elsewhere.
    webhook_allow_private: bool = False
    webhook_allow_http: bool = False
    # Lists of plain values are completed in one pass; the stock executor, which this turns on again, takes many times as long.
    graphql_breadth_first: bool = True
    # The schema is open source; this only spares who does not want to be asked for it. Suggestions go with it.
    graphql_introspection: bool = True
    # A JSON object of documents by their ids, which requests may name; and whether others are refused.
    graphql_documents: Path | None = None
    graphql_only_listed: bool = False
    # What each key may spend on questions, in each process; unset means as much as it likes.
    graphql_cost_per_second: int | None = None


def read_settings(environment: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Read the settings from METERING_* variables; `overrides` (the command line's options) win, None means not given.

    Raises ConfigurationError with every fault, each beginning with the variable's name.
    """
    environment = os.environ if environment is None else environment
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    given: dict[str, object] = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and value and name not in _NOT_SETTINGS
    }
    given.update({name: value for name, value in overrides.items() if value is not None})

    values: dict[str, object] = {}
    faults: list[str] = []
    for name, value in sorted(given.items()):
        if name not in fields:
            faults.append(
                f"{PREFIX}{name.upper()} is not a setting; `metering serve --help` and docs/operating.md list them."
            )
            continue
        try:
            values[name] = msgspec.convert(value, fields[name].type, strict=False, dec_hook=_path)
        except msgspec.ValidationError as error:
            faults.append(f"{PREFIX}{name.upper()}={value!r}: {_NEEDED.get(fields[name].type, error)}.")
    faults += _faults_of(values)
    if faults:
        raise ConfigurationError(faults)
    return Settings(**values)  # type: ignore[arg-type]  # converted field by field above


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables from which `read_settings` makes equal settings: how they reach worker processes."""
    values = msgspec.structs.asdict(settings)
    return {f"{PREFIX}{name.upper()}": str(value) for name, value in values.items() if value is not None}


_NEEDED: Final = {
    int: "must be a whole number",
    int | None: "must be a whole number",
    float: "must be a number",
    bool: "must be true or false",
}


def _path(kind: type, value: object) -> object:
    """What msgspec does not know: a path is a string."""
    assert kind is Path, f"a setting's type that nobody converts: {kind}"
    return Path(str(value))


# Variables with our prefix that other commands read: the client's side, and the tests'.
_NOT_SETTINGS: Final = frozenset(
    {"METERING_URL", "METERING_KEY", "METERING_TEST_TIMESCALEDB_BIN", "METERING_TEST_SOAK"}
)

_RANGES: Final = {
    "port": (0, 65_535),
    "workers": (1, 64),
    "pool_connections": (4, 200),
    "restamp_window_minutes": (0, 1_440),
    "retention_days": (1, 36_500),
    "rollup_retention_days": (1, 36_500),
    "columnstore_after_days": (1, 36_500),
    "refresh_seconds": (0.05, 3_600),
    "notify_seconds": (0.05, 3_600),
    "graphql_cost_per_second": (1, 1_000_000_000),
    "jwt_leeway_seconds": (0, 300),
    "traces_share": (0, 1),
}
_SHOWN_KEY_CHARS_MIN: Final = 16
# As many as the hashes have that they are the keys of.
_SECRET_BYTES_MIN: Final = 32
# Who can change the answer to a request can sign tokens.
_SAFE_ADDRESS: Final = re.compile(r"https://|http://(?:localhost|127\.0\.0\.1|\[::1\])[:/]")
# Whatever sends to it may tell the address in its log, so nothing secret may be in it.
_COLLECTOR: Final = re.compile(r"https?://[^/?#@\s]+/[^?#@\s]+")
# What the extra `tracing` installs, and nothing else does.
_TRACING: Final = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")


def _faults_of(values: Mapping[str, object]) -> list[str]:
    """What types alone do not say: ranges and forms."""
    faults = []
    for name, (low, high) in _RANGES.items():
        value = values.get(name)
        if isinstance(value, (int, float)) and not low <= value <= high:
            faults.append(f"{PREFIX}{name.upper()}={value}: must be between {low:,} and {high:,}.")
    rollup_days, event_days = values.get("rollup_retention_days"), values.get("retention_days")
    if isinstance(rollup_days, int) and (not isinstance(event_days, int) or rollup_days < event_days):
        found = "unset, which is for ever" if event_days is None else event_days
        faults.append(
            f"{PREFIX}ROLLUP_RETENTION_DAYS={rollup_days}: rollups cannot be dropped before the events that they are made "
            f"of; {PREFIX}RETENTION_DAYS is {found}. Set it to {rollup_days} or less, or this one to more."
        )
    if values.get("graphql_only_listed") and "graphql_documents" not in values:
        faults.append(
            f"{PREFIX}GRAPHQL_ONLY_LISTED=true: nothing would be answered; name the list with {PREFIX}GRAPHQL_DOCUMENTS."
        )
    url = values.get("database_url")
    if isinstance(url, str) and not url.startswith(("postgresql://", "postgres://")):
        faults.append(
            f"{PREFIX}DATABASE_URL: must begin with postgresql:// (for example postgresql://user@host:5432/db)."
        )
    faults += [
        f"{PREFIX}{name.upper()}: needs at least {_SHOWN_KEY_CHARS_MIN} ASCII characters without spaces."
        for name in ("bootstrap_key", "metrics_key")
        if isinstance(secret := values.get(name), str)
        and (len(secret) < _SHOWN_KEY_CHARS_MIN or not secret.isascii() or " " in secret)
    ]
    return [*faults, *_secret_faults(values), *_token_faults(values), *_trace_faults(values)]


def _secret_faults(values: Mapping[str, object]) -> list[str]:
    """Secrets are long enough that nobody guesses them."""
    return [
        f"{PREFIX}{name.upper()}: needs at least {_SECRET_BYTES_MIN} bytes, such as `openssl rand -hex 32` makes."
        for name in ("key_secret", "jwt_secret")
        if isinstance(secret := values.get(name), str) and len(secret.encode()) < _SECRET_BYTES_MIN
    ]


def _trace_faults(values: Mapping[str, object]) -> list[str]:
    """Spans are sent to an address without secrets, by packages that are installed."""
    url = values.get("traces_url")
    if not isinstance(url, str):
        return []
    faults = []
    if not _COLLECTOR.fullmatch(url):
        faults.append(
            f"{PREFIX}TRACES_URL: must be an address like http://127.0.0.1:4318/v1/traces, with its path, and without a "
            "user, a password, `?` or `#`; headers for the collector are set with OTEL_EXPORTER_OTLP_TRACES_HEADERS."
        )
    missing = [name for name in _TRACING if not _is_installed(name)]
    if missing:
        faults.append(
            f"{PREFIX}TRACES_URL: needs {' and '.join(missing)}; install metering[tracing], or unset the variable."
        )
    return faults


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _token_faults(values: Mapping[str, object]) -> list[str]:
    """Tokens need an issuer, an audience, and something to verify them with; none of it is of use alone."""
    names = {name for name in ("jwt_issuer", "jwt_audience", "jwt_jwks", "jwt_secret") if values.get(name) is not None}
    faults = []
    if names:
        faults += [
            f"{PREFIX}{name.upper()}: is not set, and tokens are not taken without it; set it, or unset the others."
            for name in ("jwt_issuer", "jwt_audience")
            if name not in names
        ]
        if not names & {"jwt_jwks", "jwt_secret"}:
            faults.append(
                f"{PREFIX}JWT_JWKS: is not set, nor is {PREFIX}JWT_SECRET; tokens are verified with one of them."
            )
    source = values.get("jwt_jwks")
    if isinstance(source, str) and "://" in source and not _SAFE_ADDRESS.match(source):
        faults.append(
            f"{PREFIX}JWT_JWKS: must begin with https:// (http:// only on this machine), or be the path of a file."
        )
    return faults
