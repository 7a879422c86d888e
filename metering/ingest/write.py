"""One batch of requests, one transaction: who is new, who is a duplicate, who is in conflict; then COPY, then commit.

The good path assumes that every name is new and copies at once; the unique key of event_identity is the judge. Only when
it objects are the claimed names looked up, and what is new is copied again. Concurrent writers with the same names wait
for each other at that key, so the loser finds the winner's claim when it looks.
"""

from collections.abc import Sequence
from datetime import date, datetime

import msgspec

from metering.events import AdmittedEvent
from metering.ingest.receipts import Code, Receipt, Rejection
from metering.limits import Limits
from metering.store.event_log import Claim, EventLog
from metering.store.faults import CONTENTION


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """The events of one request that wait to be written, and what was refused before."""

    admitted: Sequence[tuple[int, AdmittedEvent]]
    rejected: Sequence[Rejection]
    received_at: datetime
    # All or nothing: a request of which anything is refused leaves nothing behind.
    atomic: bool = False


# A name as it is claimed: account, day, key.
Name = tuple[str, date, bytes]


class Sorted(msgspec.Struct, frozen=True):
    """A batch, sorted out: what is to be written, and the receipt of each submission once it is."""

    fresh: list[tuple[AdmittedEvent, datetime]]
    receipts: list[Receipt]


async def write_batch(log: EventLog, batch: Sequence[Submission], limits: Limits) -> list[Receipt]:
    """Write a batch durably and return a receipt for each submission, in order.

    Raises DatabaseUnavailableError; then nothing of the batch was acknowledged, and it may be sent again.
    """
    claimed: dict[Name, bytes] = {}
    for _attempt in range(limits.writer_retries_max):
        outcome = sort_out(batch, claimed)
        if not claimed and _contradicts_itself(batch, outcome):
            # Nothing of an atomic request that is refused is copied, so no key objects, whoever has its names: which of its
            # events are duplicates and which are conflicts is known only by looking.
            claimed = await log.find_claims([claim for submission in batch for claim in _claims(submission)])
            outcome = sort_out(batch, claimed)
        if not outcome.fresh:
            return outcome.receipts
        try:
            await log.append(outcome.fresh)
        except CONTENTION:
            # Somebody has, or had meanwhile, some of these names: look them up, and judge the whole batch again.
            claimed = await log.find_claims([claim for submission in batch for claim in _claims(submission)])
        else:
            return outcome.receipts
    raise AssertionError(f"a batch met contention {limits.writer_retries_max} times in a row")


def _contradicts_itself(batch: Sequence[Submission], outcome: Sorted) -> bool:
    """Whether an atomic request is refused without anybody having looked whose its names are."""
    return any(
        submission.atomic and receipt.rejected for submission, receipt in zip(batch, outcome.receipts, strict=True)
    )


def sort_out(batch: Sequence[Submission], claimed: dict[Name, bytes]) -> Sorted:
    """Decide, in order of arrival, what becomes of each event, given the names that are claimed already. Pure."""
    taken = dict(claimed)
    fresh: list[tuple[AdmittedEvent, datetime]] = []
    receipts: list[Receipt] = []
    for submission in batch:
        receipt, accepted, names = _judge(submission, taken)
        receipts.append(receipt)
        fresh.extend(accepted)
        taken.update(names)
    return Sorted(fresh, receipts)


def _judge(
    submission: Submission, taken: dict[Name, bytes]
) -> tuple[Receipt, list[tuple[AdmittedEvent, datetime]], dict[Name, bytes]]:
    accepted: list[tuple[AdmittedEvent, datetime]] = []
    rejected = list(submission.rejected)
    names: dict[Name, bytes] = {}
    duplicates = 0
    for index, event in submission.admitted:
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
