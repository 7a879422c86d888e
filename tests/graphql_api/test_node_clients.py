"""Programs of others: the audits of graphql-http, and the clients graphql-ws and graphql-sse, against a real port.

They are written for Node, so where there is none, or its packages cannot be had, these tests are skipped and say so.
test_media_types.py, test_bounds.py and test_live.py ask for the same in our own words.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import ADMIN_KEY, ENGINES, Server, usage_event
from tests.graphql_api.serving import serving
from tests.graphql_api.test_live import TOTALS, send, totals

PACKAGES: Final = ("graphql-http@1.23.1", "graphql@16.15.0", "graphql-ws@6.4.2", "graphql-sse@2.6.1", "ws@8.23.0")
SCRIPTS: Final = Path(__file__).parent / "node"
INSTALL_SECONDS_MAX: Final = 120
RUN_SECONDS_MAX: Final = 60
AUDITS: Final = 61

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run one of our scripts with these arguments, and read the JSON that it writes."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no node and npm here")
    folder = tmp_path_factory.mktemp("node")
    shutil.copytree(SCRIPTS, folder, dirs_exist_ok=True)
    (folder / "package.json").write_text('{"private": true}')
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    try:
        installed = subprocess.run(install, cwd=folder, capture_output=True, check=False, timeout=INSTALL_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {', '.join(PACKAGES)} in time")
    if installed.returncode != 0:
        pytest.skip(f"npm could not install {', '.join(PACKAGES)}")

    def run_script(name: str, *arguments: str) -> Any:
        done = subprocess.run(
            [node, name, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=RUN_SECONDS_MAX
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run_script


@pytest.fixture(scope="module")
def address(servers: dict[str, Server]) -> Iterator[str]:
    """The service behind a port, with two events."""
    with servers[ENGINES[0]].cloned() as url, serving(url) as served:
        send(served, usage_event(1, user="ada"), usage_event(2, user="bob"))
        yield served


def test_every_audit_of_graphql_over_http_is_passed(run: Run, address: str) -> None:
    """What the specification says that a server must, should and may do: all of it."""
    results = run("audits.mjs", f"http://{address}/graphql")

    assert [] == [result for result in results if result["status"] != "ok"]
    assert AUDITS == len(results)


def test_clients_of_both_protocols_understand_us(run: Run, address: str) -> None:
    """A live question, a query, and one that is not valid: what graphql-ws and graphql-sse make of our answers."""
    answers = run("live.mjs", address, f"Bearer {ADMIN_KEY}", TOTALS)

    for answer in answers.values():
        assert totals("2", 2) == answer["live"]["data"]
        assert [{"service": {"engine": ENGINES[0]}}] == [result["data"] for result in answer["query"]]
    wrong = [answers["sockets"]["wrong"], answers["streams"]["wrong"][0]["errors"]]
    assert [["GRAPHQL_INVALID"]] * 2 == [[error["extensions"]["code"] for error in errors] for errors in wrong]
