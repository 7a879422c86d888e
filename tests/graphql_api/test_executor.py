"""Breadth-first completion answers as the stock executor does: the same data, the same errors, at the same places."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from types import SimpleNamespace
from typing import Annotated, Any, Final

import pytest
import strawberry
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLSchema,
    execute,
    get_named_type,
    is_abstract_type,
    is_leaf_type,
    parse,
    validate,
)
from graphql.execution import Executor
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext as StockExecutor

from graphql_api import executor, turn
from graphql_api.executor import BreadthFirstExecutor
from graphql_api.scalars import CONFIG, BigInt, DecimalText, Instant, JsonObject
from graphql_api.schema import Schema
from tests.conftest import ENGINES, Server, running


@strawberry.enum
class Colour(Enum):
    """Leaves that are enums."""

    RED = "red"
    BLUE = "blue"


@strawberry.interface
class Named:
    """What gives a type a predicate."""

    name: str | None


@strawberry.type
class Part(Named):
    """A small object."""

    size: int
    colour: Colour | None


@strawberry.type
class Other:
    """Another member of the union."""

    text: str


@strawberry.type
class Claimed:
    """A type with a predicate of its own."""

    text: str

    @classmethod
    def is_type_of(cls, value: object, _info: object) -> bool:
        """Not for every object."""
        return isinstance(value, Claimed) and value.text != "not mine"


Either = Annotated[Part | Other, strawberry.union("Either")]


@strawberry.type
class Thing:
    """Everything that a field may be."""

    number: int
    share: float | None
    text: str | None
    flag: bool
    id: strawberry.ID
    amount: DecimalText
    at: Instant
    large: BigInt | None
    more: JsonObject | None
    colour: Colour
    tags: list[str]
    holes: list[int | None] | None
    grid: list[list[DecimalText] | None]
    part: Part
    maybe: Part | None
    parts: list[Part]
    gaps: list[Part | None] | None
    named: Named | None
    either: Either | None
    claimed: list[Claimed] | None
    things: "list[Thing]"

    @strawberry.field
    def doubled(self, by: int = 2) -> int:
        """With a resolver and an argument."""
        return self.number * by

    @strawberry.field
    async def later(self) -> str | None:
        """Awaited."""
        await asyncio.sleep(0)
        return self.text


@strawberry.type
class Query:
    """The root shows what it is given."""

    things: list[Thing]
    gaps: list[Thing | None] | None
    parts: list[Part] | None
    instants: list[Instant] | None
    numbers: list[int | None] | None
    grid: list[list[list[str] | None]] | None
    named: list[Named | None] | None
    either: list[Either] | None
    claimed: list[Claimed] | None


SCHEMA: Final[GraphQLSchema] = Schema(query=Query, types=[Part], config=CONFIG).core


# ---------------------------------------------------------------- data, good and bad


class Awaited:
    """A value that comes later, any number of times."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, None, Any]:
        """Come."""
        yield from asyncio.sleep(0).__await__()
        return self.value

    def __repr__(self) -> str:
        return "Awaited()"


BAD: Final = (None, RuntimeError("broken"), "bad", -1.5, 2**40, [], ["x"], {}, strawberry.UNSET)
ZONES: Final = (UTC, timezone(timedelta(hours=5, minutes=30)))


