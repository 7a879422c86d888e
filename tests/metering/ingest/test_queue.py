"""The fair queue: nothing lost or doubled, everyone served in turn, and room that nobody can take from the others."""

from collections import Counter
from itertools import pairwise
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from metering.ingest.queue import FairQueue
from tests.strategies import MANY, SOME

ROOM = 40
BATCH = 10


class Piece(NamedTuple):
    """What waits: whose it is, how many its sender had put before, and its size."""

    sender: str
    number: int
    size: int


class Watched:
    """A queue beside all that was ever put into it and came out of it."""

    def __init__(self) -> None:
        self.queue: FairQueue[Piece] = FairQueue()
        self.numbers: Counter[str] = Counter()
        self.put_in: list[Piece] = []
        self.refused: list[Piece] = []
        self.sent_away: list[Piece] = []
        self.taken: list[list[Piece]] = []

    def put(self, sender: str, size: int, room: int = ROOM) -> list[Piece] | None:
        """Put the sender's next piece."""
        piece = Piece(sender, self.numbers[sender], size)
        self.numbers[sender] += 1
        expected = self.queue.would_take(sender, size, room)
        sent_away = self.queue.put(sender, piece, size, room)
        assert expected == (sent_away is not None)
        (self.refused if sent_away is None else self.put_in).append(piece)
        self.sent_away += sent_away or []
        return sent_away

    def take(self, size_max: int = BATCH) -> list[Piece]:
        """Take a batch."""
        batch = self.queue.take(size_max)
        self.taken.append(batch)
        return batch

    @property
    def waiting(self) -> list[Piece]:
        """What should be in the queue, oldest first."""
        gone = {*self.sent_away, *(piece for batch in self.taken for piece in batch)}
        return [piece for piece in self.put_in if piece not in gone]

    def lines(self) -> dict[str, list[Piece]]:
        """What should be in the queue, by sender."""
        found: dict[str, list[Piece]] = {}
        for piece in self.waiting:
            found.setdefault(piece.sender, []).append(piece)
        return found


def histories(whats: str, senders: str, sizes: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[str, str, int]]]:
    """What happens to a queue, one thing after another: p is a put, t is a take, each as often as the text has it."""
    return st.lists(st.tuples(st.sampled_from(whats), st.sampled_from(senders), sizes), max_size=80)


HISTORIES = histories("ppt", "abcdef", st.one_of(st.just(1), st.integers(1, 2 * BATCH)))
# Few batches, and a sender who puts more than the others: the queue is full most of the time.
CROWDED = histories("ppppppppt", "aaaabbbc", st.one_of(st.just(1), st.integers(1, 12)))


def held(pieces: list[Piece]) -> int:
    """The size of these pieces."""
    return sum(piece.size for piece in pieces)


@MANY
@given(history=st.one_of(HISTORIES, CROWDED))
def test_nothing_is_lost_or_doubled_and_lines_keep_their_order(history: list[tuple[str, str, int]]) -> None:
    """Whatever is put comes out once: taken in the order of its line, sent away, or in the rest; sizes always add up."""
    watched = Watched()
    for what, sender, size in history:
        if what == "p":
            watched.put(sender, size)
        else:
            watched.take(size)
        assert held(watched.waiting) == watched.queue.size <= ROOM
        assert bool(watched.waiting) == bool(watched.queue)
        assert {name: held(line) for name, line in watched.lines().items()} == {
            name: watched.queue.held(name) for name in "abcdef" if watched.queue.held(name)
        }
    taken = [piece for batch in watched.taken for piece in batch]
    expected = sorted(watched.waiting)
    rest = watched.queue.take_all()

    assert expected == sorted(rest)
    assert Counter(watched.put_in) == Counter([*taken, *watched.sent_away, *rest])
    for sender in "abcdef":
        numbers = [piece.number for piece in (*taken, *rest) if piece.sender == sender]
        assert all(before < after for before, after in pairwise(numbers))
    assert not watched.queue
    assert [] == watched.queue.take(BATCH)


@MANY
@given(history=HISTORIES)
def test_a_batch_is_as_full_as_it_can_be(history: list[tuple[str, str, int]]) -> None:
    """A batch is within its size, unless it is one large piece; and nothing that would have fitted is left first in line."""
    watched = Watched()
    for what, sender, size in history:
        if what == "p":
            watched.put(sender, size)
            continue
        batch = watched.take(size)
        assert held(batch) <= size or len(batch) == 1
        if held(batch) < size:
            assert all(line[0].size > size - held(batch) for line in watched.lines().values())


