"""Settings come from METERING_* variables, and what is wrong with them is said all at once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.config import Settings, environment_of, read_settings
from metering.errors import ConfigurationError
from tests.strategies import SOME

SECRET = "a-secret-of-32-ascii-characters!"


def faults_of(**environment: str) -> tuple[str, ...]:
    """What is wrong with settings from these variables, named without their prefix."""
    with pytest.raises(ConfigurationError) as caught:
        read_settings({f"METERING_{name}": value for name, value in environment.items()})
    return caught.value.faults


def test_without_variables_the_defaults_hold() -> None:
    """An empty environment is enough to start: the embedded PostgreSQL, on this machine only."""
    assert Settings() == read_settings({})
    assert (Settings().database_url, Settings().host) == (None, "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DATABASE_URL", "postgresql://user@host:5432/db", {"database_url": "postgresql://user@host:5432/db"}),
        ("DATABASE_URL", "postgres:///db", {"database_url": "postgres:///db"}),
        ("DATA_DIR", "/var/lib/metering", {"data_dir": Path("/var/lib/metering")}),
        ("HOST", "0.0.0.0", {"host": "0.0.0.0"}),  # noqa: S104 - a value to read, nothing listens
        ("HOST", "null", {"host": "null"}),
        ("PORT", "0", {"port": 0}),
        ("BEHIND_TLS", "true", {"behind_tls": True}),
        ("PORT", "65535", {"port": 65_535}),
        ("WORKERS", "64", {"workers": 64}),
        ("POOL_CONNECTIONS", "4", {"pool_connections": 4}),
        ("BOOTSTRAP_KEY", SECRET, {"bootstrap_key": SECRET}),
        ("BOOTSTRAP_KEY", "1234567890123456", {"bootstrap_key": "1234567890123456"}),
        ("RESTAMP_WINDOW_MINUTES", "0", {"restamp_window_minutes": 0}),
        ("RESTAMP_WINDOW_MINUTES", "1440", {"restamp_window_minutes": 1_440}),
        ("RETENTION_DAYS", "400", {"retention_days": 400}),
        ("COLUMNSTORE_AFTER_DAYS", "7", {"columnstore_after_days": 7}),
        ("LOG_LEVEL", "debug", {"log_level": "debug"}),
        ("LOG_FORMAT", "text", {"log_format": "text"}),
        ("METRICS_KEY", SECRET, {"metrics_key": SECRET}),
        ("WORK", "false", {"work": False}),
        ("REFRESH_SECONDS", "0.05", {"refresh_seconds": 0.05}),
        ("REFRESH_SECONDS", "5", {"refresh_seconds": 5.0}),
        ("KEY_SECRET", SECRET, {"key_secret": SECRET}),
        ("GRAPHQL_BREADTH_FIRST", "false", {"graphql_breadth_first": False}),
        ("GRAPHQL_BREADTH_FIRST", "0", {"graphql_breadth_first": False}),
        ("GRAPHQL_INTROSPECTION", "false", {"graphql_introspection": False}),
        ("GRAPHQL_DOCUMENTS", "documents.json", {"graphql_documents": Path("documents.json")}),
        ("GRAPHQL_COST_PER_SECOND", "1000", {"graphql_cost_per_second": 1_000}),
    ],
)
def test_each_variable_is_a_field(name: str, value: str, expected: dict[str, object]) -> None:
    """A variable sets the field of its name, converted to the field's type."""
    assert Settings(**expected) == read_settings({f"METERING_{name}": value})  # type: ignore[arg-type]


def test_an_empty_variable_is_not_given() -> None:
    """An empty variable, as compose files make them, leaves the default."""
    assert Settings() == read_settings({"METERING_PORT": "", "METERING_DATABASE_URL": "", "METERING_UNKNOWN": ""})


def test_other_variables_are_none_of_our_business() -> None:
    """Variables without the prefix, and those that the client and the tests read, are passed over."""
    environment = {"PORT": "x", "METERINGPORT": "x", "METERING_URL": "http://elsewhere", "METERING_KEY": "k"}

    assert Settings() == read_settings(environment)


def test_every_fault_at_once() -> None:
    """All faults are reported together, each beginning with the name of its variable."""
    faults = faults_of(
        PORT="70000",
        WORKERS="many",
        POOL_CONNECTIONS="1",
        LOG_LEVEL="loud",
        REFRESH_SECONDS="0",
        RESTAMP_WINDOW_MINUTES="1441",
        RETENTION_DAYS="0",
        DATABASE_URL="mysql://host/db",
        BOOTSTRAP_KEY="short",
        PROT="8000",
    )

    assert sorted(fault.partition(":")[0].partition("=")[0].partition(" ")[0] for fault in faults) == [
        "METERING_BOOTSTRAP_KEY",
        "METERING_DATABASE_URL",
        "METERING_LOG_LEVEL",
        "METERING_POOL_CONNECTIONS",
        "METERING_PORT",
        "METERING_PROT",
        "METERING_REFRESH_SECONDS",
        "METERING_RESTAMP_WINDOW_MINUTES",
        "METERING_RETENTION_DAYS",
        "METERING_WORKERS",
    ]


