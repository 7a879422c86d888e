"""The command line as an operator meets it: real processes, their exit codes, and what they say."""

import asyncio
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx2
import pytest

from metering.store.embedded import EmbeddedServer
from tests.acceptance.processes import Home, Service, home_in, until
from tests.conftest import ADMIN_KEY, Server, bearer, clean_environment, metering_program, usage_event

_PATIENCE_SECONDS: Final = 30
RunCli = Callable[..., "subprocess.CompletedProcess[str]"]

EVENTS = """
{
  usage(query: { period: { from: "2026-03-01T00:00:00Z", to: "2026-03-02T00:00:00Z" } }) {
    ... on UsageReport { totals { unit events } }
  }
}
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A directory of this test's own; what it starts there ends with it."""
    with home_in(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home in which a service runs for several tests."""
    with home_in(tmp_path_factory.mktemp("standing")) as made:
        made.serve()
        yield made


@pytest.fixture(scope="module")
def service(standing: Home) -> Service:
    """The service that runs for several tests."""
    return standing.services[0]


def events_counted(service: Service) -> int:
    """How many events the service counts on the day of `usage_event`."""
    totals = service.ask(EVENTS)["usage"]["totals"]
    return sum(int(total["events"]) for total in totals)


# ---------------------------------------------------------------- start and stop


def test_serve_prints_one_line_when_it_is_ready_and_stops_in_good_order(home: Home) -> None:
    """Standard output is one line, with the address that answers; SIGTERM ends service and server with exit code 0."""
    service = home.serve()

    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", service.address)
    told = service.ask("{ service { engine checks { name status detail } } }")["service"]
    assert [] == [check for check in told["checks"] if check["status"] != "PASS"], service.stderr
    assert "postgres" == told["engine"]
    service.stop()
    assert f"Ready: {service.address}/graphql\n" == service.stdout
    assert home.postgres is None


def test_ctrl_c_stops_the_server_too(home: Home) -> None:
    """SIGINT ends service and server in good order, with the exit code that shells expect of it."""
    service = home.serve()

    service.signal(signal.SIGINT)

    assert service.ended() == 130
    assert home.postgres is None


def test_a_stop_while_starting_leaves_nothing_running(home: Home) -> None:
    """SIGTERM before the service is ready ends the embedded server as well."""
    service = home.launch()
    until(lambda: home.postgres, 30)

    service.stop()

    assert "" == service.stdout
    assert home.postgres is None


def test_a_killed_service_leaves_its_server_to_the_next(home: Home) -> None:
    """PostgreSQL outlives a SIGKILL of the service, is adopted by the next start, and stops with that."""
    first = home.serve()
    first.send(usage_event())
    postgres = home.postgres

    first.kill()
    assert postgres is not None
    assert postgres == home.postgres

    second = home.serve()
    assert postgres == home.postgres
    assert 1 == events_counted(second)
    second.stop()
    assert home.postgres is None


def test_the_last_service_of_a_data_directory_stops_its_server(home: Home) -> None:
    """Two services share one embedded server: it stays for the second when the first stops."""
    first, second = home.serve(), home.serve()
    first.send(usage_event())
    postgres = home.postgres

    first.stop()

    assert postgres == home.postgres
    assert 1 == events_counted(second)
    second.stop()
    assert home.postgres is None


# ---------------------------------------------------------------- several workers


def test_several_workers_answer_as_one_service(home: Home) -> None:
    """With two workers, what one acknowledged is in the next answer of whichever worker; both tell what both counted; they stop
    together.
    """
    service = home.serve("--workers", "2")

    for number in range(1, 21):
        service.send(usage_event(number))
        # A connection of its own, so that either worker may get it.
        response = httpx2.post(
            f"{service.address}/graphql", json={"query": EVENTS}, headers=bearer(ADMIN_KEY), trust_env=False
        )
        assert [{"unit": "call", "events": str(number)}] == response.json()["data"]["usage"]["totals"]
    for _ in range(4):
        until(lambda: {"metering_processes 2", 'metering_events_total{outcome="accepted"} 20'} <= _metrics(service), 10)
    service.stop()
    assert home.postgres is None


def _metrics(service: Service) -> set[str]:
    """The lines of /metrics, as whichever worker takes a new connection tells them."""
    return set(httpx2.get(f"{service.address}/metrics", headers=bearer(ADMIN_KEY), trust_env=False).text.splitlines())


def test_workers_share_connections_evenly(home: Home) -> None:
    """Of connections opened at once each worker has its part from the first moment on, and so has one that takes the place of
    another.
    """
    service = home.serve("--workers", "2")
    with kept_open(service, 8):
        until(lambda: [4, 4] == sorted(_connections(service).values()), _PATIENCE_SECONDS)
    until(lambda: not any(_connections(service).values()), _PATIENCE_SECONDS)

    killed = next(iter(_connections(service)))
    os.kill(killed, signal.SIGKILL)
    until(lambda: killed not in _workers(service), _PATIENCE_SECONDS)
    until(lambda: {"metering_processes 2"} <= _metrics(service), _PATIENCE_SECONDS)

    def shared() -> bool:
        with kept_open(service, 8):
            return until(lambda: sum(_connections(service).values()) == 8, _PATIENCE_SECONDS) and all(
                _connections(service).values()
            )

    until(shared, _PATIENCE_SECONDS)
    service.stop()


@contextmanager
def kept_open(service: Service, count: int) -> Iterator[None]:
    """So many connections to a service."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port)))
        yield


def _workers(service: Service) -> list[int]:
    """The processes that answer for it, as they are now."""
    children: list[int] = []
    for task in Path(f"/proc/{service.process.pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            children += map(int, (task / "children").read_text().split())
    return [child for child in children if "spawn_main" in _command_line(child)]


def _command_line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        # It has just ended.
        return ""


def _connections(service: Service) -> dict[int, int]:
    """How many connections to its port each worker has."""
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = {f"socket:[{row[9]}]" for row in table if row[1].endswith(f":{service.port:04X}") and row[3] == "01"}
    return {worker: len(ours.intersection(_open_files(worker))) for worker in _workers(service)}


def _open_files(process: int) -> Iterator[str]:
    """What its descriptors are of; those that it closes meanwhile are not."""
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):
            yield str(descriptor.readlink())


def test_workers_end_with_the_process_that_started_them(home: Home) -> None:
    """A SIGKILL of the first process leaves no worker, and nobody on the port."""
    service = home.serve("--workers", "2")
    workers = _workers(service)

    service.kill()

    assert 2 == len(workers)
    until(lambda: not any(map(_command_line, workers)), 10)
    until(lambda: _refused(service), 10)


@pytest.fixture
def narrow_url(servers: dict[str, Server]) -> Iterator[str]:
    """A database that lets no more than two connections in."""
    server = servers["postgres"]
    server.execute("CREATE ROLE narrow LOGIN CONNECTION LIMIT 2")
    server.execute("CREATE DATABASE narrow OWNER narrow")
    url = server.server.url("narrow")
    yield url.replace("postgres@", "narrow@")
    server.drop(url)
    server.execute("DROP ROLE narrow")


def test_workers_share_what_has_a_short_name(home: Home) -> None:
    """Where temporary files lie too deep for a socket, workers meet elsewhere."""
    deep = home.directory / ("deep" * 30)
    deep.mkdir()
    service = home.serve("--workers", "2", TMPDIR=str(deep))
    assert 200 == service.get("/livez").status_code
    service.stop()


def test_workers_that_cannot_start_are_a_failure(home: Home, narrow_url: str) -> None:
    """Where the database has no connection left for a worker, `serve --workers` ends with exit code 1 and says why."""
    service = home.launch("--workers", "3", METERING_DATABASE_URL=narrow_url)

    assert service.ended(60) == 1
    assert "too many connections" in service.stderr
    assert "stopped before it was ready" in service.stderr


def _refused(service: Service) -> bool:
    try:
        service.get("/livez")
    except httpx2.ConnectError:
        return True
    except httpx2.TransportError:
        return False
    return False


# ---------------------------------------------------------------- what stands in the way of a start


def test_a_port_in_use_is_named(home: Home, run_cli: RunCli) -> None:
    """Where something else listens: exit code 1, the address, and what to do; no database is made for nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        ended = run_cli("serve", "--port", str(port), METERING_DATA_DIR=str(home.data_dir))

    assert (1, "") == (ended.returncode, ended.stdout)
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "--port" in ended.stderr
    assert not home.data_dir.exists()


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path, run_cli: RunCli) -> None:
    """Where the data directory cannot be made: exit code 1, its path, the reason, and what to set."""
    (tmp_path / "file").touch()

    ended = run_cli("serve", "--port", "0", "--data-dir", str(tmp_path / "file" / "data"))

    assert (1, "") == (ended.returncode, ended.stdout)
    assert str(tmp_path / "file" / "data") in ended.stderr
    assert "Not a directory" in ended.stderr
    assert "METERING_DATA_DIR" in ended.stderr


def test_a_database_that_is_away_at_the_start_is_named(run_cli: RunCli) -> None:
    """Where nothing answers at METERING_DATABASE_URL: exit code 1, and where nothing answered."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        url = f"postgresql://metering:hidden@127.0.0.1:{port}/metering"
        ended = run_cli("serve", "--port", "0", METERING_DATABASE_URL=url)

    assert (1, "") == (ended.returncode, ended.stdout)
    assert "The database is away" in ended.stderr
    assert str(port) in ended.stderr
    assert "hidden" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_all_faults_of_the_settings_are_named_at_once(run_cli: RunCli) -> None:
    """Bad settings: exit code 2, and a line for each variable."""
    ended = run_cli(
        "serve",
        METERING_PORT="many",
        METERING_WORKERS="0",
        METERING_DATABASE_URL="mysql://db",
        METERING_BOOTSTRAP_KEY="short",
        METERING_PROT="8000",
    )

    assert (2, "") == (ended.returncode, ended.stdout)
    expected = {
        "METERING_PORT",
        "METERING_WORKERS",
        "METERING_DATABASE_URL",
        "METERING_BOOTSTRAP_KEY",
        "METERING_PROT",
    }
    assert expected == set(re.findall(r"^metering: (METERING_[A-Z_]+)", ended.stderr, re.MULTILINE))
    assert "short" not in ended.stderr


# ---------------------------------------------------------------- the database goes away and comes back


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A database server that the service does not start or stop."""
    server = EmbeddedServer(tmp_path / "elsewhere")
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_the_service_outlives_its_database(home: Home, elsewhere: EmbeddedServer) -> None:
    """While the database is away every answer says so and nothing is acknowledged; when it is back, so is the service."""
    service = home.serve(METERING_DATABASE_URL=elsewhere.url())
    service.send([usage_event(number) for number in range(100)])

    elsewhere.stop()
    refused = service.post("/v1/events", [usage_event(number) for number in range(100, 200)])
    asked = service.post("/graphql", {"query": EVENTS})
    unknown = service.post("/graphql", {"query": EVENTS}, key="a-key-that-nobody-has-looked-up")
    ready = service.get("/readyz")

    assert "database_unavailable" == _code_of_problem(refused)
    assert 503 == asked.status_code
    assert "1" == asked.headers["Retry-After"]
    assert "DATABASE_UNAVAILABLE" == asked.json()["errors"][0]["extensions"]["code"]
    assert (503, "1") == (unknown.status_code, unknown.headers["Retry-After"])
    assert "DATABASE_UNAVAILABLE" == unknown.json()["errors"][0]["extensions"]["code"]
    assert 200 == service.get("/livez").status_code
    assert (503, "FAIL") == (ready.status_code, ready.json()["status"])

    elsewhere.start()
    until(lambda: service.get("/readyz").status_code == 200, 15)
    assert 100 == events_counted(service)
    receipt = service.send([usage_event(number) for number in range(50, 200)])
    assert (100, 50) == (receipt["accepted"], receipt["duplicates"])
    assert 200 == events_counted(service)
    service.stop()


def is_alive(pid: int) -> bool:
    """Whether a process works; one that has ended and that nobody has asked about since does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_server_that_was_killed_starts_again_whatever_it_was_about(elsewhere: EmbeddedServer) -> None:
    """A query that would go on for an hour outlives the server that was killed, and its log; the next start ends it."""

    async def leave_behind() -> int:
        # Should this fail, it does not go on for ever.
        connection = await asyncpg.connect(elsewhere.url(), server_settings={"statement_timeout": "120s"})
        pid = connection.get_server_pid()
        text = (
            "WITH endless AS (SELECT generate_series(1, 1000000000000)) SELECT count(*) /*\n"
            + "more than a tail of the log\n" * 30
            + "*/ FROM endless"
        )
        asking = asyncio.create_task(connection.fetchval(text))
        looking = await asyncpg.connect(elsewhere.url())
        async with asyncio.timeout(_PATIENCE_SECONDS):
            # Another session tells when it has begun.
            while "active" != await looking.fetchval("SELECT state FROM pg_stat_activity WHERE pid = $1", pid):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert elsewhere.pid is not None
        os.kill(elsewhere.pid, signal.SIGKILL)
        looking.terminate()
        connection.terminate()
        with pytest.raises(asyncpg.PostgresConnectionError):
            await asking
        return pid

    left_behind = asyncio.run(leave_behind())
    elsewhere.stop()
    assert is_alive(left_behind)

    elsewhere.start()

    assert not is_alive(left_behind)
    assert elsewhere.pid is not None


def test_a_stop_while_the_database_is_away_is_quick(home: Home, elsewhere: EmbeddedServer) -> None:
    """SIGTERM ends the service in time also when it cannot say goodbye to its database."""
    service = home.serve(METERING_DATABASE_URL=elsewhere.url())

    elsewhere.stop()

    service.stop()


def _code_of_problem(response: httpx2.Response) -> str:
    """The code of a problem that asks to be tried again."""
    assert response.status_code == 503
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Retry-After"] == "1"
    code: str = response.json()["code"]
    return code


# ---------------------------------------------------------------- keys


def test_keys_are_made_listed_and_revoked_beside_a_running_service(
    standing: Home, service: Service, run_cli: RunCli
) -> None:
    """A new key works at once; a revoked one is refused within five seconds; the running server stays as it is."""
    data_dir = str(standing.data_dir)
    postgres = standing.postgres
    event = usage_event(account="keys")

    created = run_cli("keys", "create", "--name", "ci", "--scope", "USAGE_WRITE", METERING_DATA_DIR=data_dir)
    secret, prefix = _secret_of(created)
    assert 200 == service.post("/v1/events", event, key=secret).status_code

    listed = run_cli("keys", "list", METERING_DATA_DIR=data_dir, COLUMNS="200")
    assert 0 == listed.returncode, listed.stderr
    assert any(prefix in line and "ci" in line and "USAGE_WRITE" in line for line in listed.stdout.splitlines())
    assert secret not in listed.stdout

    revoked = run_cli("keys", "revoke", prefix, METERING_DATA_DIR=data_dir)
    assert 0 == revoked.returncode, revoked.stderr
    until(lambda: service.post("/v1/events", event, key=secret).status_code == 401, 5)
    assert postgres == standing.postgres


def test_a_key_that_does_not_exist_cannot_be_revoked(standing: Home, run_cli: RunCli) -> None:
    """Revoking what is not there is a failure that says how to find what is."""
    ended = run_cli("keys", "revoke", "mk_00000000", METERING_DATA_DIR=str(standing.data_dir))

    assert (1, "") == (ended.returncode, ended.stdout)
    assert "mk_00000000" in ended.stderr
    assert "keys list" in ended.stderr


def _secret_of(created: "subprocess.CompletedProcess[str]") -> tuple[str, str]:
    assert created.returncode == 0, created.stderr
    secret = created.stdout.splitlines()[0]
    return secret, "_".join(secret.split("_")[:2])


# ---------------------------------------------------------------- doctor, migrate, help


def test_doctor_names_the_engine(standing: Home, service: Service, run_cli: RunCli) -> None:
    """`metering doctor` finds nothing wrong with a running installation, and says which engine it is on."""
    assert 200 == service.get("/readyz").status_code

    ended = run_cli("doctor", METERING_DATA_DIR=str(standing.data_dir), COLUMNS="200")

    assert 0 == ended.returncode, ended.stdout + ended.stderr
    assert re.search(r"engine\W+PASS\W+postgres", ended.stdout), ended.stdout
    assert "embedded" in ended.stdout


def test_migrate_may_be_run_again(empty_database_url: str, engine: str, run_cli: RunCli) -> None:
    """`metering migrate` says where it has brought the database, and the second time that it is there."""
    first = run_cli("migrate", METERING_DATABASE_URL=empty_database_url)
    second = run_cli("migrate", METERING_DATABASE_URL=empty_database_url)

    assert (0, 0) == (first.returncode, second.returncode), first.stderr + second.stderr
    assert re.fullmatch(rf"The database is at revision \S+, on the engine {engine}\.\n", first.stdout)
    assert first.stdout == second.stdout


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "demo",
        "migrate",
        "import",
        "keys",
        "keys create",
        "keys list",
        "keys revoke",
        "doctor",
        "work",
        "status",
    ],
)
def test_every_command_shows_an_example(command: str, run_cli: RunCli) -> None:
    """`--help` of every command has an example of it."""
    shown = run_cli(*command.split(), "--help", COLUMNS="200")

    assert 0 == shown.returncode, shown.stderr
    assert re.search(rf"Example: (\w+=\S+ )*metering {command}", shown.stdout), shown.stdout


