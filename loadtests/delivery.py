"""How soon a team is told: from the answer to a request with usage, and from the notification, to the webhook.

A service as it is shipped, on a server of its own, takes events of many accounts at a steady rate (live.py), which rules watch.
Beside them one event at a time brings a new account to the bound of another rule, at moments by chance; a receiver in this
process notes when it is told of that account.
"""

import argparse
import asyncio
import random
import time
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import httpx2
import msgspec
from bench import ENGINES, KEY, database, percentile, print_table, scratch, service
from client import Client
from live import Live

P99_SECONDS_MAX = 2.0
_PUT = """
mutation ($input: PutAlertRuleInput!) { putAlertRule(input: $input) { __typename ... on Problem { message } } }
"""
_METERS = """
mutation {
  calls: putMeter(input: {key: "calls", name: "Calls", unit: "call"}) { __typename }
  probes: putMeter(input: {key: "probes", name: "Probes", unit: "probe"}) { __typename }
}
"""
_DESTINATION = """
mutation ($url: String!) {
  putDestination(input: {key: "receiver", kind: WEBHOOK, url: $url, types: ["alert.raised"]}) { __typename }
}
"""


class Receiver:
    """Takes everything, and notes when, by account."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.all_told = asyncio.Event()
        # When it came, on the clock of time.perf_counter(), and how long after it was published.
        self.told: dict[str, tuple[float, float]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until the other side goes."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                event = msgspec.json.decode(await reader.readexactly(length))
                at, now = time.perf_counter(), datetime.now(UTC)
                published = datetime.fromisoformat(event["time"])
                account = event["data"]["dimensions"]["account"]
                self.told.setdefault(account, (at, (now - published).total_seconds()))
                if len(self.told) == self._count:
                    self.all_told.set()
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError):
            # The other side has gone, or all was measured.
            writer.close()


async def prepare(address: str, url: str, rules: int) -> None:
    """Meters, rules, and where to tell."""
    async with httpx2.AsyncClient(base_url=address, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:

        async def ask(query: str, **variables: Any) -> None:
            answer = (await client.post("/graphql", json={"query": query, "variables": variables})).json()
            if "errors" in answer or any("message" in each for each in answer["data"].values()):
                raise SystemExit(f"refused: {answer}")

        await ask(_METERS)
        await ask(_DESTINATION, url=url)
        probe = {"quantity": {"meter": "probes", "bucket": "DAY"}}
        await ask(_PUT, input={"key": "probe", "name": "A probe", "measure": probe, "threshold": "1"})
        for number in range(rules):
            by = (["ACCOUNT"], ["ACCOUNT", "USER"], ["ACCOUNT", "PRODUCT"])[number % 3]
            measure = {"quantity": {"meter": "calls", "bucket": ("DAY", "MONTH")[number % 2], "groupBy": by}}
            # Beyond what anybody comes to: that they are looked at is what it costs.
            await ask(_PUT, input={"key": f"rule-{number}", "name": "A rule", "measure": measure, "threshold": "1E+15"})


async def measured(address: str, count: int, rules: int, rate: int) -> tuple[list[float], list[float]]:
    """Seconds from the answer to a request, and from the notification, to the webhook; of each probe."""
    receiver, rolls, answered = Receiver(count), random.Random(1), {}
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    await prepare(address, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", rules)
    client = await Client.connect(address)
    async with Live(address, rate) as live:
        await asyncio.sleep(20)
        for number in range(count):
            await asyncio.sleep(rolls.uniform(0.1, 0.5))
            account = f"probe-{number}"
            event = {"id": account, "source": "probe", "account": account, "product": "probe", "unit": "probe"}
            event |= {"quantity": "1", "occurred_at": datetime.now(UTC).isoformat()}
            status, answer = await client.post(msgspec.json.encode([event]))
            if status != HTTPStatus.OK:
                raise SystemExit(f"{status}: {answer.decode()}")
            answered[account] = time.perf_counter()
            live.check()
        with suppress(TimeoutError):
            async with asyncio.timeout(60):
                await receiver.all_told.wait()
    client.close()
    server.close()
    if answered.keys() - receiver.told.keys():
        raise SystemExit(f"{len(answered.keys() - receiver.told.keys())} of {count} were never told")
    # Told before the answer was read is told at once.
    return (
        [max(0.0, receiver.told[account][0] - at) for account, at in answered.items()],
        [seconds for _, seconds in receiver.told.values()],
    )


def main() -> None:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="how many probes")
    parser.add_argument("--rules", type=int, default=10, help="how many rules watch the other events")
    parser.add_argument("--ingest-rate", type=int, default=1_000, help="events a second beside them")
    options = parser.parse_args()
    slow = False
    for engine in ENGINES:
        with scratch(engine) as directory, database(engine, directory) as (url, _):
            allowed = {"webhook_allow_private": "true", "webhook_allow_http": "true"}
            with service(url, **allowed) as (address, _):
                taken = asyncio.run(measured(address, options.count, options.rules, options.ingest_rate))
        rows = [
            [name, *(f"{percentile(seconds, share) * 1_000:,.0f}" for share in (0.5, 0.9, 0.99, 1.0))]
            for name, seconds in zip(("usage is acknowledged", "the alert is raised"), taken, strict=True)
        ]
        title = (
            f"From … to the webhook, ms, on {engine}: {options.count} alerts, {options.rules} more rules, "
            f"{options.ingest_rate:,} events/s"
        )
        print_table(title, ["from", "p50", "p90", "p99", "most"], rows)
        slow |= percentile(taken[0], 0.99) > P99_SECONDS_MAX
    if slow:
        raise SystemExit(f"the p99 is above {P99_SECONDS_MAX} s")


if __name__ == "__main__":
    main()
