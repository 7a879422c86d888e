"""What can be wrong with one value of an input, each as an issue with its path: a name, an instant, a number, attributes."""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from metering.errors import InputIssue
from metering.limits import Limits
from rating.faults import Fault

Path = tuple[str, ...]

_INPUT: Final = ("input",)


def issues_of(faults: Iterable[Fault]) -> Iterator[InputIssue]:
    """What rating finds wrong, as issues of the argument `input`."""
    for fault in faults:
        yield InputIssue((*_INPUT, *fault.path), f"{fault.message[0].upper()}{fault.message[1:]}.")


def name_issues(text: str, path: Path, limits: Limits) -> Iterator[InputIssue]:
    """A name has some characters, not too many, not only spaces, and none that no text can keep."""
    if not text.strip() or len(text) > limits.name_chars_max or "\0" in text:
        message = f"This must have 1 to {limits.name_chars_max} characters, not only spaces, none of them NUL."
        yield InputIssue(path, message)


def instant_issues(instant: datetime | None, path: Path, limits: Limits) -> Iterator[InputIssue]:
    """An instant is one that can be asked about: far enough from where calendars end to count periods from it."""
    if instant is not None and not limits.asked_from_min <= instant < limits.asked_to_max:
        message = f"This must be from {limits.asked_from_min:%FT%TZ} on and before {limits.asked_to_max:%FT%TZ}."
        yield InputIssue(path, message)


def attributes_issues(attributes: Mapping[str, Any], path: Path, limits: Limits) -> Iterator[InputIssue]:
    """Attributes are short enough to be kept beside what they are of, and hold no text that cannot be kept."""
    # Looked at before it is written: that takes a call for each level.
    if _is_deeper(attributes, limits.attributes_depth_max):
        yield InputIssue(path, f"Objects and lists in each other, {limits.attributes_depth_max} deep at most.")
        return
    written = msgspec.json.encode(attributes)
    if len(written) > limits.attributes_bytes_max:
        yield InputIssue(path, f"{len(written):,} bytes as JSON; {limits.attributes_bytes_max:,} are taken.")
    elif holds_nul(written):
        yield InputIssue(path, "A text holds a NUL character, which no text can keep.")


def holds_nul(written: bytes) -> bool:
    """Whether a text in this JSON has a NUL character, which no text can keep."""
    return _WRITTEN_NUL.search(written) is not None


def _is_deeper(value: object, depth: int) -> bool:
    """Whether there are more levels of objects and lists than so many."""
    level = [value]
    for _ in range(depth):
        level = [inner for outer in level for inner in _inside(outer)]
    return any(isinstance(each, Mapping | list) for each in level)


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()


# As JSON writes it; behind an even number of backslashes, for each of these is one that stands for itself.
_WRITTEN_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