def test_the_error_says_every_fault() -> None:
    """The error's text, which the command line prints, has a line for each fault."""
    with pytest.raises(ConfigurationError) as caught:
        read_settings({"METERING_PORT": "-1", "METERING_WORKERS": "0"})

    assert str(caught.value).splitlines() == [
        "METERING_PORT=-1: must be between 0 and 65,535.",
        "METERING_WORKERS=0: must be between 1 and 64.",
    ]


@pytest.mark.parametrize(
    ("name", "below", "lowest", "highest", "above"),
    [
        ("PORT", "-1", "0", "65535", "65536"),
        ("WORKERS", "0", "1", "64", "65"),
        ("POOL_CONNECTIONS", "3", "4", "200", "201"),
        ("RESTAMP_WINDOW_MINUTES", "-1", "0", "1440", "1441"),
        ("RETENTION_DAYS", "0", "1", "36500", "36501"),
        ("COLUMNSTORE_AFTER_DAYS", "0", "1", "36500", "36501"),
        ("REFRESH_SECONDS", "0.049", "0.05", "3600", "3600.5"),
        ("GRAPHQL_COST_PER_SECOND", "0", "1", "1000000000", "1000000001"),
    ],
)
def test_ranges(name: str, below: str, lowest: str, highest: str, above: str) -> None:
    """A number is taken from its lowest to its highest value; the first beyond is refused and told the range."""
    for value in (lowest, highest):
        assert float(value) == getattr(read_settings({f"METERING_{name}": value}), name.lower())
    for value in (below, above):
        (fault,) = faults_of(**{name: value})

        assert fault.startswith(f"METERING_{name}={value}: must be between ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "abc"),
        ("PORT", " 80"),
        ("PORT", "8000.5"),
        ("PORT", "true"),
        ("PORT", "99999999999999999999999"),
        ("REFRESH_SECONDS", "soon"),
        ("REFRESH_SECONDS", "nan"),
        ("REFRESH_SECONDS", "inf"),
        ("LOG_LEVEL", "INFO"),
        ("GRAPHQL_BREADTH_FIRST", "maybe"),
        ("GRAPHQL_BREADTH_FIRST", "2"),
        ("GRAPHQL_INTROSPECTION", "maybe"),
        ("GRAPHQL_ONLY_LISTED", "true"),  # without a list
        ("DATABASE_URL", "null"),
        ("DATABASE_URL", "host:5432/db"),
        ("BOOTSTRAP_KEY", "fifteen-letters"),
        ("BOOTSTRAP_KEY", "sixteen letters!"),
        ("BOOTSTRAP_KEY", "sixteen-lettérs!"),
        ("", "x"),
        ("PORTS", "8000"),
        ("DATABASE_URL_", "postgresql:///db"),
    ],
)
def test_what_is_refused(name: str, value: str) -> None:
    """A value that makes no sense, or a variable with our prefix that is no setting, is one fault with its name."""
    (fault,) = faults_of(**{name: value})

    assert fault.startswith(f"METERING_{name}")


@pytest.mark.parametrize("value", ["short", "a secret with spaces in it", "geheim-und-schlüssig"])
def test_a_refused_secret_is_not_shown(value: str) -> None:
    """Faults end up in logs; what was meant as a secret does not."""
    (fault,) = faults_of(BOOTSTRAP_KEY=value)

    assert value not in fault


def test_a_refused_url_is_not_shown() -> None:
    """A database URL may hold a password, so a fault of it does not repeat it."""
    (fault,) = faults_of(DATABASE_URL="mysql://user:hunter2@host/db")

    assert "hunter2" not in fault


def test_overrides_win() -> None:
    """What the command line says wins over the variables; what it does not say (None) leaves them."""
    environment = {"METERING_PORT": "9000", "METERING_WORKERS": "3"}

    settings = read_settings(environment, port=9001, workers=None, data_dir=Path("elsewhere"))

    assert Settings(port=9001, workers=3, data_dir=Path("elsewhere")) == settings


def test_an_override_mends_a_fault() -> None:
    """A variable that is overridden is not looked at."""
    assert Settings(port=9001) == read_settings({"METERING_PORT": "abc"}, port=9001)


@pytest.mark.parametrize("overrides", [{"port": 70_000}, {"prot": 9000}])
def test_overrides_are_checked_too(overrides: dict[str, object]) -> None:
    """An option of the command line has the same bounds as its variable."""
    with pytest.raises(ConfigurationError):
        read_settings({}, **overrides)


