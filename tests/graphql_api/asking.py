"""Questions by chance, made from the schema: every root field, every argument, with values that aim at what is hidden.

An argument that is not known here fails the test which asks, so that a new field is not left out unnoticed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    Undefined,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
)
from hypothesis import strategies as st

# What differs from one moment to the next, whatever is asked.
OF_THE_MOMENT: Final = frozenset({"asOf", "milliseconds", "CreditBalance.at"})
# Of the rows of sixteen lists: `account` and `accounts` ask all that there is below it.
ASKED_ELSEWHERE: Final = frozenset({"ListedSubject.account", "UnmetCommitment.account"})
DEPTH_MAX: Final = 6
_ACCOUNTS: Final = ["acme", "acme", "aardvark", "beta", "zebra", "gamma", "nobody"]
_SUBSCRIPTIONS: Final = ["s-acme-1", "s-acme-1", "s-acme-2", "s-beta-1", "a-zebra-2", "s-gamma-1", "nothing"]
_USERS: Final = ["ana", "ben", "mole", "rat", "zoe"]
_PRODUCTS: Final = ["maps", "mail", "secret", "novel"]
_DAYS: Final = ["2026-08-31T00:00:00Z", "2026-09-03T10:00:30Z", "2026-09-20T10:01:00Z", "2026-10-01T00:00:00Z"]
_DATES: Final = ["2026-09-01", "2026-10-01", "2026-10-02", "2026-10-03"]
_END: Final = "2026-11-05T00:00:00Z"
_PERIODS: Final = st.one_of(st.just((_DAYS[0], _END)), st.sampled_from(_DAYS).map(lambda start: (start, _END)))
# By the name of the argument, or of the field of an input.
TEXTS: Final[Mapping[str, Sequence[str]]] = {
    "account": _ACCOUNTS,
    "accounts": _ACCOUNTS,
    "subscription": _SUBSCRIPTIONS,
    "user": _USERS,
    "device": ["ana-phone", "mole-phone", "zoe-phone"],
    "product": _PRODUCTS,
    "feature": ["of-beta", "of-zebra"],
    "classification": ["peak"],
    "unit": ["call", "byte"],
    "source": ["gateway", "sneak", "other"],
    "id": ["2026-09-03-1-ana", "2026-09-03-1-mole", "2026-10-05-None-None", "2026-09-20-2-zoe"],
    "code": ["malformed", "missing_field", "account_forbidden"],
    "rule": ["mine", "a-others", "of-everyone", "nothing"],
    "destination": ["team", "nothing"],
    "types": ["alert", "alert.raised", "Nothing!"],
    "url": ["https://hooks.test/", "http://127.0.0.1/"],
    "prefix": ["", "a", "s", "mk_", "m"],
    "key": ["calls", "basic", "level", "webinar", *_SUBSCRIPTIONS, *_ACCOUNTS],
    "meter": ["calls", "users", "latest", "level", "most", "nothing"],
    "meters": ["calls", "nothing"],
    "plan": ["basic", "nothing"],
    "name": ["Anything"],
    "reason": ["wrong", "wrong", "wrong", " "],
    "body": ['{"id": "again", "account": "beta"}', "{}"],
    "timeZone": ["UTC", "Asia/Kathmandu"],
    "purpose": ["health", "health", "growth"],
    "text": ["a", "acme", "Zebra"],
    "band": ["low", "high", "unknown"],
    "groupBy": ["segment", "nothing"],
    "externalId": ["r-1", "r-2"],
    "note": ["as they say", " "],
    "currencyCode": ["EUR"],
    "keys": _ACCOUNTS,
    "kind": ["webinar"],
    "intervention": ["webinar", "nothing"],
    "scorecard": ["account", "nothing"],
    "metric": ["score", "seats", "drop_z", "active_days", "nothing"],
    "segmentBy": ["segment"],
    "subject": ["calls", "acme", "s-beta-1"],
    "by": ["bootstrap", "a partner"],
    "bearer": ["a-token", "no token"],
    "plans": ["basic", "nothing"],
    "askedBy": ["nps", "pulse"],
    "draw": ["", "spring"],
}
NUMBERS: Final[Mapping[str, Sequence[int]]] = {
    "first": [1, 2, 3, 50, 1_000],
    "version": [1, 2],
    "planVersion": [1],
    "seats": [1, 5],
    "events": [0, 3],
    "overlapHours": [0, 24],
    "value": [1, 4, 9],
    "priority": [0, 1],
    "top": [1, 3, 100],
    "everySeconds": [5, 60],
    "days": [1, 400],
    "windowDays": [1, 28],
    "horizonDays": [2, 90],
    "notAskedDays": [0, 90],
}


# Of scalars of which any value will do, as they are written.
_LITERALS: Final[Mapping[str, Sequence[str]]] = {
    "DateTime": [json.dumps(day) for day in _DAYS],
    "Date": [json.dumps(day) for day in _DATES],
    "Decimal": ['"0"', '"1"', '"12.5"'],
    "Float": ["0.5", "4", "60.0"],
    "Boolean": ["true", "false"],
    "JSON": ["{}", '{of: "acme"}', '{of: "beta"}'],
}


class Found(msgspec.Struct, frozen=True):
    """What was found in a world by somebody who sees all of it: ids by kind, and cursors by the fields that gave them."""

    ids: dict[str, list[str]]
    cursors: dict[str, list[str]]


class Asking:
    """Draws documents."""

    def __init__(self, schema: GraphQLSchema, draw: Callable[[st.SearchStrategy[Any]], Any], found: Found) -> None:
        self._schema = schema
        self._draw = draw
        self._found = found

    def document(self, kind: str, field: str) -> str:
        """A document that asks this one root field of the type `Query`, `Mutation` or `Subscription`."""
        root = self._schema.type_map[kind]
        assert isinstance(root, GraphQLObjectType)
        asked = self._field(field, root.fields[field], 0)
        return f"{kind.lower()} {{ {asked} }}"

    def _field(self, name: str, field: GraphQLField, depth: int, alias: str = "") -> str:
        arguments = self._arguments(field.args, name)
        written = f"({', '.join(arguments)})" if arguments else ""
        return f"{alias}{name}{written}{self._selection(get_named_type(field.type), depth + 1)}"

    def _selection(self, kind: Any, depth: int) -> str:
        if is_leaf_type(kind):
            return ""
        if isinstance(kind, GraphQLUnionType | GraphQLInterfaceType):
            members = enumerate(self._schema.get_possible_types(kind))
            # Members may have fields of one name and of different types, so each has names of its own.
            parts = [f"... on {each.name} {{ {self._fields(each, depth, f'of{index}_')} }}" for index, each in members]
            return f" {{ __typename {' '.join(parts)} }}"
        return f" {{ {self._fields(kind, depth)} }}"

    def _fields(self, kind: GraphQLObjectType, depth: int, prefix: str = "") -> str:
        parts = [
            self._field(name, field, depth, f"{prefix}{name}: " if prefix else "")
            for name, field in kind.fields.items()
            if not {name, f"{kind.name}.{name}"} & (OF_THE_MOMENT | ASKED_ELSEWHERE) and self._is_asked(field, depth)
        ]
        return " ".join(["__typename", *parts])

    def _is_asked(self, field: GraphQLField, depth: int) -> bool:
        if is_leaf_type(get_named_type(field.type)) and not field.args:
            return True
        return depth < DEPTH_MAX and bool(self._draw(st.sampled_from([True, True, True, False])))

    def _arguments(self, arguments: Mapping[str, GraphQLArgument | GraphQLInputField], owner: str) -> list[str]:
        chosen = []
        for name, argument in arguments.items():
            is_required = isinstance(argument.type, GraphQLNonNull) and argument.default_value is Undefined
            if is_required or self._draw(st.booleans()):
                chosen.append(f"{name}: {self._value(name, argument.type, owner)}")
        return chosen

    def _value(self, name: str, kind: Any, owner: str) -> str:
        nullable = get_nullable_type(kind)
        if is_list_type(nullable):
            count = self._draw(st.sampled_from([0, 1, 1, 1, 2, 3]))
            values = [self._value(name, nullable.of_type, owner) for _ in range(count)]
            # A dimension is named once.
            return f"[{', '.join(dict.fromkeys(values))}]"
        if isinstance(nullable, GraphQLInputObjectType):
            return f"{{{', '.join(self._input(nullable, name))}}}"
        if isinstance(nullable, GraphQLEnumType):
            return str(self._draw(st.sampled_from(sorted(nullable.values))))
        return self._leaf(name, nullable.name, owner)

    def _input(self, kind: GraphQLInputObjectType, name: str) -> list[str]:
        # A filter's lists are of the dimension that it is the filter of.
        if kind.is_one_of:
            member = self._draw(st.sampled_from(sorted(kind.fields)))
            inner = name if kind.name == "DimensionFilter" else member
            return [f"{member}: {self._value(inner, kind.fields[member].type, kind.name)}"]
        if kind.name == "PeriodInput":
            start, end = self._draw(_PERIODS)
            return [f'from: "{start}"', f'to: "{end}"']
        return self._arguments(kind.fields, kind.name)

    def _leaf(self, name: str, kind: str, owner: str) -> str:
        match kind:
            case "ID":
                # Of each kind as often, however many of it there are.
                kind_of_id = self._draw(st.sampled_from(sorted(self._found.ids)))
                return json.dumps(self._draw(st.sampled_from(self._found.ids[kind_of_id])))
            case "Int":
                return str(self._draw(st.sampled_from(NUMBERS[name])))
            case _ if kind in _LITERALS:
                return self._draw(st.sampled_from(_LITERALS[kind]))
            case _ if name == "after":
                return json.dumps(self._draw(st.sampled_from(self._found.cursors[owner])))
            case _:
                return json.dumps(self._draw(st.sampled_from(TEXTS[name])))
