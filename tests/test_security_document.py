"""The threat model names tests that exist, in every line of it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
MODEL = DOCUMENT.partition("\n## What holds it\n")[2].partition("\n## ")[0]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", MODEL)))


def test_every_threat_names_a_test() -> None:
    """No line of the model stands without something that fails where it does not hold."""
    lines = [line for line in MODEL.splitlines() if re.match(r"\| (?!threat|---)", line)]

    assert len(lines) > 30
    assert [] == [line for line in lines if not re.search(r"`tests/[\w/]+\.py::test_\w+` \|$", line)]


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_every_test_that_is_named_exists(path: str, name: str) -> None:
    """The file has a test of this name: what is renamed, or gone, is so in the model too."""
    module = ast.parse((ROOT / path).read_text(encoding="utf-8"))

    assert name in {node.name for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}
