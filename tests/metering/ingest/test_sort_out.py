"""Of a batch, each event is new, a duplicate or in conflict; the first of a name stays, and every event is accounted for."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.events import AdmittedEvent, UsageEvent
from metering.ingest.admit import Admission, admit_one
from metering.ingest.bodies import PlainEvents
from metering.ingest.receipts import Code, Receipt, Rejection
from metering.ingest.refusals import Refusals
from metering.ingest.write import Name, Sorted, Submission, sort_out
from metering.limits import LIMITS
from tests.strategies import SOME

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
TERMS = Admission(limits=LIMITS, now=NOON + timedelta(days=30), restamp_window=timedelta(hours=1))


def event(
    id: str = "e-1",
    quantity: int = 1,
    at: datetime = NOON,
    *,
    account: str = "acme",
    source: str = "gateway",
    window: timedelta = TERMS.restamp_window,
) -> AdmittedEvent:
    """An event that was admitted; its quantity stands for its content."""
    sent = UsageEvent(
        id=id, source=source, account=account, occurred_at=at, product="maps", unit="call", quantity=Decimal(quantity)
    )
    outcome = admit_one(0, sent, msgspec.structs.replace(TERMS, restamp_window=window))
    assert isinstance(outcome, AdmittedEvent)
    return outcome


def submission(*events: AdmittedEvent, rejected: Sequence[int] = (), atomic: bool = False) -> Submission:
    """A request of these events, with events that were refused before at some indexes."""
    count = len(events) + len(rejected)
    indexes = [index for index in range(count) if index not in rejected]
    return Submission(
        admitted=list(zip(indexes, events, strict=True)),
        rejected=[Rejection(index, Code.TEXT_INVALID, "refused before.") for index in rejected],
        received_at=NOON,
        origin=Refusals("test", PlainEvents()),
        atomic=atomic,
    )


def names_of(events: Sequence[AdmittedEvent]) -> dict[Name, bytes]:
    """The names that these events claim, and their content."""
    return {(one.event.account, day, one.key): one.content for one in events for day in one.days}


def written(outcome: Sorted) -> list[AdmittedEvent]:
    """The events that are to be written."""
    return [fresh for fresh, _ in outcome.fresh]


def counts(receipt: Receipt) -> tuple[int, int, list[tuple[int, Code]]]:
    """A receipt in short: accepted, duplicates, and the rejected by index and code."""
    return receipt.accepted, receipt.duplicates, [(refusal.index, refusal.code) for refusal in receipt.rejected]


# ---------------------------------------------------------------- cases

LATE = NOON.replace(hour=23, minute=30)
EARLY = LATE + timedelta(hours=1)
CONFLICT = Code.IDENTITY_CONFLICT


@pytest.mark.parametrize(
    ("recorded", "sent", "expected"),
    [
        pytest.param([], [event()], (1, 0, []), id="new"),
        pytest.param([], [], (0, 0, []), id="nothing"),
        pytest.param([], [event(), event()], (1, 1, []), id="sent twice in one request"),
        pytest.param([event()], [event()], (0, 1, []), id="recorded already"),
        pytest.param([], [event(), event(quantity=2)], (1, 0, [(1, CONFLICT)]), id="other content in one request"),
        pytest.param([event()], [event(quantity=2)], (0, 0, [(0, CONFLICT)]), id="other content recorded"),
        pytest.param(
            [], [event(), event(quantity=2), event(), event(quantity=2)], (1, 1, [(1, CONFLICT), (3, CONFLICT)]),
            id="the first stays, whatever comes between",
        ),
        pytest.param([event()], [event("e-2")], (1, 0, []), id="another id"),
        pytest.param([event()], [event(source="other")], (1, 0, []), id="another source"),
        pytest.param([event()], [event(account="other", quantity=2)], (1, 0, []), id="another account"),
        pytest.param(
            [event(id="b/c", source="a")], [event(id="c", source="a/b", quantity=2)], (1, 0, []), id="the same letters"
        ),
        pytest.param([event()], [event(at=NOON + timedelta(hours=1))], (0, 1, []), id="stamped anew on the same day"),
        pytest.param(
            [event()], [event(at=NOON + timedelta(days=1), quantity=2)], (1, 0, []), id="the same name on another day"
        ),
        pytest.param([event(at=LATE)], [event(at=EARLY)], (0, 1, []), id="stamped anew over midnight"),
        pytest.param([event(at=EARLY)], [event(at=LATE)], (0, 1, []), id="stamped anew over midnight, out of order"),
        pytest.param(
            [event(at=LATE)], [event(at=EARLY, quantity=2)], (0, 0, [(0, CONFLICT)]), id="a conflict over midnight"
        ),
        pytest.param([], [event(at=LATE), event(at=EARLY)], (1, 1, []), id="over midnight in one request"),
        pytest.param(
            [], [event(at=LATE, window=timedelta(0)), event(at=EARLY, window=timedelta(0))], (2, 0, []),
            id="over midnight without a window",
        ),
        pytest.param(
            [event(window=timedelta(hours=24))], [event(at=NOON + timedelta(hours=24), window=timedelta(hours=24))],
            (0, 1, []), id="a day later within a window of a day",
        ),
    ],
)  # fmt: skip
def test_one_request(
    recorded: list[AdmittedEvent], sent: list[AdmittedEvent], expected: tuple[int, int, list[tuple[int, Code]]]
) -> None:
    """An event whose name is claimed is a duplicate or a conflict, as its content says; any other is written."""
    outcome = sort_out([submission(*sent)], names_of(recorded))

    assert expected == counts(outcome.receipts[0])
    assert expected[0] == len(outcome.fresh)


def test_a_conflict_is_named() -> None:
    """A conflict says which event it is, where its name stands, and what to do."""
    (receipt,) = sort_out([submission(event("e-13", 2), rejected=[0])], names_of([event("e-13")])).receipts
    conflict = receipt.rejected[1]

    assert (conflict.index, conflict.id, conflict.path) == (1, "e-13", "id")
    assert "'e-13'" in conflict.message
    assert "Send a new id, or correct the recorded event." in conflict.message


def test_rejections_are_in_the_order_of_the_request() -> None:
    """What was refused before and what is in conflict are told together, by index."""
    sent = submission(event("a"), event("b", 2), event("c"), event("d", 2), rejected=[0, 3, 5])

    (receipt,) = sort_out([sent], names_of([event("b"), event("d")])).receipts

    assert counts(receipt) == (
        2,
        0,
        [(0, Code.TEXT_INVALID), (2, CONFLICT), (3, Code.TEXT_INVALID), (5, Code.TEXT_INVALID), (6, CONFLICT)],
    )


def test_requests_of_one_batch_see_each_other() -> None:
    """Of two requests in one batch the first has the name, as if they had come one after the other."""
    outcome = sort_out([submission(event()), submission(event()), submission(event(quantity=2))], {})

    assert [counts(receipt) for receipt in outcome.receipts] == [(1, 0, []), (0, 1, []), (0, 0, [(0, CONFLICT)])]
    assert [event()] == written(outcome)


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(submission(event("a"), rejected=[1], atomic=True), id="refused before"),
        pytest.param(submission(event("a"), event("a", 2), atomic=True), id="in conflict with itself"),
        pytest.param(submission(event("a"), event("taken", 2), atomic=True), id="in conflict with what is recorded"),
    ],
)
def test_an_atomic_request_leaves_nothing_behind(refused: Submission) -> None:
    """All or nothing: nothing of a refused one is written, and its names are free for whoever comes next."""
    later = submission(event("a", quantity=5))

    outcome = sort_out([refused, later], names_of([event("taken")]))

    assert (outcome.receipts[0].accepted, outcome.receipts[0].duplicates) == (0, 0)
    assert len(outcome.receipts[0].rejected) == 1
    assert counts(outcome.receipts[1]) == (1, 0, [])
    assert [event("a", quantity=5)] == written(outcome)


def test_an_atomic_request_without_fault_is_like_any_other() -> None:
    """Duplicates are no fault: an atomic request may be sent again like any other."""
    sent = submission(event("a"), event("b"), event("a"), atomic=True)

    outcome = sort_out([sent, sent], {})

    assert [counts(receipt) for receipt in outcome.receipts] == [(2, 1, []), (0, 3, [])]


def test_each_event_keeps_when_its_request_was_received() -> None:
    """Requests that share a batch do not share the time at which they came."""
    batch = [
        msgspec.structs.replace(submission(event(id)), received_at=NOON + timedelta(seconds=index))
        for index, id in enumerate("ab")
    ]

    assert [NOON, NOON + timedelta(seconds=1)] == [received_at for _, received_at in sort_out(batch, {}).fresh]


def test_what_is_claimed_is_not_changed() -> None:
    """Sorting out only reads what is claimed: a batch may be judged again."""
    claimed = names_of([event("a")])

    sort_out([submission(event("b"))], claimed)

    assert names_of([event("a")]) == claimed


def test_a_duplicate_stays_a_duplicate() -> None:
    """A request sent again gets no conflict for its duplicate because another event took the name a day earlier."""
    recorded = event(at=EARLY + timedelta(hours=1))
    sent = submission(event(at=LATE), event(at=NOON, quantity=2))
    first = sort_out([sent], names_of([recorded]))

    again = sort_out([sent], names_of([recorded, *written(first)]))

    assert [(1, 1, [])] == [counts(receipt) for receipt in first.receipts]
    assert [(0, 2, [])] == [counts(receipt) for receipt in again.receipts]


# ---------------------------------------------------------------- properties: few names, so that they meet often

EVENTS = st.builds(
    lambda name, quantity, day, minute, account: event(
        name, quantity, datetime(2026, 3, day, tzinfo=UTC) + timedelta(minutes=minute), account=account
    ),
    st.sampled_from("ab"),
    st.integers(1, 2),
    st.integers(10, 12),
    st.sampled_from([0, 59, 60, 720, 1_379, 1_380, 1_439]),
    st.sampled_from(["acme", "other"]),
)


@st.composite
def submissions(draw: st.DrawFn) -> Submission:
    """Requests of a few events, some of them refused before, some of them atomic."""
    events = draw(st.lists(EVENTS, max_size=5))
    rejected = draw(st.lists(st.integers(0, len(events)), max_size=1))
    return submission(*events, rejected=rejected, atomic=draw(st.booleans()))


BATCHES = st.lists(submissions(), max_size=5)
RECORDED = st.lists(EVENTS, max_size=4).map(
    lambda events: names_of(written(sort_out([submission(*events)], {})))  # as they can be recorded
)


@SOME
@given(batch=BATCHES, claimed=RECORDED)
def test_receipts_add_up(batch: list[Submission], claimed: dict[Name, bytes]) -> None:
    """Accepted, duplicates and rejected are all events of a request, but for an atomic one that was refused."""
    outcome = sort_out(batch, claimed)

    assert len(batch) == len(outcome.receipts)
    for sent, receipt in zip(batch, outcome.receipts, strict=True):
        if sent.atomic and receipt.rejected:
            assert (receipt.accepted, receipt.duplicates) == (0, 0)
        else:
            told = receipt.accepted + receipt.duplicates + len(receipt.rejected)
            assert len(sent.admitted) + len(sent.rejected) == told
        indexes = [refusal.index for refusal in receipt.rejected]
        assert sorted(set(indexes)) == indexes
    assert len(outcome.fresh) == sum(receipt.accepted for receipt in outcome.receipts)


@SOME
@given(batch=BATCHES, claimed=RECORDED)
def test_no_name_is_claimed_twice(batch: list[Submission], claimed: dict[Name, bytes]) -> None:
    """What is written claims only names that nobody had, and each once: the unique key has nothing to object to."""
    names: list[tuple[str, date, bytes]] = [
        (fresh.event.account, day, fresh.key) for fresh in written(sort_out(batch, claimed)) for day in fresh.days
    ]

    assert len(names) == len(set(names))
    assert not set(names) & set(claimed)


@SOME
@given(batch=BATCHES, claimed=RECORDED, cut=st.integers(0, 5))
def test_batching_changes_nothing(batch: list[Submission], claimed: dict[Name, bytes], cut: int) -> None:
    """Requests in one batch fare as they would have in two, the first of them written before the second."""
    first = sort_out(batch[:cut], claimed)
    second = sort_out(batch[cut:], claimed | names_of(written(first)))

    whole = sort_out(batch, claimed)

    assert first.receipts + second.receipts == whole.receipts
    assert first.fresh + second.fresh == whole.fresh


@SOME
@given(batch=BATCHES, claimed=RECORDED)
def test_a_refused_atomic_request_changes_nothing_for_others(
    batch: list[Submission], claimed: dict[Name, bytes]
) -> None:
    """Without the atomic requests that were refused, everybody else fares the same."""
    whole = sort_out(batch, claimed)
    kept = [not (sent.atomic and receipt.rejected) for sent, receipt in zip(batch, whole.receipts, strict=True)]

    others = sort_out([sent for sent, keep in zip(batch, kept, strict=True) if keep], claimed)

    assert others.fresh == whole.fresh
    assert others.receipts == [receipt for receipt, keep in zip(whole.receipts, kept, strict=True) if keep]


@SOME
@given(batch=BATCHES, claimed=RECORDED)
def test_a_batch_sent_again_writes_nothing(batch: list[Submission], claimed: dict[Name, bytes]) -> None:
    """Any request may be sent again: nothing of it is written twice, and what was accepted is a duplicate then."""
    batch = [msgspec.structs.replace(sent, atomic=False) for sent in batch]
    first = sort_out(batch, claimed)
    recorded = claimed | names_of(written(first))

    assert sort_out(batch, recorded).fresh == []
    for accepted in written(first):
        assert [counts(receipt) for receipt in sort_out([submission(accepted)], recorded).receipts] == [(0, 1, [])]
