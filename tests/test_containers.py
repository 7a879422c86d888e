"""The image, the compose file and what nginx reads: pinned, without secrets, not root, and started in the right order.

No container engine is needed: the files are read as text, and the health check's command is run as it stands there.
PyYAML is not among our locked packages, so the compose file is kept in a plain form that a few lines can read.
"""

import http.server
import json
import math
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from metering.limits import LIMITS

ROOT = Path(__file__).parents[1]
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|KEY")
INTERPOLATION = re.compile(r"\$\{([A-Z_]+)(:[?-])?([^}]*)\}")


def compose() -> dict[str, Any]:
    """docker-compose.yml, read: mappings, lists of scalars, and JSON's own forms; anything else fails."""
    text = (ROOT / "docker-compose.yml").read_text()
    content = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    lines = [(len(line) - len(line.lstrip()), line.strip()) for line in content]
    parsed = _block(lines)
    assert lines == []
    assert isinstance(parsed, dict)
    return parsed


def _block(lines: list[tuple[int, str]]) -> dict[str, Any] | list[Any]:
    """Take the lines of one block from the front: those of the first one's indentation, with what is below them."""
    indentation = lines[0][0]
    items: list[Any] = []
    while lines and lines[0][0] == indentation and lines[0][1].startswith("- "):
        items.append(_scalar(lines.pop(0)[1].removeprefix("- ")))
    if items:
        return items
    mapping: dict[str, Any] = {}
    while lines and lines[0][0] == indentation:
        key, colon, value = lines.pop(0)[1].partition(":")
        assert colon, f"{key!r} is not a mapping's line"
        below = bool(lines) and lines[0][0] > indentation
        mapping[key] = _scalar(value.strip()) if value.strip() else _block(lines) if below else None
    return mapping


def _scalar(text: str) -> Any:
    return json.loads(text) if text[0] in '["{' else text


def dockerfile() -> list[list[tuple[str, str]]]:
    """The Dockerfile's stages, each a list of instructions with their arguments; what precedes the first is first."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    stages: list[list[tuple[str, str]]] = [[]]
    for line in text.splitlines():
        instruction, _, arguments = line.strip().partition(" ")
        if instruction == "FROM":
            stages.append([])
        if instruction:
            stages[-1].append((instruction, " ".join(arguments.split())))
    return stages


def image_health_check() -> list[str]:
    """The command of the Dockerfile's HEALTHCHECK."""
    _, _, command = dict(dockerfile()[-1])["HEALTHCHECK"].partition(" CMD ")
    words: list[str] = json.loads(command)
    return words


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server on this port that answers /readyz with this status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


# ---------------------------------------------------------------- docker-compose.yml


def test_database_is_a_pinned_community_edition() -> None:
    """The database's image names a version, and is not the Apache edition (-oss), which has no continuous aggregates."""
    assert re.fullmatch(r"timescale/timescaledb:\d+\.\d+\.\d+-pg\d+", compose()["services"]["database"]["image"])


def test_database_keeps_its_data_in_the_volume() -> None:
    """The volume is mounted where PostgreSQL 18's images keep their data; one level deeper it would stay empty."""
    file = compose()

    assert file["services"]["database"]["volumes"] == ["database-data:/var/lib/postgresql"]
    assert "database-data" in file["volumes"]


def test_database_is_healthy_only_when_it_answers_over_tcp() -> None:
    """A new database's temporary server, which answers on the Unix socket only, does not count as healthy."""
    command = compose()["services"]["database"]["healthcheck"]["test"]

    assert command[:2] == ["CMD", "pg_isready"]
    assert "--host=127.0.0.1" in command


