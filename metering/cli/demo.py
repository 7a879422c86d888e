"""`metering demo`: a year of believable usage, loaded through the real endpoint, then served."""

import asyncio
import os
import secrets
import signal
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import msgspec

from metering.cli.console import ERR, OUT, complain, progress_bar, say
from metering.cli.running import run_service
from metering.config import Settings, read_settings
from metering.demo.cast import FAMILY, SILENT_TEAM
from metering.demo.load import DemoYear, begin, load
from metering.demo.story import DEMO_EVENTS_ABOUT
from metering.errors import DataDirectoryError, MeteringError


def demo(
    *, host: str | None = None, port: int | None = None, data_dir: Path | None = None, through: date | None = None
) -> None:
    """Serve a year of believable usage of about 40 customers, dated back from today.

    The first time it is loaded through the service's own endpoint, which takes a minute or so; then it is there at once.
    Prints the address, a key, and three commands to paste.

    Example: `metering demo --port 8000`

    Parameters
    ----------
    host
        The address to listen on [METERING_HOST, 127.0.0.1].
    port
        The port to listen on; 0 picks a free one [METERING_PORT, 8000].
    data_dir
        Where the embedded PostgreSQL lives [METERING_DATA_DIR, ./.metering].
    through
        The day before which the year ends, instead of today: `2026-09-01` is the year of docs/api.md.
    """
    settings = read_settings(host=host, port=port, data_dir=data_dir)
    if settings.bootstrap_key is None:
        settings = msgspec.structs.replace(settings, bootstrap_key=_kept_key(settings.data_dir))
    if settings.log_level == "info":  # a line for each request would hide the progress bar
        settings = msgspec.structs.replace(settings, log_level="warning")
    run_service(settings, partial(_load_and_show, through))


def _kept_key(data_dir: Path) -> str:
    """The demo's key, made once and kept where only its owner reads it, so that it is the same at every start."""
    file = data_dir / "demo-key"
    try:
        if not file.exists():
            data_dir.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as opened:
                opened.write(f"demo_{secrets.token_urlsafe(32)}")
        return file.read_text().strip()
    except OSError as error:
        raise DataDirectoryError(
            f"The data directory {data_dir} cannot be written: {error.strerror}. "
            "Set METERING_DATA_DIR (or --data-dir) to a directory that this user may write."
        ) from error


def _load_and_show(through: date | None, settings: Settings, address: str) -> None:
    try:
        year = asyncio.run(_loaded(settings, address, through))
    except MeteringError as error:
        complain(error)
        os.kill(os.getpid(), signal.SIGTERM)
        return
    say(f"Ready: {address}/graphql")
    _show(settings, address, year)


async def _loaded(settings: Settings, address: str, through: date | None) -> DemoYear:
    year = await begin(settings, through)
    if year.loaded:
        return year
    key = settings.bootstrap_key
    assert key is not None, "the demo has a key"
    with progress_bar() as bar:
        task = bar.add_task("Loading a year of usage", total=DEMO_EVENTS_ABOUT)
        sent = await load(settings, year, address, key, lambda count: bar.advance(task, count))
        bar.update(task, total=sent.accepted + sent.duplicates, completed=sent.accepted + sent.duplicates)
    ERR.print(f"{sent.accepted:,} events recorded, {sent.duplicates:,} were there already.")
    return year


def _show(settings: Settings, address: str, year: DemoYear) -> None:
    """The address, the key, and three commands to paste with what they will show."""
    OUT.print(
        f"\nAddress  {address}/graphql  (open it in a browser)\nKey      {settings.bootstrap_key}\n", markup=False
    )
    for title, document in _questions(year.through):
        body = msgspec.json.encode({"query": document}).decode()
        OUT.print(f"# {title}", style="bold", markup=False)
        OUT.print(
            f"curl -s {address}/graphql -H 'Authorization: Bearer {settings.bootstrap_key}' "
            f"-H 'Content-Type: application/json' -d '{body}'\n",
            markup=False,
        )
    OUT.print("Stop with Ctrl-C; `metering demo` starts it again at once.", style="dim")


def _questions(through: date) -> list[tuple[str, str]]:
    """What the demo's stories answer: a title, and the document to send."""
    jump_start, jump_end = FAMILY.jump_month(through)
    month_before = (jump_start - timedelta(days=1)).replace(day=1)
    family, team = FAMILY.account, SILENT_TEAM.account
    by_month = "series(bucket: MONTH) { columns { from quantity } }"
    hours = _document(
        SILENT_TEAM.contract_start(through), through, "USER", _only(team, "seat-hour"), f"key {{ user }} {by_month}"
    )
    return [
        (
            "What did everyone use in a year, by product?",
            _document(
                through - timedelta(days=365), through, "PRODUCT", "", "key { product } totals { unit quantity }"
            ),
        ),
        (
            f"Why did the bill of {family} jump? Gigabytes by device, month by month: it was {FAMILY.jumping_device}.",
            _document(month_before, jump_end, "DEVICE", _only(family, "gigabyte"), f"key {{ device }} {by_month}"),
        ),
        (f"Who fell silent at {team}, which renews on {SILENT_TEAM.renewal(through)}? Hours by user and month.", hours),
    ]


def _only(account: str, unit: str) -> str:
    return f', filter: {{account: {{in: ["{account}"]}}, unit: {{in: ["{unit}"]}}}}'


def _document(start: date, end: date, group_by: str, narrowed: str, selection: str) -> str:
    period = f'period: {{from: "{start}T00:00:00Z", to: "{end}T00:00:00Z"}}'
    query = f"{period}, groupBy: [{group_by}]{narrowed}"
    return f"{{ usage(query: {{{query}}}) {{ ... on UsageReport {{ groups {{ nodes {{ {selection} }} }} }} }} }}"
