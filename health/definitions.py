"""Scorecards as JSON. What cannot be read is said all at once, each fault with its path, as faults.py does for meaning.

The names are those of the structs in camel case; a part of the tree with `parts` is a group, any other a measure; an
expression is a number, a metric's key, or one operator with a list: `{"ratio": ["tickets_28d", "seats"]}`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

import msgspec

from health.bounds import EXPRESSION_LEVELS_MAX, MEASURES_MAX, TREE_LEVELS_MAX
from health.catalogue import Metric
from health.expressions import Expression, Operation, Operator
from health.faults import Fault, validate
from health.scorecards import Band, Cap, Condition, Group, Measure, Part, Path, Scorecard, Subject

T = TypeVar("T")

# What the caller says beside the definition.
_GIVEN: Final = {"key", "version", "subject", "purpose"}
_REQUIRED: Final = ("bands", "tree")
_PLAIN: Final[Mapping[str, tuple[str, type]]] = {
    "priority": ("priority", int),
    "minCoverage": ("min_coverage", float),
    "hysteresis": ("hysteresis", float),
}
_FIELDS: Final = ("when", *_PLAIN, "bands", "tree", "caps", "expressions")


# What stands for a part that cannot be read, so that the others keep their places.
_UNREAD: Final = Measure(metric="", weight=1.0, curve=((0.0, 0.0),))


class Unreadable(msgspec.Struct, frozen=True):
    """A definition that is no scorecard, or none that can be published, with all that keeps it from being one."""

    faults: tuple[Fault, ...]


def scorecard_of(definition: Any, *, key: str, version: int, subject: Subject, purpose: str) -> Scorecard | Unreadable:
    """The scorecard that a definition is, or why it is none. Whether it makes sense is validate()'s to say."""
    reader = _Reader()
    card = reader.card(definition, key=key, version=version, subject=subject, purpose=purpose)
    return card if card is not None and not reader.faults else Unreadable(tuple(reader.faults))


def checked_scorecard(
    definition: Any,
    catalogue: Mapping[str, Metric],
    others: Iterable[Scorecard] = (),
    *,
    key: str,
    version: int,
    subject: Subject,
    purpose: str,
) -> Scorecard | Unreadable:
    """The scorecard that a definition is, if it can be published; otherwise all faults of both kinds at once.

    What can be read is validated also where something else cannot: who writes a card gets one answer and not two.
    """
    reader = _Reader()
    card = reader.card(definition, key=key, version=version, subject=subject, purpose=purpose)
    if card is None:
        return Unreadable(tuple(reader.faults))
    unread = {*reader.unread, *(fault.path for fault in reader.faults)}
    meant = [
        fault
        for fault in validate(card, catalogue, others)
        if not any(fault.path[: len(path)] == path for path in unread)
    ]
    faults = (*reader.faults, *meant)
    return Unreadable(faults) if faults else card


def definition_of(scorecard: Scorecard) -> dict[str, Any]:
    """A scorecard as scorecard_of() reads it: without key, version, subject and purpose."""
    whole = msgspec.to_builtins(msgspec.structs.replace(scorecard, expressions={}), str_keys=True)
    expressions = {name: _plain(expression) for name, expression in scorecard.expressions.items()}
    fields = {**whole, "expressions": expressions}
    return {name: _without_nothing(fields[name]) for name in _FIELDS}


def _plain(expression: Expression) -> Any:
    if isinstance(expression, Operation):
        return {expression.operator.value: [_plain(part) for part in expression.of]}
    return expression


def _without_nothing(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nothing(part) for name, part in value.items() if part is not None}
    return [_without_nothing(part) for part in value] if isinstance(value, list | tuple) else value