# ---------------------------------------------------------------- import


def test_import_names_the_lines_that_were_refused(service: Service, tmp_path: Path, run_cli: RunCli) -> None:
    """The good lines of a file are in, the bad ones are named by their numbers in the file, and the exit code is 1."""
    head = '"source": "file", "account": "import", "product": "maps", "unit": "call"'
    file = tmp_path / "usage.ndjson"
    file.write_text(
        f'{{"id": "1", "occurred_at": "2026-03-01T12:00:00Z", {head}}}\n'
        "not an event\n"
        "\n"
        f'{{"id": "4", "occurred_at": "2026-03-01T12:00:00", {head}}}\n'
        f'{{"id": "5", "occurred_at": "2026-03-01T12:00:00Z", {head}, "quantity": "a few"}}\n'
        f'{{"id": "6", "occurred_at": "2026-03-01T12:00:00Z", {head}}}\n'
    )

    ended = _import(run_cli, service, file)

    assert (1, "2 accepted, 0 duplicates, 3 rejected.\n") == (ended.returncode, ended.stdout)
    named = re.findall(r"^line (\d+): (\w+) \((\w+)\): .+", ended.stderr, re.MULTILINE)
    expected = [
        ("2", "malformed", "event"),
        ("4", "time_naive", "occurred_at"),
        ("5", "quantity_not_a_number", "quantity"),
    ]
    assert expected == named