class Data:
    """Makes what the root shows, by chance; of spoiled data some values are not what the schema promises, or come later."""

    def __init__(self, rolls: random.Random, *, spoiled: bool) -> None:
        self._rolls = rolls
        # Few enough that most of an answer is left to compare, and none at all in some answers.
        self._bad = rolls.choice([0, 0.02, 0.08]) if spoiled else 0
        self._late = rolls.choice([0, 0.02]) if spoiled else 0
        self._lists = [list, tuple, deque] if spoiled else [list]

    def root(self) -> dict[str, Any]:
        """Every field of the root."""
        return {
            "things": self._some(lambda: self._thing(levels=1)),
            "gaps": self._some(lambda: self._or_none(self._thing(levels=0))),
            "parts": self._some(self._part),
            "instants": self._some(self._instant),
            "numbers": self._some(lambda: self._or_none(self._rolls.randrange(9))),
            "grid": self._some(lambda: self._some(lambda: self._or_none(self._some(self._text)))),
            "named": self._some(lambda: self._or_none(self._part())),
            "either": self._some(lambda: self._rolls.choice([self._part(), self._other()])),
            "claimed": self._some(self._claimed),
        }

    def _of(self, good: object) -> Any:
        roll = self._rolls.random()
        if roll < self._bad:
            return self._rolls.choice(BAD)
        return Awaited(good) if roll > 1 - self._late else good

    def _some(self, make: Callable[[], object]) -> Any:
        kind = self._rolls.choice(self._lists)
        return self._of(kind([self._of(make()) for _ in range(self._rolls.randrange(4))]))

    def _or_none(self, value: object) -> object:
        return self._rolls.choice([value, value, None])

    def _text(self) -> str:
        return self._rolls.choice(["", "a", "ü"])

    def _instant(self) -> datetime:
        return datetime(2026, 3, 1, 12, 30, 0, self._rolls.choice([0, 125_000]), tzinfo=self._rolls.choice(ZONES))

    def _amount(self) -> Decimal:
        return Decimal(self._rolls.choice(["0", "1.50", "1E+3", "-0.000000001", "1E-18", "12345678901234567890.5"]))

    def _part(self) -> Part:
        colour = self._or_none(self._rolls.choice(list(Colour)))
        return Part(name=self._of(self._text()), size=self._of(self._rolls.randrange(9)), colour=self._of(colour))

    def _other(self) -> Other:
        return Other(text=self._of(self._text()))

    def _claimed(self) -> Claimed:
        return Claimed(text=self._of("not mine" if self._rolls.random() < self._bad else self._text()))

    def _thing(self, levels: int) -> Thing:
        of, rolls = self._of, self._rolls
        return Thing(
            number=of(rolls.randrange(9)),
            share=of(self._or_none(rolls.random())),
            text=of(self._or_none(self._text())),
            flag=of(rolls.random() < 0.5),
            id=of("id"),
            amount=of(self._amount()),
            at=of(self._instant()),
            large=of(self._or_none(rolls.getrandbits(80))),
            more=of(self._or_none({"a": [1]})),
            colour=of(rolls.choice(list(Colour))),
            tags=self._some(self._text),
            holes=self._some(lambda: self._or_none(rolls.randrange(9))),
            grid=self._some(lambda: self._or_none(self._some(self._amount))),
            part=of(self._part()),
            maybe=of(self._or_none(self._part())),
            parts=self._some(self._part),
            gaps=self._some(lambda: self._or_none(self._part())),
            named=of(self._or_none(self._part())),
            either=of(rolls.choice([self._part(), self._other(), None])),
            claimed=self._some(self._claimed),
            things=self._some(lambda: self._thing(levels - 1)) if levels else [],
        )


# ---------------------------------------------------------------- queries


class Writer:
    """Writes selections, by chance."""

    def __init__(self, rolls: random.Random) -> None:
        self._rolls = rolls
        self._aliases = 0

    def document(self) -> DocumentNode:
        """A valid document over the whole schema."""
        assert SCHEMA.query_type is not None
        fields = self._selections(SCHEMA.query_type, 4)
        used = "used: things { ...A doubled(by: $by) number @skip(if: $no) flag @include(if: $yes) }"
        document = parse(f"{HEADER} {{ {fields} {used} }} {FRAGMENTS}")
        assert [] == validate(SCHEMA, document)
        return document

    def _selections(self, kind: Any, levels: int) -> str:
        names = ["__typename", *getattr(kind, "fields", {})]
        parts = [self._field(kind, name, levels) for name in self._rolls.choices(names, k=self._rolls.randrange(1, 5))]
        if is_abstract_type(kind):
            (member, *_) = SCHEMA.get_possible_types(kind)
            parts.append(f"... on {member.name} {{ {self._selections(member, levels - 1)} }}")
        if kind.name in SPREADS and self._rolls.random() < 0.3:
            parts.append(SPREADS[kind.name])
        return " ".join(parts)

    def _field(self, kind: Any, name: str, levels: int) -> str:
        below = ""
        inner = None if name == "__typename" else get_named_type(kind.fields[name].type)
        if inner is not None and not is_leaf_type(inner):
            if not levels:
                return "__typename"
            below = f" {{ {self._selections(inner, levels - 1)} }}"
        self._aliases += 1
        alias = self._rolls.choice(["", f"a{self._aliases}: "])
        arguments = self._rolls.choice(["", "(by: 3)", "(by: $by)"]) if name == "doubled" and alias else ""
        field = f"{alias}{name}{arguments}{self._rolls.choice(MARKS)}{below}"
        return self._rolls.choice([field, field, f"... {{ {field} }}", f"... on {kind.name} {{ {field} }}"])