def settings_in_range() -> st.SearchStrategy[Settings]:
    """Settings that may be given, each field anywhere in its range."""
    secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=40)
    return st.builds(
        Settings,
        database_url=st.sampled_from([None, "postgresql://user:p%40ss@host:5432/db?sslmode=require", "postgres:///db"]),
        data_dir=st.sampled_from(["/var/lib/metering", "relative", ".", "with space/ü"]).map(Path),
        host=st.sampled_from(["127.0.0.1", "::", "localhost", "null"]),
        port=st.integers(0, 65_535),
        workers=st.integers(1, 64),
        pool_connections=st.integers(4, 200),
        bootstrap_key=st.one_of(st.none(), secrets),
        restamp_window_minutes=st.integers(0, 1_440),
        log_level=st.sampled_from(["debug", "info", "warning", "error"]),
        refresh_seconds=st.floats(0.05, 3_600),
        graphql_breadth_first=st.booleans(),
        graphql_introspection=st.booleans(),
        graphql_documents=st.sampled_from(["documents.json", "/etc/with space/ü.json"]).map(Path),
        graphql_only_listed=st.booleans(),
        graphql_cost_per_second=st.one_of(st.none(), st.integers(1, 1_000_000_000)),
    )


@SOME
@given(settings=settings_in_range())
def test_settings_reach_worker_processes(settings: Settings) -> None:
    """The variables that are handed to a worker process make the same settings there."""
    assert settings == read_settings(environment_of(settings))


@pytest.mark.parametrize(
    ("events", "rollups", "found"),
    [
        pytest.param(
            "", "30", "METERING_RETENTION_DAYS is unset, which is for ever. Set it to 30 or less", id="for ever"
        ),
        pytest.param(
            "31", "30", "METERING_RETENTION_DAYS is 31. Set it to 30 or less, or this one to more", id="longer"
        ),
    ],
)
def test_rollups_outlive_their_events(events: str, rollups: str, found: str) -> None:
    """Rollups that would be dropped before their events are a fault that says what to do."""
    (fault,) = faults_of(RETENTION_DAYS=events, ROLLUP_RETENTION_DAYS=rollups)

    assert fault.startswith(f"METERING_ROLLUP_RETENTION_DAYS={rollups}: ")
    assert found in fault


def test_rollups_may_go_with_their_events() -> None:
    """As many days for the rollups as for the events is enough."""
    settings = read_settings({"METERING_RETENTION_DAYS": "30", "METERING_ROLLUP_RETENTION_DAYS": "30"})

    assert (30, 30) == (settings.retention_days, settings.rollup_retention_days)


TOKENS = {"JWT_ISSUER": "https://issuer.test", "JWT_AUDIENCE": "metering"}


@pytest.mark.parametrize(
    "source",
    [
        "https://issuer.test/jwks",
        "http://localhost:80/jwks",
        "http://127.0.0.1/jwks",
        "http://[::1]:8/",
        "jwks.json",
        "/a/b",
    ],
)
def test_where_keys_of_tokens_may_come_from(source: str) -> None:
    """A key set is a file, or an address that nobody on the way can change; and a secret alone will do."""
    given = {f"METERING_{name}": value for name, value in {**TOKENS, "JWT_JWKS": source}.items()}
    shared = {f"METERING_{name}": value for name, value in {**TOKENS, "JWT_SECRET": SECRET}.items()}

    assert source == read_settings(given).jwt_jwks
    assert SECRET == read_settings(shared).jwt_secret
    assert read_settings(given) == read_settings(environment_of(read_settings(given)))


@pytest.mark.parametrize(
    ("given", "begins"),
    [
        ({"KEY_SECRET": "short"}, ["METERING_KEY_SECRET: needs at least 32 bytes"]),
        ({**TOKENS, "JWT_SECRET": "x" * 31}, ["METERING_JWT_SECRET: needs at least 32 bytes"]),
        (TOKENS, ["METERING_JWT_JWKS: is not set, nor is METERING_JWT_SECRET"]),
        ({"JWT_SECRET": SECRET}, ["METERING_JWT_ISSUER: is not set", "METERING_JWT_AUDIENCE: is not set"]),
        ({"JWT_ISSUER": "i", "JWT_JWKS": "f"}, ["METERING_JWT_AUDIENCE: is not set"]),
        (
            {**TOKENS, "JWT_JWKS": "http://issuer.test/"},
            ["METERING_JWT_JWKS: must begin with https://"],
        ),
        (
            {**TOKENS, "JWT_JWKS": "http://localhost.evil/"},
            ["METERING_JWT_JWKS: must begin with"],
        ),
        ({**TOKENS, "JWT_JWKS": "ftp://a/"}, ["METERING_JWT_JWKS: must begin with https://"]),
        (
            {**TOKENS, "JWT_JWKS": "f", "JWT_LEEWAY_SECONDS": "301"},
            ["METERING_JWT_LEEWAY_SECONDS=301: must be between"],
        ),
    ],
)
def test_half_a_configuration_of_tokens(given: dict[str, str], begins: list[str]) -> None:
    """Tokens without an issuer, an audience or a key are refused at the start, not at the first request; so are weak secrets."""
    faults = faults_of(**given)

    assert len(begins) == len(faults)
    assert all(fault.startswith(begin) for fault, begin in zip(faults, begins, strict=True)), faults