def test_import_reads_csv_as_spreadsheets_write_it(service: Service, tmp_path: Path, run_cli: RunCli) -> None:
    """A byte order mark, quoted cells, empty cells and CRLF are understood; attributes have columns of their own."""
    file = tmp_path / "usage.csv"
    file.write_bytes(
        b"\xef\xbb\xbfid,source,occurred_at,account,device,product,unit,quantity,attributes.region\r\n"
        b'1,csv,2026-03-01T12:00:00Z,"acme, inc.",,maps,call,0.1,eu\r\n'
        b'2,csv,2026-03-01T12:00:00Z,"acme, inc.","a ""b""",maps,call,0.2,\r\n'
    )

    ended = _import(run_cli, service, file)

    assert (0, "2 accepted, 0 duplicates, 0 rejected.\n") == (ended.returncode, ended.stdout), ended.stderr
    query = """
    { events(query: {
        period: { from: "2026-03-01T00:00:00Z", to: "2026-03-02T00:00:00Z" }
        filter: { account: { in: ["acme, inc."] } }
      }) { nodes { eventId device quantity attributes } } }
    """
    expected = [
        {"eventId": "1", "device": None, "quantity": "0.1", "attributes": {"region": "eu"}},
        {"eventId": "2", "device": 'a "b"', "quantity": "0.2", "attributes": None},
    ]
    assert expected == sorted(service.ask(query)["events"]["nodes"], key=lambda node: node["eventId"])


