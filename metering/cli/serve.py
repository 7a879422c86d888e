"""`metering serve`."""

from pathlib import Path

from metering.cli.console import say
from metering.cli.running import run_service
from metering.config import Settings, read_settings


def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    work: bool | None = None,
    data_dir: Path | None = None,
) -> None:
    """Run the service: HTTP ingest at /v1/events, GraphQL at /graphql.

    Without METERING_DATABASE_URL it starts the embedded PostgreSQL in the data directory; the database is migrated first.
    When it is ready it prints one line: `Ready: http://127.0.0.1:8000/graphql`.

    Example: `metering serve --port 8000 --data-dir ./.metering`

    Parameters
    ----------
    host
        The address to listen on [METERING_HOST, 127.0.0.1].
    port
        The port to listen on; 0 picks a free one [METERING_PORT, 8000].
    workers
        How many processes answer [METERING_WORKERS, 1].
    work
        Do the background work too; with --no-work `metering work` has to run beside it [METERING_WORK, true].
    data_dir
        Where the embedded PostgreSQL lives [METERING_DATA_DIR, ./.metering].
    """
    run_service(read_settings(host=host, port=port, workers=workers, work=work, data_dir=data_dir), _ready)


def _ready(_settings: Settings, address: str) -> None:
    say(f"Ready: {address}/graphql")