HEADER: Final = "query ($by: Int = 2, $no: Boolean = false, $yes: Boolean = true)"
FRAGMENTS: Final = "fragment A on Thing { number tags part { ...B } parts { size } } fragment B on Part { name colour }"
SPREADS: Final = {"Thing": "...A", "Part": "...B"}
MARKS: Final = ("", "", "", " @skip(if: $no)", " @include(if: $yes)", " @include(if: false)")
VARIABLES: Final = ({}, {"by": 5}, {"no": True, "yes": False}, {"no": False, "yes": False})


def answered(
    executor: type[Executor[Any]], document: DocumentNode, root: object, variables: dict[str, Any] | None = None
) -> ExecutionResult:
    """What an executor answers."""

    async def run() -> ExecutionResult:
        result = execute(
            SCHEMA,
            document,
            root_value=root,
            variable_values=variables,
            executor_class=executor,
            is_awaitable=optimized_is_awaitable,
        )
        answer = await result if isinstance(result, Awaitable) else result
        # What an error has left behind comes to its end, too: cut off, its coroutines would complain.
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
        return answer

    return asyncio.run(run())


def told(result: ExecutionResult) -> list[tuple[Any, ...]]:
    """Everything that an answer says of its errors."""
    return [(error.message, error.path, error.locations) for error in result.errors or ()]


class Root:
    """What the root's fields read."""

    def __init__(self, shown: dict[str, Any]) -> None:
        self.__dict__.update(shown)


@given(st.integers(0, 2**64))
@settings(max_examples=300, deadline=None)
def test_bad_data_is_answered_as_by_the_stock_executor(seed: int) -> None:
    """Whatever is wrong with the data: the same data, and the same messages with the same paths in the same order."""
    rolls = random.Random(seed)
    document, variables = Writer(rolls).document(), rolls.choice(VARIABLES)
    root = Root(Data(rolls, spoiled=True).root())
    stock = answered(StockExecutor, document, root, variables)
    found = answered(BreadthFirstExecutor, document, root, variables)

    event("with errors" if stock.errors else "without errors")
    assert repr(stock.data) == repr(found.data)
    assert told(stock) == told(found)


@given(st.integers(0, 2**64))
@settings(max_examples=150, deadline=None)
def test_good_data_is_answered_as_by_the_stock_executor(seed: int) -> None:
    """Data that keeps the schema's promises has no errors, and is the same in every place."""
    rolls = random.Random(seed)
    document, variables = Writer(rolls).document(), rolls.choice(VARIABLES)
    root = Root(Data(rolls, spoiled=False).root())
    stock = answered(StockExecutor, document, root, variables)
    found = answered(BreadthFirstExecutor, document, root, variables)

    assert (None, None) == (stock.errors, found.errors)
    assert repr(stock.data) == repr(found.data)


# ---------------------------------------------------------------- what is completed how

PLAIN: Final = (
    "{ parts { __typename name size colour } numbers instants grid claims: parts { ...B } "
    "gaps { number tags holes grid part { size } maybe { name } parts { name } gaps { size } things { id } } } "
    "fragment B on Part { again: name }"
)


class Lookalike:
    """What a part has, and no part."""

    name, size, colour = "x", 1, None

    def __repr__(self) -> str:
        return "Lookalike()"


