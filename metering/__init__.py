"""The data plane: events in, exact figures out.

`ingest` takes events, `rollups` adds them up, `recorded` shows them one by one, `keys` says who may; `store` is the only
code that talks to PostgreSQL. `cli` is the command line. See README.md for the words and the invariants.
"""

from importlib.metadata import version

__version__ = version("metering")