def test_import_of_signals_tells_every_fault_by_its_line(service: Service, tmp_path: Path, run_cli: RunCli) -> None:
    """What is wrong with a signal is told by its line, here and by the service, and keeps no other back; again is no harm."""
    head = '"subject": "ACCOUNT", "key": "told", "name": "nps", "source": "survey"'
    file = tmp_path / "signals.ndjson"
    file.write_text(
        f'{{{head}, "value": 9, "at": "2026-03-01T12:00:00Z", "external_id": "1"}}\n'
        "not a signal\n"
        f'{{{head}, "value": "nine", "at": "2026-03-01T12:00:00", "external_id": "3"}}\n'
        "\n"
        f'{{{head}, "value": 9, "at": "2099-03-01T12:00:00Z", "external_id": ""}}\n'
        f'{{{head}, "value": 8, "at": "2026-03-02T12:00:00Z", "external_id": "6"}}\n'
    )
    table = tmp_path / "signals.csv"
    table.write_text(
        "subject,key,account,name,value,at,source,external_id,note\n"
        "ACCOUNT,told,,nps,8,2026-03-02T12:00:00Z,survey,6,\n"
        "USER,ana,told,csat,4.5,2026-03-02T12:00:00Z,survey,7,glad\n"
    )

    ended = [_import(run_cli, service, each, "--signals") for each in (file, file, table)]

    assert [
        (1, "2 accepted, 0 duplicates, 3 refused.\n"),
        (1, "0 accepted, 2 duplicates, 3 refused.\n"),
        (0, "1 accepted, 1 duplicates, 0 refused.\n"),
    ] == [(each.returncode, each.stdout) for each in ended], ended[0].stderr
    named = re.findall(r"^line (\d+): (\w+): .+", ended[0].stderr, re.MULTILINE)
    expected = [("2", "signal"), ("3", "value"), ("3", "at"), ("5", "external_id"), ("5", "at")]
    assert expected == named


