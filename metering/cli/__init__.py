"""The command line: `metering`. One command, one file; what they share is in running.py and console.py."""

import sys

from cyclopts import App

from metering import __version__
from metering.cli.console import complain
from metering.errors import ConfigurationError, MeteringError

app = App(
    name="metering",
    help="Usage metering and rating on one PostgreSQL. Begin with `metering demo`.",
    version=__version__,
)
app.command("metering.cli.serve:serve")
app.command("metering.cli.work:work")
app.command("metering.cli.demo:demo")
app.command("metering.cli.migrate:migrate")
app.command("metering.cli.import_file:import_file", name="import")
app.command("metering.cli.export:export")
app.command("metering.cli.statements:statements")
app.command("metering.cli.simulate:simulate")
app.command("metering.cli.backtest:backtest")
app.command("metering.cli.reconcile:reconcile")
app.command("metering.cli.keys:keys")
app.command("metering.cli.erase_user:erase_user")
app.command("metering.cli.doctor:doctor")
app.command("metering.cli.status:status")


def main() -> None:
    """Run the command line. What a person can put right is said in a sentence, and the exit code is 1 (2 for settings)."""
    try:
        app()
    except ConfigurationError as error:
        complain(error)
        sys.exit(2)
    except MeteringError as error:
        complain(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
