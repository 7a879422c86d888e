"""One attempt: a request to a destination, over HTTP, and how it ended. No redirects, no proxies, no cookies.

A host is looked up by us, once for each connection; every address that it has is looked at, and the connection is made to
one of these. So nobody can answer one address to who checks and another one to who connects.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final

import httpcore2

from metering.limits import Limits
from metering.outbox.addresses import Allowed, Target, may_reach, target_of
from metering.outbox.schedule import Answer, retry_after_seconds

USER_AGENT: Final = "metering-webhooks"
# Connections that nothing was sent over for so long are closed; their address was looked up not long ago.
_IDLE_SECONDS_MAX: Final = 5.0


class Courier:
    """Sends, over connections that it keeps for a moment."""

    def __init__(self, limits: Limits, allowed: Allowed, clock: Callable[[], datetime]) -> None:
        self._limits = limits
        self._clock = clock
        self._pool = httpcore2.AsyncConnectionPool(
            max_connections=limits.deliveries_max,
            keepalive_expiry=_IDLE_SECONDS_MAX,
            network_backend=_Checked(allowed),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.aclose()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """POST a body. What goes wrong is an answer; no part of what is answered besides its status is kept."""
        target = target_of(url)
        host = target.host if ":" not in target.host else f"[{target.host}]"
        default = {"https": 443, "http": 80}[target.scheme]
        given = {
            "Host": host if target.port == default else f"{host}:{target.port}",
            "User-Agent": USER_AGENT,
            "Content-Length": str(len(body)),
            **headers,
        }
        seconds = self._limits.delivery_seconds_max
        try:
            async with asyncio.timeout(seconds):
                return await self._sent(_url(target), given, body)
        except TimeoutError:
            return Answer(fault=f"nothing was answered within {seconds} s")
        except _NotAllowedError as error:
            return Answer(fault=str(error))
        except httpcore2.ProtocolError as error:
            # The driver says what it was answered instead, which nobody is to read through us.
            return Answer(fault=f"{type(error).__name__}: what was answered is no HTTP, or ends too soon")
        except _FAILED as error:
            return Answer(fault=f"{type(error).__name__}: {error}"[: self._limits.delivery_fault_chars_max])

    async def _sent(self, url: httpcore2.URL, headers: Mapping[str, str], body: bytes) -> Answer:
        written = [(name.encode(), value.encode()) for name, value in headers.items()]
        async with self._pool.stream("POST", url, headers=written, content=body) as response:
            # Read, so that the connection can be used again, as far as anybody reads an answer; and thrown away.
            read_bytes = 0
            async for piece in response.aiter_stream():
                read_bytes += len(piece)
                if read_bytes > self._limits.delivery_answer_bytes_max:
                    break
            answered = {name.lower(): value for name, value in response.headers}
            asked = answered.get(b"retry-after")
            return Answer(
                status=response.status,
                retry_after_seconds=retry_after_seconds(
                    None if asked is None else asked.decode("latin-1"), self._clock()
                ),
            )


def _url(target: Target) -> httpcore2.URL:
    return httpcore2.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)


# What becomes of requests; a name that cannot be one of a host is a UnicodeError.
_FAILED: Final = (
    OSError,
    UnicodeError,
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
)


class _NotAllowedError(Exception):
    """The host has an address that may not be sent to."""


class _Checked(httpcore2.AsyncNetworkBackend):
    """Connects to hosts all of whose addresses are allowed."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first of the host's addresses that answers."""
        fault: Exception | None = None
        for address in await self._looked_up(host, port):
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                fault = error
        raise fault or httpcore2.ConnectError(f"{host} has no address")

    async def _looked_up(self, host: str, port: int) -> Sequence[str]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(place[0]).partition("%")[0] for *_, place in found))
        refused = [each for each in addresses if not may_reach(ip_address(each), self._allowed)]
        if refused:
            raise _NotAllowedError(f"{host} is at {refused[0]}, which is not a public address")
        return addresses

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