@MANY
@given(history=st.one_of(HISTORIES, CROWDED))
def test_nobody_waits_for_more_than_a_batch_of_each_other(history: list[tuple[str, str, int]]) -> None:
    """From when a sender's piece is first in its line, at most as many batches pass it by as other senders wait then."""
    watched = Watched()
    # For each sender that waits: how many batches may still pass it by.
    patience: dict[str, int] = {}
    for what, sender, size in history:
        if what == "p":
            if watched.put(sender, size) is not None:
                patience.setdefault(sender, len(patience))
            continue
        served = {piece.sender for piece in watched.take(size)}
        lines = watched.lines()
        for name in [name for name in patience if name not in served]:
            patience[name] -= 1
            assert patience[name] >= 0
        for name in served:
            del patience[name]
        patience |= {name: len(lines) - 1 for name in served if name in lines}


@MANY
@given(history=CROWDED)
def test_only_the_greedy_give_way(history: list[tuple[str, str, int]]) -> None:
    """Who is sent away held more than the newcomer then does, and keeps his first; who is refused would hold most."""
    watched = Watched()
    for what, sender, size in history:
        if what == "t":
            watched.take(size)
            continue
        before = watched.lines()
        would_hold = held(before.get(sender, [])) + size
        sent_away = watched.put(sender, size)
        left = {name: list(line) for name, line in before.items()}
        for piece in sent_away or []:
            greediest = max(held(line) for name, line in left.items() if name != sender and len(line) > 1)
            assert held(left[piece.sender]) == greediest > would_hold
            assert piece == left[piece.sender].pop()
        if sent_away is None:
            assert watched.lines() == before
            greedier = [line for name, line in before.items() if name != sender and held(line) > would_hold]
            # What they could give back until they hold no more than the newcomer would, but for a piece that is too large.
            assert held(watched.waiting) + size - ROOM > sum(_can_give(line, would_hold) for line in greedier)


def _can_give(line: list[Piece], would_hold: int) -> int:
    given = 0
    for piece in line[:0:-1]:
        if held(line) - given <= would_hold:
            break
        given += piece.size
    return given


@SOME
@given(greedy=st.integers(1, 5), size=st.integers(1, 3))
def test_one_event_never_waits_for_a_long_line(greedy: int, size: int) -> None:
    """A sender with one event comes in however much the others have put, and is written with the next batches."""
    watched = Watched()
    for number in range(1_000):
        watched.put(f"greedy-{number % greedy}", size, room=500)

    assert watched.put("small", 1, room=500) is not None
    batches = 0
    while all(piece.sender != "small" for piece in watched.take(50)):
        batches += 1
    assert batches <= greedy


def test_a_lone_sender_may_use_all_the_room() -> None:
    """Room is not kept free for others that do not come; the sender alone is refused when it is full."""
    watched = Watched()

    assert [[]] * ROOM == [watched.put("a", 1) for _ in range(ROOM)]
    assert watched.put("a", 1) is None
    assert [Piece("a", ROOM - 1, 1)] == watched.put("b", 1)


def test_the_greedy_give_what_they_have_more() -> None:
    """Whoever makes way keeps as much as the newcomer gets; where that is not enough, the newcomer is refused for nothing."""
    watched = Watched()
    for sender, pieces in (("a", 14), ("b", 13), ("c", 13)):
        for _ in range(pieces):
            watched.put(sender, 1)

    assert watched.put("d", 12) is None
    assert [] == watched.sent_away
    assert watched.put("d", 10) is not None
    assert dict.fromkeys("abcd", 10) == {sender: watched.queue.held(sender) for sender in "abcd"}


def test_large_and_small_requests_take_turns() -> None:
    """Between two pieces that fill a batch each, everything small of another sender that fits a batch is written."""
    watched = Watched()
    for _ in range(3):
        watched.put("large", BATCH)
    for _ in range(8):
        watched.put("small", 1)

    senders = ["".join(piece.sender[0] for piece in watched.take()) for _ in range(4)]
    assert ["l", "s" * 8, "l", "l"] == senders


def test_the_first_of_a_line_is_never_sent_away() -> None:
    """Where everyone has one piece waiting, nobody is greedy: a newcomer is refused, and no turn is lost."""
    watched = Watched()
    for sender in "abcd":
        watched.put(sender, ROOM // 4)

    assert watched.put("e", 1) is None
    assert [] == watched.sent_away