def a_thing(**fields: Any) -> Thing:
    """A thing with these fields instead of the usual ones."""
    part = Part(name=None, size=1, colour=Colour.RED)
    usual: dict[str, Any] = {
        "number": 1, "share": 0.5, "text": "a", "flag": True, "id": "b", "amount": Decimal("1.50"),
        "at": datetime(2026, 3, 1, tzinfo=UTC), "large": 2**70, "more": {}, "colour": Colour.BLUE, "tags": ["c"],
        "holes": [None, 1], "grid": [None, [Decimal(2)]], "part": part, "maybe": None, "parts": [part], "gaps": [None, part],
        "named": part, "either": part, "claimed": None, "things": [],
    }  # fmt: skip
    return Thing(**{**usual, **fields})


def a_root(*things: Thing) -> Root:
    """A root that shows these things."""
    part = Part(name="x", size=2, colour=None)
    lists = {"instants": [datetime(2026, 3, 1, tzinfo=UTC)], "numbers": [1, None], "grid": [[["a"], None]]}
    others = {"named": [part], "either": [part], "claimed": [Claimed(text="a")]}
    return Root({"things": list(things), "gaps": [None, *things], "parts": [part], **lists, **others})


def watched(monkeypatch: pytest.MonkeyPatch, method: str) -> list[str]:
    """The paths of what a method of the stock executor completes."""
    seen: list[str] = []
    complete = getattr(StockExecutor, method)

    def watching(self: Any, return_type: Any, nodes: Any, info: Any, path: Any, result: Any, context: Any) -> Any:
        seen.append(".".join(map(str, path.as_list())))
        return complete(self, return_type, nodes, info, path, result, context)

    monkeypatch.setattr(StockExecutor, method, watching)
    return seen


