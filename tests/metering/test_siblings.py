"""Worker processes of one service: whichever is asked tells of all, and nothing told before is taken back."""

import subprocess
import sys
from pathlib import Path

from metering.metrics import COMMIT_SECONDS, EVENTS, PROCESSES, QUEUE_EVENTS, Counters, Labelled
from metering.siblings import Siblings

# A process that counts and is gone: without a word, or in good order.
_OTHER = """
import asyncio, sys
from pathlib import Path
from metering.metrics import COMMIT_SECONDS, EVENTS, QUEUE_EVENTS, Counters
from metering.siblings import Siblings

async def work(in_good_order):
    counters = Counters()
    counters.read(QUEUE_EVENTS, lambda: {(): 5})
    siblings = Siblings(counters, Path(sys.argv[1]))
    counters.count(EVENTS, "accepted", by=2)
    counters.observe(COMMIT_SECONDS, 0.002)
    siblings.start()
    siblings.readings()
    if in_good_order:
        counters.count(EVENTS, "accepted")
        await siblings.close()

asyncio.run(work(sys.argv[2] == "stopped"))
"""


def _run_other(folder: Path, how: str) -> None:
    subprocess.run([sys.executable, "-c", _OTHER, str(folder), how], check=True, timeout=60)


def test_what_others_counted_counts_after_they_have_ended(tmp_path: Path) -> None:
    """What ended processes counted is added up, to the last when they ended in good order; what their gauges read is not."""
    _run_other(tmp_path, "killed")
    _run_other(tmp_path, "stopped")
    counters = Counters()
    counters.count(EVENTS, "accepted", by=10)
    counters.observe(COMMIT_SECONDS, 40.0)
    counters.read(QUEUE_EVENTS, lambda: {(): 7})
    told = Siblings(counters, tmp_path).readings()

    assert 10 + 2 + 3 == told.numbers[Labelled(EVENTS.name, ("accepted",))]
    assert (7, 1) == tuple(told.numbers[Labelled(each.name, ())] for each in (QUEUE_EVENTS, PROCESSES))
    commits = told.observed[Labelled(COMMIT_SECONDS.name, ())]
    assert (3, 1, 2) == (sum(commits.counts), commits.counts[-1], commits.counts[1])


def test_what_was_told_is_not_taken_back(tmp_path: Path) -> None:
    """Who answers has written what it tells: the next one to be asked tells no less."""
    counters = Counters()
    counters.count(EVENTS, "accepted", by=10)
    siblings = Siblings(counters, tmp_path)
    siblings.readings()
    (written,) = tmp_path.iterdir()
    written.rename(tmp_path / "0.json")
    told = Siblings(Counters(), tmp_path).readings()

    assert 10 == told.numbers[Labelled(EVENTS.name, ("accepted",))]