def test_import_with_a_wrong_key_says_so(service: Service, tmp_path: Path, run_cli: RunCli) -> None:
    """A key that is not known: exit code 1, no second try, nothing else."""
    file = tmp_path / "usage.ndjson"
    file.write_text("{}\n")

    ended = _import(run_cli, service, file, METERING_KEY="not-a-key-of-this-service")

    assert (1, "") == (ended.returncode, ended.stdout)
    assert "401" in ended.stderr
    assert "This key is not known" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.ndjson", None, ["absent.ndjson: cannot be read: No such file"]),
        ("usage.xls", b"", ["usage.xls: is not .ndjson, .jsonl or .csv; say --format"]),
        ("absent.xls", None, ["absent.xls: is not .ndjson", "absent.xls: cannot be read: No such file"]),
        ("usage.csv", b"id,colour,size\n1,2,3\n", ["colour: is no field", "size: is no field", "attributes.<name>"]),
        ("long.csv", b"id,account\n1,a\n2,b,c\n", ["line 3: has more cells than the first row"]),
        ("latin.csv", b"id,account\n1,caf\xe9\n", ["latin.csv: cannot be read after line 0"]),
        ("open.csv", b'id,account\n1,a\n2,"b\n', ["open.csv: cannot be read after line 2"]),
        ("cut.ndjson.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff", ["cut.ndjson.gz: cannot be read after line 0"]),
    ],
)
def test_import_says_what_is_wrong_with_a_file(
    service: Service, tmp_path: Path, run_cli: RunCli, name: str, content: bytes | None, said: list[str]
) -> None:
    """A file that cannot be taken: exit code 1, and every fault in a sentence of its own."""
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)

    ended = _import(run_cli, service, file)

    assert (1, "") == (ended.returncode, ended.stdout)
    assert [] == [sentence for sentence in said if sentence not in ended.stderr], ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://127.0.0.1:80000"])