@pytest.fixture
def stock_objects(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of objects that the stock method completes."""
    return watched(monkeypatch, "complete_object_value")


@pytest.fixture
def stock_lists(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of lists that the stock method completes."""
    return watched(monkeypatch, "complete_list_value")


def test_what_is_plain_never_reaches_the_stock_method(stock_lists: list[str]) -> None:
    """Leaves, enums, lists in lists, nulls where they may be, objects in objects, fragments: all in one pass."""
    root = a_root(a_thing(), a_thing(things=[a_thing()]))
    found = answered(BreadthFirstExecutor, parse(PLAIN), root)

    assert found.errors is None
    assert [] == stock_lists
    assert found.data == answered(StockExecutor, parse(PLAIN), root).data
    assert "gaps.1.tags" in stock_lists


def test_a_plain_object_never_reaches_the_stock_method(stock_objects: list[str]) -> None:
    """Not where it stands in a list that has a resolver, either; an object with a resolver does, and with what is wrong."""
    document = parse("{ things { doubled part { name size } maybe { size } named { name } } }")
    root = a_root(a_thing(maybe=Part(name=None, size="bad", colour=None)))  # type: ignore[arg-type]
    found = answered(BreadthFirstExecutor, document, root)
    assert ["things.0", "things.0.maybe"] == stock_objects
    stock = answered(StockExecutor, document, root)

    assert (stock.data, told(stock)) == (found.data, told(found))
    assert [["things", 0, "maybe", "size"]] == [error.path for error in found.errors or ()]


@pytest.mark.parametrize(
    ("selection", "root"),
    [
        ("things { number doubled }", a_root(a_thing())),
        ("things { later }", a_root(a_thing())),
        ("things { either { __typename } }", a_root(a_thing())),
        ("things { number }", a_root(a_thing(number=None))),
        ("things { text }", a_root(a_thing(text=Awaited("late")))),
        ("things { number }", a_root(a_thing(number="bad"))),
        ("things { amount }", a_root(a_thing(amount=None))),
        ("things { parts { size } }", a_root(a_thing(parts=[Lookalike()]))),
        ("things { number }", a_root(a_thing(number=RuntimeError("broken")))),
        ("things { tags }", a_root(a_thing(tags=deque(["a"])))),
        ("claimed { text }", a_root()),
        ("named { name }", a_root()),
    ],
)
def test_what_is_not_plain_is_left_to_the_stock_method(stock_lists: list[str], selection: str, root: Root) -> None:
    """Resolvers, awaitables, unions, interfaces, predicates, and all that is wrong."""
    document = parse(f"{{ {selection} }}")
    found = answered(BreadthFirstExecutor, document, root)
    assert selection.partition(" ")[0] == stock_lists[0]
    stock = answered(StockExecutor, document, root)

    assert (stock.data, told(stock)) == (found.data, told(found))


def test_an_attribute_that_is_missing_is_an_error_at_its_place() -> None:
    """The other items of the list keep their values where they may."""
    broken = a_thing()
    del broken.text
    document = parse("{ gaps { text } }")
    found = answered(BreadthFirstExecutor, document, a_root(a_thing(), broken))

    assert {"gaps": [None, {"text": "a"}, {"text": None}]} == found.data
    assert [["gaps", 2, "text"]] == [error.path for error in found.errors or ()]


# ---------------------------------------------------------------- pauses


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every turn is over as soon as it has begun, and two items are many."""
    monkeypatch.setattr(turn, "_SECONDS_MAX", -1.0)
    monkeypatch.setattr(executor, "_ITEMS_AT_ONCE", 1)


def turns_of_others(selection: str, root: Root) -> tuple[int, ExecutionResult]:
    """How many turns the loop had while things were completed, and the answer."""

    async def run() -> tuple[int, ExecutionResult]:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        result = execute(
            SCHEMA,
            parse(f"{{ {selection} }}"),
            root_value=root,
            executor_class=BreadthFirstExecutor,
            is_awaitable=optimized_is_awaitable,
        )
        answer = await result if isinstance(result, Awaitable) else result
        counting.cancel()
        return turns, answer

    return asyncio.run(run())


@pytest.mark.usefixtures("hurried")
def test_a_long_list_leaves_turns_to_others() -> None:
    """Between the items of a list that is completed one by one others have a turn each, and the answer is the same."""
    things = [a_thing(number=number) for number in range(50)]
    selection = "things { doubled part { name } }"
    turns, found = turns_of_others(selection, a_root(*things))

    assert len(things) - 1 <= turns
    assert answered(StockExecutor, parse(f"{{ {selection} }}"), a_root(*things)).data == found.data


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("selection", ["things { number }", "things { later }"])
def test_what_is_plain_or_waits_is_asked_in_one_turn(selection: str) -> None:
    """A list in one pass takes no turn of its own; and items that wait all begin in one, so that one statement serves them."""
    few, many = (turns_of_others(selection, a_root(*([a_thing()] * count)))[0] for count in (2, 50))

    assert few == many


@pytest.mark.usefixtures("hurried")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**64), st.booleans())
def test_an_answer_with_pauses_is_the_stock_executors(seed: int, spoiled: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever the data: the same data, and errors where the stock executor has some; their order is that of the turns."""
    rolls = random.Random(seed)
    document, variables = Writer(rolls).document(), rolls.choice(VARIABLES)
    root = Root(Data(rolls, spoiled=spoiled).root())
    stock = answered(StockExecutor, document, root, variables)
    found = answered(BreadthFirstExecutor, document, root, variables)

    assert repr(stock.data) == repr(found.data)
    assert bool(stock.errors) == bool(found.errors)


def test_a_turn_begins_with_who_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is over for all who ask in it once its time is over, and begins anew in the next one."""
    at = iter([0.0, 0.001, 0.02, 0.02, 0.021])
    monkeypatch.setattr(turn, "time", SimpleNamespace(perf_counter=lambda: next(at)))

    async def asked() -> list[bool]:
        shared = turn.Turn()
        before = [shared.is_over() for _ in range(3)]
        await asyncio.sleep(0)
        return [*before, shared.is_over(), shared.is_over()]

    assert [False, False, True, False, False] == asyncio.run(asked())


# ---------------------------------------------------------------- the setting


def test_it_can_be_turned_off(servers: dict[str, Server], stock_lists: list[str]) -> None:
    """METERING_GRAPHQL_BREADTH_FIRST=false gives the same answer, from the stock executor."""
    query = "{ service { checks { name } } }"
    answers: Sequence[Any] = []
    with servers[ENGINES[0]].cloned() as url:
        for breadth_first, expected in ((True, []), (False, ["service.checks"])):
            with running(url, graphql_breadth_first=breadth_first) as api:
                answers = [*answers, api.ask(query)]
            assert expected == stock_lists

    assert answers[0] == answers[1]