def test_migrate_runs_once_between_the_database_and_the_service() -> None:
    """The service starts when one run of `metering migrate` has succeeded on a healthy database."""
    services = compose()["services"]

    assert services["migrate"]["command"] == ["migrate"]
    assert services["migrate"]["restart"] == "no"
    assert services["migrate"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert services["service"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert services["service"]["image"] == services["migrate"]["image"]


def test_migrate_and_service_use_the_same_database() -> None:
    """What was migrated is what is served: one URL, to the database of this file, as the role that the image makes."""
    services = compose()["services"]
    url = services["service"]["environment"]["METERING_DATABASE_URL"]
    made = services["database"]["environment"]

    assert services["migrate"]["environment"]["METERING_DATABASE_URL"] == url
    assert url == (
        f"postgresql://{made['POSTGRES_USER']}:{made['POSTGRES_PASSWORD']}@database:5432/{made['POSTGRES_DB']}"
    )


def test_no_secret_is_in_the_compose_file() -> None:
    """Each secret comes from outside, and the password has no default: without one, Compose stops and says so."""
    environments = [service.get("environment", {}) for service in compose()["services"].values()]
    secrets = [value for values in environments for name, value in values.items() if SECRET_NAME.search(name)]
    passwords = [match for match in INTERPOLATION.findall(json.dumps(environments)) if match[0] == "POSTGRES_PASSWORD"]

    assert secrets
    assert [value for value in secrets if not INTERPOLATION.fullmatch(value)] == []
    assert passwords
    assert {operator for _, operator, _ in passwords} == {":?"}


def test_env_example_names_what_the_compose_file_asks_for() -> None:
    """.env.example has a line for each variable of the compose file, no other, and no value for a secret."""
    asked = {name for name, _, _ in INTERPOLATION.findall((ROOT / "docker-compose.yml").read_text())}
    lines = re.findall(r"^#?([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)

    assert {name for name, _ in lines} == asked
    assert [name for name, value in lines if SECRET_NAME.search(name) and value] == []


def test_only_what_clients_ask_is_published_and_only_to_this_machine() -> None:
    """The published ports, of a service and of the proxy, are bound to the loopback address; the database has none."""
    services = compose()["services"]

    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "service": ["127.0.0.1:8000:8000"],
        "proxy": ["127.0.0.1:8080:8080"],
    }


def test_service_is_given_the_time_to_stop() -> None:
    """The engine waits longer before it kills than the service takes to write what it has accepted."""
    grace_seconds = int(compose()["services"]["service"]["stop_grace_period"].removesuffix("s"))

    assert grace_seconds > LIMITS.shutdown_seconds_max


# ---------------------------------------------------------------- several machines


def test_profile_many_adds_a_service_and_the_proxy() -> None:
    """Without the profile there is one service and no proxy; with it two that differ in nothing but the published port."""
    services = compose()["services"]
    first, second = services["service"], services["second"]

    assert {name for name, service in services.items() if "profiles" in service} == {"second", "proxy"}
    assert services["proxy"]["profiles"] == ["many"]
    assert {**first, "profiles": ["many"]} == {**second, "ports": first["ports"]}


def test_proxy_runs_the_committed_files_with_nothing_of_the_machines() -> None:
    """Its image is pinned, it reads deploy/nginx and cannot change it, is not root, and starts when both services are healthy."""
    proxy = compose()["services"]["proxy"]
    user, _, group = proxy["user"].partition(":")

    assert re.fullmatch(r"nginx:\d+\.\d+\.\d+-alpine-slim", proxy["image"])
    assert proxy["volumes"] == ["./deploy/nginx:/etc/nginx:ro"]
    assert (ROOT / "deploy" / "nginx" / "nginx.conf").is_file()
    assert int(user) > 0
    assert int(group) > 0
    assert (proxy["read_only"], proxy["cap_drop"]) == ("true", ["ALL"])
    assert proxy["depends_on"] == {name: {"condition": "service_healthy"} for name in ("service", "second")}


def test_proxy_asks_the_services_of_the_compose_file() -> None:
    """upstream.conf names both services and their port, site.conf listens where the proxy is published and checked."""
    services = compose()["services"]
    upstream = nginx_values("upstream.conf", "server")
    published = services["proxy"]["ports"][0].rpartition(":")[2]

    assert [value.split()[0] for value in upstream] == ["service:8000", "second:8000"]
    assert nginx_values("site.conf", "listen") == [published]
    assert services["proxy"]["healthcheck"]["test"][-1] == f"http://127.0.0.1:{published}/readyz"


def nginx_values(file: str, directive: str) -> list[str]:
    """What a file of deploy/nginx says for a directive, in every place."""
    text = (ROOT / "deploy" / "nginx" / "metering" / file).read_text()
    return re.findall(rf"^\s*{directive} ([^;]+);", text, re.MULTILINE)


def test_proxy_takes_bodies_as_large_as_the_service_does() -> None:
    """Events and questions have in nginx the sizes that they have in the service, in this order."""
    mebibytes = [LIMITS.body_bytes_max // 1024**2, LIMITS.graphql_body_bytes_max // 1024**2]

    assert nginx_values("server.conf", "client_max_body_size") == [f"{size}m" for size in mebibytes]
    assert nginx_values("server.conf", "client_body_buffer_size") == [f"{mebibytes[1]}m"]


def test_proxy_waits_longer_than_the_service_takes() -> None:
    """Whoever is slow is told so by the service, and no answer, stream or WebSocket that is on its way is broken off."""
    waits = [
        int(nginx_values("server.conf", directive)[0].removesuffix("s"))
        for directive in ("client_body_timeout", "proxy_send_timeout", "proxy_read_timeout")
    ]
    longest = max(
        LIMITS.body_seconds_max,
        LIMITS.graphql_seconds_max + LIMITS.door_seconds_max,
        LIMITS.write_seconds_max,
        LIMITS.live_silence_seconds_max,
        # What a WebSocket is asked whether it is still there by.
        uvicorn.Config("").ws_ping_interval or math.inf,
    )

    assert min(waits) > longest


def test_proxy_never_keeps_an_idle_connection_as_long_as_the_service() -> None:
    """It closes an idle connection to a service before the service does: no request meets one that is being closed."""
    times = nginx_values("server.conf", "keepalive_timeout")

    assert int(times[0].removesuffix("s")) < uvicorn.Config("").timeout_keep_alive


# ---------------------------------------------------------------- Dockerfile


def test_image_is_built_on_a_pinned_python() -> None:
    """Both stages stand on the same image, named by patch release and Debian release (a digest may follow)."""
    before, *stages = dockerfile()
    assert len(before) == 1
    instruction, argument = before[0]

    assert instruction == "ARG"
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.12\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", argument)
    assert [stage[0] for stage in stages] == [("FROM", "${PYTHON_IMAGE} AS build"), ("FROM", "${PYTHON_IMAGE}")]


def test_image_holds_exactly_what_the_locks_say() -> None:
    """Each lock is installed with its hashes, without resolving or compiling; nothing else comes from an index."""
    runs = " && ".join(arguments for stage in dockerfile() for name, arguments in stage if name == "RUN").split(" && ")
    installs = [run for run in runs if re.search(r"\bpip\b.* install\b", run)]
    locked = [run for run in installs if run.endswith(".lock")]

    assert [run.split()[-1] for run in locked] == ["requirements-build.lock", "requirements-runtime.lock"]
    assert all("--no-deps --require-hashes --only-binary :all: -r" in run for run in locked)
    assert [run.split()[-2:] for run in installs if run not in locked] == [["--no-deps", "dist/metering-*.whl"]]


def test_image_has_nothing_to_build_with() -> None:
    """The last stage installs nothing: its one command makes the user, and the rest is copied from the build."""
    last = dockerfile()[-1]
    runs = [arguments for name, arguments in last if name == "RUN"]
    copies = [arguments for name, arguments in last if name in {"COPY", "ADD"}]

    assert [command.split()[0] for run in runs for command in run.split(" && ")] == ["groupadd", "useradd"]
    assert copies == ["--from=build /opt/metering /opt/metering"]


def test_image_does_not_run_as_root() -> None:
    """The user is fixed, by number, and is the one that was made."""
    last = dockerfile()[-1]
    user, _, group = dict(last)["USER"].partition(":")

    assert int(user) > 0
    assert int(group) > 0
    assert f"useradd --uid {user} --gid {group} " in dict(last)["RUN"]


def test_image_serves_and_stops_on_sigterm() -> None:
    """Without arguments the image serves on every address of its container, and SIGTERM stops it."""
    last = dict(dockerfile()[-1])

    assert json.loads(last["ENTRYPOINT"]) == ["metering"]
    assert json.loads(last["CMD"]) == ["serve", "--host", "0.0.0.0"]  # noqa: S104 - inside the container
    assert last["EXPOSE"] == "8000"
    assert last["STOPSIGNAL"] == "SIGTERM"


def test_build_sees_what_the_wheel_needs_and_nothing_else() -> None:
    """.dockerignore lets through what it names: the packages, their project files and the locks; never .env or .git."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = ["pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]]
    locks = ["requirements-build.lock", "requirements-runtime.lock"]
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]

    assert patterns[0] == "*"
    assert {pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")} == {*packages, *files, *locks}


# ---------------------------------------------------------------- the health check


def test_compose_file_and_image_have_the_same_health_check() -> None:
    """Images in the OCI format do not carry HEALTHCHECK, so the compose file says it again, word for word."""
    check = compose()["services"]["service"]["healthcheck"]
    options = dict(re.findall(r"--([a-z-]+)=(\S+)", dict(dockerfile()[-1])["HEALTHCHECK"].partition(" CMD ")[0]))

    assert check.pop("test") == ["CMD", *image_health_check()]
    assert {name.replace("_", "-"): value for name, value in check.items()} == options


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_health_check_follows_readyz(status: int, healthy: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    """The check passes when /readyz answers 200 and fails when it answers 503, whatever proxy is set."""
    program, *arguments = image_health_check()
    with answering(status) as port:
        environment = {**os.environ, "METERING_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
        checked = subprocess.run([sys.executable, *arguments], env=environment, check=False, capture_output=True)

    assert program == "python"
    assert (checked.returncode == 0) == healthy


def test_health_check_fails_when_nothing_listens() -> None:
    """The check fails where there is no service."""
    with answering(200) as port:
        pass
    environment = {**os.environ, "METERING_PORT": str(port)}
    checked = subprocess.run(
        [sys.executable, *image_health_check()[1:]], env=environment, check=False, capture_output=True
    )

    assert checked.returncode != 0
