"""What the command line says to people: answers on standard output, progress and complaints on standard error."""

from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from metering.errors import ConfigurationError, InvalidInputError, MeteringError

OUT: Final = Console(soft_wrap=True, highlight=False)
ERR: Final = Console(stderr=True, soft_wrap=True, highlight=False)


def complain(error: MeteringError) -> None:
    """Say what is wrong, each fault on a line of its own."""
    match error:
        case ConfigurationError():
            faults = error.faults
        case InvalidInputError():
            faults = tuple(f"{'.'.join(issue.path)}: {issue.message}" for issue in error.issues)
        case _:
            faults = (str(error),)
    for fault in faults:
        ERR.print(Text(f"metering: {fault}"))


def say(line: str) -> None:
    """One plain line on standard output, at once: programs wait for it."""
    print(line, flush=True)  # noqa: T201 - this is the command line


class _EventsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed or 0
        return Text(f"{speed * task.fields.get('events_per_step', 1):,.0f} events/s")


def progress_bar(*, counts: bool = True) -> Progress:
    """A progress bar with events/s and the time left, on standard error."""
    count = [MofNCompleteColumn()] if counts else []
    return Progress(
        TextColumn("{task.description}"), BarColumn(), *count, _EventsPerSecond(), TimeRemainingColumn(), console=ERR
    )


def steps_bar() -> Progress:
    """A progress bar with the steps done and the time left, on standard error."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=ERR
    )
