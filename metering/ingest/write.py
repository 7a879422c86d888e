"""One batch of requests, one transaction: who is new, who is a duplicate, who is in conflict; then COPY, then commit.

The good path assumes that every name is new and copies at once; the unique key of event_identity is the judge. Only when
it objects are the claimed names looked up, and what is new is copied again. Concurrent writers with the same names wait
for each other at that key, so the loser finds the winner's claim when it looks.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from typing import TypeVar

import msgspec

from metering.errors import DatabaseUnavailableError
from metering.events import AdmittedEvent
from metering.ingest.admit import retention_fault
from metering.ingest.receipts import Code, Receipt, Rejection
from metering.ingest.refusals import Origin
from metering.limits import Limits
from metering.store.event_log import Claim, EventLog, ScatteredError, week_of
from metering.store.faults import CONTENTION
from metering.store.partitions import NotRetainedError
from metering.store.quarantine import Changes

Item = TypeVar("Item")


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """The events of one request that wait to be written, and what was refused before."""

    admitted: Sequence[tuple[int, AdmittedEvent]]
    rejected: Sequence[Rejection]
    received_at: datetime
    # Who sent them, and how they looked: what is kept of those that are refused.
    origin: Origin
    # All or nothing: a request of which anything is refused leaves nothing behind.
    atomic: bool = False

    @property
    def size(self) -> int:
        """How many events wait: those that were refused are written too."""
        return len(self.admitted) + len(self.rejected)

    @property
    def is_divisible(self) -> bool:
        """Whether some of it may be committed before the rest."""
        return self.origin.is_divisible and not self.atomic

    @property
    def weeks(self) -> set[date]:
        """Of which weeks its events are."""
        return {_week(event) for _, event in self.admitted}


# A name as it is claimed: account, day, key.
Name = tuple[str, date, bytes]


class Sorted(msgspec.Struct, frozen=True):
    """A batch, sorted out: what is to be written, and the receipt of each submission once it is."""

    fresh: list[tuple[AdmittedEvent, datetime]]
    receipts: list[Receipt]


async def write_batch(
    log: EventLog, batch: Sequence[Submission], limits: Limits, *, look_first: bool = False
) -> list[Receipt]:
    """Write a batch durably, with what is refused of it, and return a receipt for each submission, in order.

    With `look_first` the claimed names are looked up before anything is tried: dearer for a batch in which all is new,
    and much cheaper for one that would have been rolled back.

    A batch of one submission with events of very many weeks is written in parts, unless it has to be in one. Raises
    DatabaseUnavailableError; then nothing of the batch was acknowledged, and it may be sent again. And ScatteredError where
    several submissions together are of too many weeks; then nothing was written, and fewer may be written at a time.
    """
    if len(batch) > 1:
        return await _write_at_once(log, batch, limits, look_first=look_first, weeks_max=limits.batch_weeks_max)
    [submission] = batch
    if not submission.is_divisible:
        return await _write_at_once(log, batch, limits, look_first=look_first)
    try:
        return await _write_at_once(log, batch, limits, look_first=look_first, weeks_max=limits.batch_weeks_max)
    except ScatteredError:
        parts = in_parts(submission, limits.batch_weeks_max)
        written = [await _write_at_once(log, [part], limits, look_first=look_first) for part in parts]
        return [put_together([receipt for [receipt] in written])]


async def _write_at_once(
    log: EventLog, batch: Sequence[Submission], limits: Limits, *, look_first: bool, weeks_max: int | None = None
) -> list[Receipt]:
    """Write a batch in one transaction."""
    claimed = await _find_claims(log, batch) if look_first else {}
    for _attempt in range(limits.writer_retries_max):
        outcome = sort_out(batch, claimed)
        if not claimed and _contradicts_itself(batch, outcome):
            # Nothing of an atomic request that is refused is copied, so no key objects, whoever has its names: which of its
            # events are duplicates and which are conflicts is known only by looking.
            claimed = await _find_claims(log, batch)
            outcome = sort_out(batch, claimed)
        quarantine = _quarantine_changes(batch, outcome.receipts, limits)
        if not outcome.fresh and quarantine.is_nothing:
            return outcome.receipts
        try:
            await log.append(outcome.fresh, quarantine, weeks_max=weeks_max)
        except NotRetainedError as error:
            # What is retained moved on after these were admitted.
            batch = [retained(submission, error.taken_from) for submission in batch]
        except CONTENTION:
            # Somebody has, or had meanwhile, some of these names: look them up, and judge the whole batch again.
            claimed = await _find_claims(log, batch)
        else:
            return outcome.receipts
    raise DatabaseUnavailableError(
        f"Other writers were in the way of these events {limits.writer_retries_max} times in a row; send them again."
    )


def in_parts(submission: Submission, weeks_max: int) -> list[Submission]:
    """The submission, cut in its order into parts with events of no more weeks than this. Pure."""
    first, *others = in_runs(submission.admitted, lambda each: {_week(each[1])}, weeks_max)
    return [
        msgspec.structs.replace(submission, admitted=first),
        *(msgspec.structs.replace(submission, admitted=part, rejected=()) for part in others),
    ]


def in_runs(items: Iterable[Item], weeks_of: Callable[[Item], set[date]], weeks_max: int) -> list[list[Item]]:
    """The items in their order, in runs of no more weeks together than this; what has more is a run by itself. Pure."""
    runs: list[list[Item]] = []
    weeks: set[date] = set()
    for item in items:
        its_weeks = weeks_of(item)
        if not runs or len(weeks | its_weeks) > weeks_max:
            runs.append([])
            weeks = set()
        weeks |= its_weeks
        runs[-1].append(item)
    return runs


def _week(event: AdmittedEvent) -> date:
    return week_of(event.occurred_at.date())


def put_together(receipts: Sequence[Receipt]) -> Receipt:
    """The receipt of a submission, given those of its parts. Pure."""
    rejected = [rejection for receipt in receipts for rejection in receipt.rejected]
    return Receipt(
        sum(receipt.accepted for receipt in receipts),
        sum(receipt.duplicates for receipt in receipts),
        tuple(sorted(rejected, key=lambda rejection: rejection.index)),
    )


def retained(submission: Submission, taken_from: datetime) -> Submission:
    """The submission with those of its events refused that occurred before this instant. Pure."""
    code, path, message = retention_fault(taken_from)
    too_old = [
        Rejection(index, code, message, id=event.event.id, path=path)
        for index, event in submission.admitted
        if event.occurred_at < taken_from
    ]
    if not too_old:
        return submission
    return msgspec.structs.replace(
        submission,
        admitted=[each for each in submission.admitted if each[1].occurred_at >= taken_from],
        rejected=[*submission.rejected, *submission.origin.worded(too_old)],
    )


async def _find_claims(log: EventLog, batch: Sequence[Submission]) -> dict[Name, bytes]:
    claims = [claim for submission in batch for claim in _claims(submission)]
    return await log.find_claims(claims) if claims else {}


def _quarantine_changes(batch: Sequence[Submission], receipts: Sequence[Receipt], limits: Limits) -> Changes:
    changes = [
        submission.origin.changes(receipt, submission.received_at, limits)
        for submission, receipt in zip(batch, receipts, strict=True)
    ]
    return Changes(
        [row for each in changes for row in each.refused], [settled for each in changes for settled in each.settled]
    )


def _contradicts_itself(batch: Sequence[Submission], outcome: Sorted) -> bool:
    """Whether an atomic request is refused without anybody having looked whose its names are."""
    return any(
        submission.atomic and receipt.rejected for submission, receipt in zip(batch, outcome.receipts, strict=True)
    )


def sort_out(batch: Sequence[Submission], claimed: dict[Name, bytes]) -> Sorted:
    """Decide, in order of arrival, what becomes of each event, given the names that are claimed already. Pure."""
    suspects = _suspects(batch, claimed)
    taken = dict(claimed)
    fresh: list[tuple[AdmittedEvent, datetime]] = []
    receipts: list[Receipt] = []
    for submission in batch:
        receipt, accepted, names = _judge(submission, taken, suspects)
        receipts.append(receipt)
        fresh.extend(accepted)
        taken.update(names)
    return Sorted(fresh, receipts)


def _suspects(batch: Sequence[Submission], claimed: Iterable[Name]) -> set[bytes]:
    """The keys that somebody else may have, whatever the account and the day: nearly every event has none of them."""
    keys = [event.key for submission in batch for _, event in submission.admitted]
    suspects = {key for _, _, key in claimed}
    if len(set(keys)) < len(keys):
        suspects.update(key for key, times in Counter(keys).items() if times > 1)
    return suspects


def _judge(
    submission: Submission, taken: dict[Name, bytes], suspects: set[bytes]
) -> tuple[Receipt, list[tuple[AdmittedEvent, datetime]], dict[Name, bytes]]:
    accepted: list[tuple[AdmittedEvent, datetime]] = []
    rejected = list(submission.rejected)
    names: dict[Name, bytes] = {}
    duplicates = 0
    for index, event in submission.admitted:
        if event.key not in suspects:
            accepted.append((event, submission.received_at))
            continue
        account = event.event.account
        wanted = [(account, day, event.key) for day in event.days]
        # A name may be claimed on the one day by another event than on the other: it is a duplicate of either.
        contents = [found for name in wanted if (found := names.get(name) or taken.get(name)) is not None]
        if not contents:
            accepted.append((event, submission.received_at))
            names.update(dict.fromkeys(wanted, event.content))
        elif event.content in contents:
            duplicates += 1
        else:
            rejected.append(_conflict(index, event))
    rejected.sort(key=lambda rejection: rejection.index)
    if submission.atomic and rejected:
        return Receipt(0, 0, tuple(rejected)), [], {}
    return Receipt(len(accepted), duplicates, tuple(rejected)), accepted, names


def _conflict(index: int, event: AdmittedEvent) -> Rejection:
    message = (
        f"An event {event.event.id!r:.60} of source {event.source!r:.60} is recorded for this account and day with other "
        "content; the first one stays. Send a new id, or correct the recorded event."
    )
    return Rejection(index, Code.IDENTITY_CONFLICT, message, id=event.event.id, path="id")


def _claims(submission: Submission) -> list[Claim]:
    return [Claim(event.event.account, day, event.key) for _, event in submission.admitted for day in event.days]
