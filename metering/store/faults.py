"""Driver errors -> our errors, in one place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from metering.errors import DatabaseUnavailableError, SchemaError, TimeLimitError
from metering.limits import LIMITS

# What says that the database is away, or going away, whatever was asked of it.
_AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    # A server that only follows another one: where that one is gone, it may be the one to ask soon, or another address is.
    asyncpg.ReadOnlySQLTransactionError,
    # The driver lost its place in a conversation that broke off; the connection is given up.
    asyncpg.InternalClientError,
)

# Two transactions were in each other's way: the same work, done again, will do. A check violation is a partition that
# was dropped since we knew it.
CONTENTION: Final = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.UniqueViolationError,
    asyncpg.CheckViolationError,
)


@contextmanager
def translated(statement_seconds_max: int = LIMITS.statement_seconds_max) -> Iterator[None]:
    """Raise DatabaseUnavailableError, TimeLimitError or SchemaError for what the driver says of them; let anything else pass."""
    try:
        yield
    except _AWAY as error:
        raise DatabaseUnavailableError(f"The database is away: {str(error) or type(error).__name__}") from error
    except asyncpg.QueryCanceledError as error:
        message = (
            f"The database took longer than the {statement_seconds_max} s that one statement may; "
            "ask for fewer groups, a shorter period or a larger bucket."
        )
        raise TimeLimitError(message) from error
    except asyncpg.InterfaceError as error:
        # So the driver speaks of a connection that broke between two statements; of our own mistakes it says other things.
        if "clos" not in str(error) and "released back to the pool" not in str(error):
            raise
        raise DatabaseUnavailableError(f"The database is away: {error}") from error
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
        raise SchemaError(f"The database is not migrated to this release ({error}): run `metering migrate`.") from error
