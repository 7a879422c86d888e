"""Everything at once: events at a pace, of which some repeat others and some are days late, and questions by chance."""

import argparse
import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, Final

import httpx2
import msgspec
from acknowledged import SIZE, Acknowledged, Bodies, Body
from bench import KEY, Usage, percentile
from live import account_of
from questions import SUBSCRIPTION

HEADERS: Final = {"Authorization": f"Bearer {KEY}"}
ANSWER_SECONDS_MAX: Final = 60
_SENDERS: Final = 4
# Twice as many as answers of 200 ms need: who asks does not wait for what others are answered.
_ASKERS: Final = 8
_REPEATED: Final = 0.01
_LATE: Final = 0.01
_AGAIN_AFTER_SECONDS: Final = 0.2
_QUARTERS: Final = 4

_USAGE: Final = "query ($query: UsageQuery!) { usage(query: $query) { ... on UsageReport { %s } } }"
_TOTALS: Final = "totals { unit quantity events }"
_TOP: Final = "groups(first: 20) { nodes { key { user } totals { quantity } } }"
_DAYS: Final = "groups(first: 10) { nodes { key { product } series(bucket: DAY) { columns { quantity } } } }"
_STATEMENT: Final = (
    "query ($subscription: String!, $at: DateTime!) { statement(subscription: $subscription, at: $at) "
    "{ ... on Statement { total { amount } lines { key amount { amount } } } ... on Problem { message } } }"
)
_HEALTH: Final = "query ($account: String!) { account(key: $account) { key health { score band drivers { metric } } } }"


def _usage(selection: str, days: float, now: datetime, narrowed: Mapping[str, object]) -> dict[str, Any]:
    period = {"from": f"{now - timedelta(days=days):%FT%TZ}", "to": f"{now:%FT%TZ}"}
    return {"query": _USAGE % selection, "variables": {"query": {"period": period, **narrowed}}}


def totals(days: float, now: datetime) -> dict[str, Any]:
    """The body of a request: what everybody used in so many days."""
    return _usage(_TOTALS, days, now, {})


def _asked(rolls: random.Random, now: datetime) -> tuple[str, dict[str, Any]]:
    """One question, by chance: its name, and the body of a request."""
    account = f"account-{account_of(rolls):04d}"
    one = {"filter": {"account": {"in": [account]}}}
    choices: dict[str, dict[str, Any]] = {
        "one account by day and product": _usage(_DAYS, 20, now, {"groupBy": ["PRODUCT"], **one}),
        "one account, top 20 users": _usage(_TOP, 20, now, {"groupBy": ["USER"], **one}),
        "everyone by day and product": _usage(_DAYS, 20, now, {"groupBy": ["PRODUCT"]}),
        "a statement": {
            "query": _STATEMENT,
            "variables": {"subscription": SUBSCRIPTION, "at": f"{now:%FT%TZ}"},
        },
        "health of an account": {"query": _HEALTH, "variables": {"account": account}},
    }
    name = rolls.choice(list(choices))
    return name, choices[name]


def pace(parser: argparse.ArgumentParser, minutes: float) -> None:
    """The options that say how much comes in, and for how long."""
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--events-a-second", type=int, default=5_000)
    parser.add_argument("--questions-a-second", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)


def told(given: argparse.Namespace, engine: str) -> str:
    """The same in words."""
    return f"{given.minutes:g} minutes, {given.events_a_second:,} events/s, {given.questions_a_second} questions/s, {engine}"