class _Reader:
    """Reads as much as it can, and keeps what it could not read."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        # Where something was left out or stood in for, so that nothing is said of it.
        self.unread: set[Path] = set()

    def card(self, definition: Any, *, key: str, version: int, subject: Subject, purpose: str) -> Scorecard | None:
        if not isinstance(definition, Mapping):
            self.faults.append(Fault((), "is not an object; give bands and a tree"))
            return None
        for name in definition:
            if name in _GIVEN:
                self.faults.append(Fault((str(name),), "is said beside the definition; leave it out here"))
            elif name not in _FIELDS:
                self.faults.append(Fault((str(name),), f"is no field of a scorecard; there are {', '.join(_FIELDS)}"))
        self.faults.extend(Fault((name,), "is missing") for name in _REQUIRED if name not in definition)
        plain: dict[str, Any] = {
            field: read
            for name, (field, kind) in _PLAIN.items()
            if name in definition
            and (read := cast("float | None", self.converted(definition[name], kind, (name,)))) is not None
        }
        return Scorecard(
            key=key,
            version=version,
            subject=subject,
            purpose=purpose,
            when=self.conditions(definition.get("when", {})),
            bands=tuple(self.many(definition.get("bands", ()), Band, ("bands",))),
            tree=self.parts(definition.get("tree", ()), ("tree",), 1),
            caps=tuple(self.many(definition.get("caps", ()), Cap, ("caps",))),
            expressions=self.expressions(definition.get("expressions", {})),
            **plain,
        )

    def one(self, value: Any, kind: type[T], path: Path) -> T | None:
        """A value of a kind; None, and a fault for each field that keeps it from being one."""
        if not (isinstance(value, Mapping) and issubclass(kind, msgspec.Struct)):
            return cast("T | None", self.converted(value, kind, path))
        before = len(self.faults)
        known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        for name in value:
            if name not in known:
                self.faults.append(Fault((*path, str(name)), f"is no field here; there are {', '.join(known)}"))
        for name, field in known.items():
            if name in value:
                self.converted(value[name], field.type, (*path, name))
            elif field.required:
                self.faults.append(Fault((*path, name), "is missing"))
        return cast("T | None", self.converted(value, kind, path)) if len(self.faults) == before else None

    def converted(self, value: Any, kind: Any, path: Path) -> Any:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            message, _, place = str(error).partition(" - at `")
            inner = tuple(part for part in place.rstrip("`").replace("[", ".").replace("]", "").split(".")[1:] if part)
            self.faults.append(Fault((*path, *inner), message[:1].lower() + message[1:]))
            return None

    def many(self, values: Any, kind: type[T], path: Path) -> list[T]:
        if not self.is_list(values, path):
            return []
        read = [self.one(value, kind, (*path, str(index))) for index, value in enumerate(values)]
        if None in read:
            self.unread.add(path)
        return [value for value in read if value is not None]

    def is_list(self, values: Any, path: Path) -> bool:
        if isinstance(values, Sequence) and not isinstance(values, str | bytes):
            return True
        self.faults.append(Fault(path, "is not a list"))
        return False

    def conditions(self, values: Any) -> dict[str, Condition]:
        if not isinstance(values, Mapping):
            self.faults.append(Fault(("when",), 'is not an object of attributes, as {"stage": {"in": ["trial"]}}'))
            return {}
        read = {str(name): self.one(value, Condition, ("when", str(name))) for name, value in values.items()}
        return {name: condition for name, condition in read.items() if condition is not None}

    def parts(self, values: Any, path: Path, level: int) -> tuple[Part, ...]:
        if not self.is_list(values, path):
            self.unread.add(path)
            return ()
        if level > TREE_LEVELS_MAX or len(values) > MEASURES_MAX:
            self.faults.append(
                Fault(path, f"is too large; {TREE_LEVELS_MAX} levels and {MEASURES_MAX} measures at most")
            )
            return ()
        return tuple(self.part(value, (*path, str(index)), level) for index, value in enumerate(values))

    def part(self, value: Any, path: Path, level: int) -> Part:
        if not isinstance(value, Mapping) or "parts" not in value:
            measure = self.one(value, Measure, path)
            if measure is None:
                self.unread.add(path)
            return measure or _UNREAD
        parts = self.parts(value["parts"], (*path, "parts"), level + 1)
        # The parts were read one by one; read the rest as a group that has none.
        group = self.one({**value, "parts": ()}, _GroupHead, path)
        if group is None:
            self.unread |= {(*path, "name"), (*path, "weight")}
            return Group(name="unread", weight=1.0, parts=parts)
        return Group(name=group.name, weight=group.weight, parts=parts)

    def expressions(self, values: Any) -> dict[str, Expression]:
        if not isinstance(values, Mapping):
            self.faults.append(Fault(("expressions",), 'is not an object, as {"own": {"add": ["nps", 100]}}'))
            return {}
        return {str(name): self.expression(value, ("expressions", str(name)), 1) for name, value in values.items()}

    def expression(self, value: Any, path: Path, level: int) -> Expression:
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        operators = [operator.value for operator in Operator]
        if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in operators:
            self.faults.append(Fault(path, f"is no number, no metric and no operation; one of {', '.join(operators)}"))
            return 0.0
        ((name, parts),) = value.items()
        if level >= EXPRESSION_LEVELS_MAX:
            self.faults.append(Fault(path, f"is too deep; {EXPRESSION_LEVELS_MAX} levels at most"))
            return 0.0
        if not self.is_list(parts, (*path, str(name))):
            return 0.0
        read = (self.expression(part, (*path, str(name), str(index)), level + 1) for index, part in enumerate(parts))
        return Operation(Operator(name), tuple(read))


class _GroupHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    weight: float
    parts: tuple[()]
