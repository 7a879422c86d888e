"""Static SQL by name: sql/<noun>.sql holds statements, each under `-- name: <verb>` and a line that says what it is for."""

import importlib.resources
from functools import lru_cache


def sql(name: str) -> str:
    """The statement `noun.verb`, for example `sql("events.find_claims")`. Raises KeyError for one that is not there."""
    return all_statements()[name]


@lru_cache(maxsize=1)
def all_statements() -> dict[str, str]:
    """Every statement by `noun.verb`."""
    statements: dict[str, str] = {}
    for file in importlib.resources.files("metering.store").joinpath("sql").iterdir():
        noun = file.name.removesuffix(".sql")
        for block in file.read_text(encoding="utf-8").split("-- name: ")[1:]:
            verb, _, text = block.partition("\n")
            statements[f"{noun}.{verb.strip()}"] = text.strip().removesuffix(";")
    return statements