def test_import_says_what_is_no_address(service: Service, tmp_path: Path, run_cli: RunCli, url: str) -> None:
    """What can never be reached is refused at once, instead of being tried for minutes."""
    file = tmp_path / "usage.ndjson"
    file.write_text("{}\n")

    ended = _import(run_cli, service, file, METERING_URL=url)

    assert (1, "") == (ended.returncode, ended.stdout)
    assert f"{url!r} is not the address of a service" in ended.stderr


def test_import_waits_for_a_service_that_is_away(home: Home, tmp_path: Path) -> None:
    """An import that finds nobody says so, keeps trying, and goes through when the service is there."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    file, said = tmp_path / "usage.csv", tmp_path / "said"
    file.write_text("id,source,occurred_at,account,product,unit\n1,a,2026-03-01T12:00:00Z,acme,maps,call\n")
    url = f"http://127.0.0.1:{port}"
    with said.open("wb") as stderr:
        importing = subprocess.Popen(
            [metering_program(), "import", str(file), "--url", url],
            env=clean_environment(METERING_KEY=ADMIN_KEY),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        until(lambda: "trying again" in said.read_text(), 30)
        home.serve("--port", str(port))
        stdout, _ = importing.communicate(timeout=30)
    finally:
        importing.kill()
        importing.wait()

    assert (0, "1 accepted, 0 duplicates, 0 rejected.\n") == (importing.returncode, stdout), said.read_text()


def _import(
    run_cli: RunCli, service: Service, file: Path, *options: str, **variables: Any
) -> "subprocess.CompletedProcess[str]":
    return run_cli(
        "import", str(file), *options, **{"METERING_URL": service.address, "METERING_KEY": ADMIN_KEY, **variables}
    )
