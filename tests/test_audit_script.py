"""`make audit` tells what pip-audit found, and is not stopped by a network that is away."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "advisories.py"
CLEAN = {"name": "idna", "version": "3.10", "vulns": []}
SKIPPED = {"name": "metering", "skip_reason": "not on the index"}
VULNERABLE = {
    "name": "jinja2",
    "version": "2.4.1",
    "vulns": [
        {"id": "PYSEC-2014-8", "fix_versions": ["2.7.2"], "aliases": ["CVE-2014-1402"], "description": "d"},
        {"id": "PYSEC-2099-1", "fix_versions": [], "aliases": [], "description": "d"},
    ],
}


def audit(text: str) -> tuple[int, list[str]]:
    """What the script says of what pip-audit wrote, and how it ends."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], input=text, capture_output=True, text=True, timeout=30, check=False
    )
    assert "" == done.stderr
    return done.returncode, done.stdout.splitlines()


def found(*packages: Any) -> str:
    """As `pip-audit --format json` writes it."""
    return json.dumps({"dependencies": packages, "fixes": []})


def test_a_vulnerable_package_fails_with_its_advisory() -> None:
    """Each advisory with the version that has none, where there is one; and how many were looked at."""
    assert (
        1,
        [
            "metering: not looked at: not on the index",
            "jinja2 2.4.1: PYSEC-2014-8; fixed in 2.7.2",
            "jinja2 2.4.1: PYSEC-2099-1; fixed in no version yet",
            "audit: 2 packages were looked at; 1 with known vulnerabilities.",
        ],
    ) == audit(found(CLEAN, VULNERABLE, SKIPPED))


def test_good_packages_pass() -> None:
    """Nothing is said but how many there are."""
    assert (0, ["audit: 1 packages were looked at; 0 with known vulnerabilities."]) == audit(found(CLEAN))


@pytest.mark.parametrize("text", ["", "Traceback", "[]", "{}", found(SKIPPED), found()])
def test_who_could_not_ask_says_so_and_passes(text: str) -> None:
    """What is no answer is not taken for a good one: the line says that nothing is known."""
    assert (0, ["audit: could not ask for advisories; nothing is known of any package."]) == audit(text)
