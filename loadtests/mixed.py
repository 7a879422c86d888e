"""The load of soak.py for some minutes with nothing killed: what of events and questions costs the other how much.

Profile: see mixture.py. Everything runs on one machine: client, service, PostgreSQL. Ends with exit code 1 when a receipt is
wrong or a question fails.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop
from acknowledged import SIZE
from bench import ENGINES, Usage, database, print_table, service
from mixture import Mixture, latency, pace, told
from questions import offer


async def measured(address: str, server: Usage, given: argparse.Namespace) -> Mixture:
    """Send and ask until it is over."""
    await offer(address, datetime.now(UTC))
    mixture = Mixture(address, lambda: server, given)
    await mixture.run()
    return mixture


def report(mixture: Mixture, title: str) -> None:
    """Print the tables."""
    events = sum(mixture.acknowledged.events.values())
    answers = {name: len(each) for name, each in mixture.took.items()}
    asked = sum(count for name, count in answers.items() if name != f"{SIZE} events")
    rates = [
        ["events/s acknowledged", f"{events / mixture.seconds:,.0f}"],
        ["questions/s answered", f"{asked / mixture.seconds:,.1f}"],
    ]
    rows = [latency(name, answers[name], [seconds for _, seconds in mixture.took[name]]) for name in sorted(answers)]
    print_table(f"Mixed load: {title}", ["", "count"], [*rates, *mixture.counted()])
    print_table(f"Latency of mixed load: {title}", ["asked", "answers", "p50 ms", "p99 ms"], rows)
    print_table(f"Memory of the service under mixed load, MiB: {title}", ["", "median", "most"], mixture.memory())


def main() -> None:
    """Measure each engine, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pace(parser, minutes=5)
    parser.add_argument("--engine", choices=ENGINES, help="only this one")
    given = parser.parse_args()
    faults: list[str] = []
    for engine in [given.engine] if given.engine else ENGINES:
        # The ids of events are the same each time, so the database is a new one each time too.
        with (
            TemporaryDirectory(prefix="metering-bench-") as directory,
            database(engine, Path(directory)) as (url, _),
            service(url) as (address, server),
        ):
            mixture = uvloop.run(measured(address, server, given))
        report(mixture, told(given, engine))
        faults += [*mixture.faults, *(fault for _, _, fault in mixture.failed)]
    sys.exit("\n".join(faults[:20]) if faults else 0)


if __name__ == "__main__":
    main()
