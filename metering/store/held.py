"""How statements are held to a caller's reach: each says it itself, and a narrow snapshot runs none that does not.

A line `-- reach: account, subscription, user` names the dimensions of reach that hold a statement, by its parameters or by
whoever reads its rows; `-- reach: everyone` says that its rows are nobody's in particular. Built statements get the line from
their parameters (metering/store/usage_query.py), static ones have it in their file. It proves nothing; it makes forgetting
impossible.
"""

import re
from functools import lru_cache
from typing import Final

from metering.reach import Reach

_LINE: Final = re.compile(r"^-- reach: (.+)$", re.MULTILINE)
_EVERYONE: Final = "everyone"
# Shapes of questions are few; see the caches of the statements' builders.
_STATEMENTS_MAX: Final = 2_000


@lru_cache(maxsize=_STATEMENTS_MAX)
def held_by(statement: str) -> frozenset[str]:
    """The dimensions of reach that a statement says it is held by; empty where it says nothing."""
    line = _LINE.search(statement)
    return frozenset() if line is None else frozenset(name.strip() for name in line[1].split(","))


def check_held(statement: str, reach: Reach) -> None:
    """Raise RuntimeError for a statement that does not say how it is held to a reach as narrow as this one."""
    if reach.is_everything:
        return
    held = held_by(statement)
    needed = {dimension.value for dimension, _ in reach.narrowed()}
    if _EVERYONE not in held and not needed <= held:
        raise RuntimeError(
            f"A statement that is not held to the caller's reach ({', '.join(sorted(needed - held))}) was about to run: "
            f"{statement:.200}"
        )