class Mixture:
    """What is sent and asked until it is over, and how it was answered. A request that is not answered is sent again."""

    def __init__(self, address: str, usage: Callable[[], Usage], given: argparse.Namespace) -> None:
        self._address = address
        self._usage = usage
        self._given = given
        self._bodies = Bodies(given.seed, _REPEATED, _LATE)
        self._rolls = random.Random(given.seed)
        self._until = time.monotonic() + 60 * given.minutes
        self._sent = self._questions = 0
        self.acknowledged = Acknowledged()
        self.tries: Counter[str] = Counter()
        # When each began, on the monotonic clock, and the seconds it took.
        self.took: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.faults: list[str] = []
        # Of questions that failed, when each began, and how long it was until it had failed.
        self.failed: list[tuple[float, float, str]] = []
        # Of the service, when and how many MiB it held.
        self.resident: list[tuple[float, float]] = []

    async def run(self) -> None:
        """Send and ask, to the end."""
        self.started = time.monotonic()
        async with httpx2.AsyncClient(base_url=self._address, headers=HEADERS, timeout=ANSWER_SECONDS_MAX) as client:
            await asyncio.gather(
                *(self._send(client) for _ in range(_SENDERS)),
                *(self._ask(client) for _ in range(_ASKERS)),
                self._look(),
            )
        self.seconds = time.monotonic() - self.started

    async def _send(self, client: httpx2.AsyncClient) -> None:
        while time.monotonic() < self._until:
            number, self._sent = self._sent, self._sent + 1
            await asyncio.sleep(self.started + number * SIZE / self._given.events_a_second - time.monotonic())
            body = self._bodies.body()
            receipt, is_again = await self._until_taken(client, body)
            fault = self.acknowledged.add(body, receipt, is_again=is_again)
            self.faults += [] if fault is None else [fault]
            self._bodies.acknowledged(body)

    async def _until_taken(self, client: httpx2.AsyncClient, body: Body) -> tuple[dict[str, Any], bool]:
        """The receipt of a body, and whether it took more than one try."""
        for tried in range(10_000):
            began = time.monotonic()
            try:
                answer = await client.post(
                    "/v1/events", content=body.text, headers={"Content-Type": "application/json"}
                )
            except httpx2.TransportError as error:
                self.tries[f"events: {type(error).__name__}"] += 1
            else:
                self.tries[f"events: {answer.status_code}"] += 1
                if answer.status_code == httpx2.codes.OK:
                    self.took[f"{SIZE} events"].append((began, time.monotonic() - began))
                    return msgspec.json.decode(answer.content), tried > 0
                if answer.status_code < httpx2.codes.INTERNAL_SERVER_ERROR:
                    raise SystemExit(f"{answer.status_code}: {answer.text}")
            await asyncio.sleep(_AGAIN_AFTER_SECONDS)
        raise SystemExit(f"body {body.name} is not taken")

    async def _ask(self, client: httpx2.AsyncClient) -> None:
        while time.monotonic() < self._until:
            number, self._questions = self._questions, self._questions + 1
            await asyncio.sleep(self.started + number / self._given.questions_a_second - time.monotonic())
            name, body = _asked(self._rolls, datetime.now(UTC))
            began = time.monotonic()
            try:
                answer = await client.post("/graphql", json=body)
            except httpx2.TransportError as error:
                outcome = type(error).__name__
                self.failed.append((began, time.monotonic() - began, f"{name}: {error!r}"))
                await asyncio.sleep(_AGAIN_AFTER_SECONDS)
            else:
                outcome = self._note(name, began, answer)
            self.tries[f"questions: {outcome}"] += 1

    def _note(self, name: str, began: float, answer: httpx2.Response) -> str:
        errors = msgspec.json.decode(answer.content).get("errors", ())
        if not errors:
            self.took[name].append((began, time.monotonic() - began))
            return str(answer.status_code)
        self.failed.append((began, time.monotonic() - began, f"{name}: {errors}"))
        return " ".join(each["extensions"]["code"] for each in errors)

    async def _look(self) -> None:
        while time.monotonic() < self._until:
            self.resident.append((time.monotonic(), self._usage().resident_mebibytes()))
            await asyncio.sleep(1)

    def counted(self) -> list[list[str]]:
        """What was acknowledged, and how often each answer came."""
        return [
            ["events acknowledged", f"{sum(self.acknowledged.events.values()):,}"],
            ["of them repeated besides", f"{self.acknowledged.duplicates:,}"],
            *([name, f"{number:,}"] for name, number in sorted(self.tries.items())),
        ]

    def memory(self) -> list[list[str]]:
        """The service's memory in each quarter of the time: the median, and the most."""
        size = max(1, len(self.resident) // _QUARTERS)
        starts = range(0, size * _QUARTERS, size)
        quarters = [[held for _, held in self.resident[start : start + size]] for start in starts]
        return [
            [f"quarter {number}", f"{median(held):.0f}", f"{max(held):.0f}"]
            for number, held in enumerate(quarters, 1)
            if held
        ]


def latency(name: str, answers: int, took: Sequence[float]) -> list[str]:
    """A row: what was asked, how often it was answered, and how long these answers took."""
    cells = [f"{1_000 * percentile(took, share):,.0f}" for share in (0.5, 0.99)] if took else ["", ""]
    return [name, f"{answers:,}", *cells]
