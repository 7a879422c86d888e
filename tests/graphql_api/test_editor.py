"""The page at /graphql: nothing from any other host, and no script that is not ours; built or not."""

import json
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from graphql_api.editor import FILES_PATH, HERE, Editor
from tests.conftest import ENGINES, Api, Server, running
from tests.graphql_api.api_guide import GUIDE, sections

SOURCES: Final = Path(__file__).parents[2] / "editor"
PERIOD: Final = 'period: { from: "2026-03-01T00:00:00Z", to: "2026-03-02T00:00:00Z" }'
PAGE: Final = (
    f'<!doctype html><title>Built</title><script type="module" src="{FILES_PATH}/assets/index-1a2b.js"></script>'
)


@pytest.fixture(scope="module")
def web(servers: dict[str, Server]) -> Iterator[Api]:
    """The service, for tests that only ask."""
    with servers[ENGINES[0]].cloned() as url, running(url) as api:
        yield api


def served(built: Path) -> TestClient:
    """The editor of this folder alone, as the application wires it."""
    editor = Editor(built)

    def page(_request: Request) -> Response:
        return editor.page()

    return TestClient(Starlette(routes=[Route("/graphql", page), Mount(FILES_PATH, editor.files)]))


def policy_of(client: TestClient) -> dict[str, str]:
    """The page's policy, by directive."""
    policy = client.get("/graphql").headers["content-security-policy"]
    return dict(part.strip().split(" ", 1) for part in policy.split(";"))


def test_the_front_door_leads_to_the_editor(web: Api) -> None:
    """In a browser / leads to /graphql, a page of its own that takes nothing from any other host, and needs no key."""
    page = web.client.get("/")

    assert (200, "/graphql") == (page.status_code, page.url.path)
    assert page.headers["content-type"].startswith("text/html")
    assert "<title>Metering" in page.text
    assert [] == re.findall(r"""https?://|(?:src|href|action)=["']?//|@import""", page.text)
    assert "http" not in page.headers["content-security-policy"]
    assert "'none'" == policy_of(web.client)["default-src"]


def test_the_small_page_runs_its_own_script_and_no_other(tmp_path: Path) -> None:
    """Where the editor is not built, its place is taken by a page that says so; of scripts and styles a browser runs the one
    of each that is in it, known by its hash.
    """
    client = served(tmp_path)
    page, policy = client.get("/graphql").text, policy_of(client)
    for kind in ("script", "style"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        assert f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" == policy[f"{kind}-src"]

    assert "make editor" in page
    assert [] == re.findall(r"<[^>]* (?:on\w+|style)=", page)
    assert 404 == client.get(f"{FILES_PATH}/index.html").status_code


def test_the_small_page_s_examples_are_good_questions(web: Api) -> None:
    """Each example that it offers is answered without errors."""
    page = (HERE / "editor.html").read_text(encoding="utf-8")
    examples = re.findall(r'^  "[^"]+": `(.*)`,$', page, re.MULTILINE)

    assert len(examples) > 2
    assert re.search(r"const period = `(.*)`;", page)
    for example in examples:
        assert web.ask(example.replace("\\n", "\n").replace("${period}", PERIOD))


def test_what_was_built_is_served_from_next_door(tmp_path: Path) -> None:
    """The built page runs scripts of this host only; its files come with their types, to be kept, and nothing else comes."""
    built = tmp_path / "built"
    (built / "assets").mkdir(parents=True)
    (built / "index.html").write_text(PAGE)
    (built / "assets" / "index-1a2b.js").write_text("export {};")
    (tmp_path / "secret.js").write_text("secret")
    client = served(built)
    script = client.get(f"{FILES_PATH}/assets/index-1a2b.js")
    policy = policy_of(client)

    assert PAGE == client.get("/graphql").text
    assert ("'self'", "'self'") == (policy["script-src"], policy["worker-src"])
    assert script.headers["content-type"].startswith("text/javascript")
    assert ("nosniff", True) == (
        script.headers["x-content-type-options"],
        "immutable" in script.headers["cache-control"],
    )
    for elsewhere in ("assets/other.js", "../secret.js", "%2e%2e/secret.js", "assets/../../secret.js"):
        assert 404 == client.get(f"{FILES_PATH}/{elsewhere}").status_code


def test_the_editor_offers_every_question_of_the_guide() -> None:
    """editor/examples.js finds each document of docs/api.md, below the sentence that it is the answer to."""
    text = GUIDE.read_text(encoding="utf-8")
    (pattern,) = re.findall(r"matchAll\(/(.*)/gs\)", (SOURCES / "examples.js").read_text(encoding="utf-8"))
    titles = [title for title, _ in re.findall(pattern, text, re.DOTALL)]

    assert sum(len(section.asked) for section in sections(text)) == len(titles)
    assert [] == [title for title in titles if not title.endswith((".", "?")) or title.startswith(("#", "`", "|"))]


def test_what_the_editor_is_built_of_is_locked() -> None:
    """editor/package-lock.json pins everything by version and hash, as package.json asks for it, and not from where."""
    lock = json.loads((SOURCES / "package-lock.json").read_text(encoding="utf-8"))
    wanted = json.loads((SOURCES / "package.json").read_text(encoding="utf-8"))
    root, *others = lock["packages"].values()

    assert [] == [each for each in others if "integrity" not in each or "resolved" in each]
    assert wanted["dependencies"] == root["dependencies"]
    assert wanted["devDependencies"] == root["devDependencies"]


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
@pytest.mark.parametrize(
    ("months", "expected"),
    [(0, "2026-08-31"), (1, "2026-09-30"), (6, "2027-02-28"), (-8, "2025-12-31"), (18, "2028-02-29")],
)
def test_the_guide_s_year_is_moved_by_whole_months(months: int, expected: str) -> None:
    """A day stays what it is of its month, or the last where the month is shorter."""
    script = f"""
      import {{ moved }} from {json.dumps((SOURCES / "months.js").as_uri())};
      console.log(moved('{{ from: "2026-08-31T00:00:00+01:00" }}', {months}));
    """
    command = ["node", "--input-type=module", "--eval", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)

    assert f'{{ from: "{expected}T00:00:00+01:00" }}' == done.stdout.strip()
