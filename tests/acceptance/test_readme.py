"""The README's five minutes, run as they are written."""

import gzip
import json
import re
import subprocess
from pathlib import Path

from tests.acceptance.processes import home_in
from tests.conftest import clean_environment, metering_program

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECRET = "choose-a-long-secret-of-your-own"


def _steps() -> list[tuple[str, str | None]]:
    """The section's commands, each with the output that the README shows behind it."""
    section = README.partition("## Five minutes")[2].partition("\n## ")[0]
    blocks = re.findall(r"```(sh|json)\n(.*?)```", section, re.DOTALL)
    steps: list[tuple[str, str | None]] = []
    for index, (kind, text) in enumerate(blocks):
        if kind == "sh":
            shown = blocks[index + 1][1] if index + 1 < len(blocks) and blocks[index + 1][0] == "json" else None
            steps.append((text, shown))
    return steps


def test_the_five_minutes_are_true(tmp_path: Path) -> None:
    """Every command of the README's walk works as it stands, and answers what the README shows."""
    start, *asked, load, table = _steps()
    assert (f"export METERING_BOOTSTRAP_KEY={SECRET}\n.venv/bin/metering serve\n", None) == start

    with home_in(tmp_path) as home:
        running = home.serve(METERING_BOOTSTRAP_KEY=SECRET)

        def run(command: str) -> "subprocess.CompletedProcess[str]":
            here = command.replace("http://127.0.0.1:8000", running.address).replace(
                ".venv/bin/metering", metering_program()
            )
            environment = clean_environment(
                METERING_BOOTSTRAP_KEY=SECRET, METERING_URL=running.address, METERING_DATA_DIR=str(home.data_dir)
            )
            return subprocess.run(
                ["bash", "-ec", here],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
            )

        for command, shown in asked:
            assert shown is not None
            assert json.loads(shown) == json.loads(run(command).stdout)

        event = {
            "id": "1",
            "source": "file",
            "occurred_at": "2026-03-01T00:00:00Z",
            "account": "a",
            "product": "p",
            "unit": "u",
        }
        (tmp_path / "usage.ndjson.gz").write_bytes(gzip.compress(json.dumps(event).encode()))
        assert "1 accepted, 0 duplicates, 0 rejected." == run(load[0]).stdout.strip()
        assert "0 accepted, 1 duplicates, 0 rejected." == run(load[0]).stdout.strip()

        assert run(table[0]).stdout.strip().endswith("agree with their events.")
        rows = (tmp_path / "march.csv").read_text(encoding="utf-8").splitlines()
        assert ["from,to,account,unit,quantity,events,minimum,maximum", "a,u,1,1,1,1", "acme,call,3.1,2,0.1,3"] == [
            rows[0],
            *(row.split("Z,", 2)[2] for row in rows[1:]),
        ]
