"""The public keys that tokens are verified with: a JSON Web Key Set in a file or at an address, read anew now and then.

An identity provider rotates its keys: it publishes the new one beside the old one, signs with it, and takes the old one away
later. So an unknown `kid` is looked for at once, though not more often than every few seconds, whoever asks for how many; and
what is known is read anew from time to time, in the background. Where that fails, what was read last holds for a while.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from metering.errors import KeySetUnavailableError
from metering.limits import Limits
from metering.telemetry import logger

# Signatures that one party makes and others can verify, with a key of each kind that is common.
ALGORITHMS: Final = frozenset({"RS256", "ES256", "EdDSA"})
_NEVER: Final = float("-inf")


class _Set(msgspec.Struct):
    """A key set as it is published; what is no key of ours is passed over."""

    keys: list[dict[str, Any]]


class _SetError(Exception):
    """Why a key set cannot be had."""


class KeySet:
    """Knows the keys of one source, a path or an address; reads it when it must."""

    def __init__(self, source: str, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._limits = limits
        self._clock = clock
        self._keys: Mapping[str | None, PyJWK] = {}
        self._read_at = _NEVER
        self._tried_at = _NEVER
        self._reading: asyncio.Task[None] | None = None
        # Of what was read: a verdict about a token is worth what the keys are that it was made with.
        self.revision = 0

    async def find(self, kid: str | None) -> PyJWK | None:
        """The key of this id; None where there is none. A token without an id is of the only key there is.

        Raises KeySetUnavailableError where no key is known, or none was to be had for long.
        """
        now = self._clock()
        if self._reading is None and now >= self._due_at(kid):
            self._tried_at = now
            self._reading = asyncio.create_task(self._read(), name="key-set")
        if self._reading is not None and (kid not in self._keys or self._is_stale(now)):
            # Shielded: others wait for it too.
            await asyncio.shield(self._reading)
        if self._is_stale(self._clock()):
            raise KeySetUnavailableError(f"The keys that tokens are verified with ({self._source}) cannot be had now.")
        return self._keys.get(kid)

    async def close(self) -> None:
        """Give up what is being read."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    def _due_at(self, kid: str | None) -> float:
        again_at = self._tried_at + self._limits.jwks_retry_seconds
        if kid not in self._keys:
            return again_at
        return max(again_at, self._read_at + self._limits.jwks_fresh_seconds)

    def _is_stale(self, now: float) -> bool:
        return now >= self._read_at + self._limits.jwks_stale_seconds_max

    async def _read(self) -> None:
        try:
            keys = _usable(await self._fetched(), self._limits)
        except _SetError as error:
            logger().warning("key_set_unavailable", source=self._source, reason=str(error))
        else:
            if keys.keys() != self._keys.keys():
                logger().info("key_set_read", source=self._source, keys=sorted(kid or "" for kid in keys))
            self._keys, self._read_at = keys, self._clock()
            self.revision += 1
        finally:
            self._reading = None

    async def _fetched(self) -> bytes:
        if not self._source.startswith(("https://", "http://")):
            return await asyncio.to_thread(_file, Path(self._source), self._limits)
        try:
            async with asyncio.timeout(self._limits.jwks_fetch_seconds_max):
                return await self._downloaded()
        except TimeoutError as error:
            raise _SetError(f"nothing whole came within {self._limits.jwks_fetch_seconds_max} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _SetError(f"{type(error).__name__}: {error}") from error

    async def _downloaded(self) -> bytes:
        body = bytearray()
        async with (
            httpx2.AsyncClient(timeout=self._limits.jwks_fetch_seconds_max, follow_redirects=False) as client,
            client.stream("GET", self._source, headers={"Accept": "application/json"}) as response,
        ):
            if response.status_code != httpx2.codes.OK:
                raise _SetError(f"the answer is {response.status_code}, not 200")
            async for piece in response.aiter_bytes():
                body += piece
                _check_size(len(body), self._limits)
        return bytes(body)


def _file(path: Path, limits: Limits) -> bytes:
    try:
        _check_size(path.stat().st_size, limits)
        return path.read_bytes()
    except OSError as error:
        raise _SetError(f"the file cannot be read: {error.strerror}") from error


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.jwks_bytes_max:
        raise _SetError(f"it is larger than {limits.jwks_bytes_max:,} bytes")


def _usable(body: bytes, limits: Limits) -> Mapping[str | None, PyJWK]:
    """The keys of a set by their ids, and the only one also without; raises _SetError for what is none."""
    try:
        published = msgspec.json.decode(body, type=_Set).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _SetError(f"it is no JSON Web Key Set: {error}") from error
    if len(published) > limits.jwks_keys_max:
        raise _SetError(f"it has {len(published):,} keys; {limits.jwks_keys_max:,} are taken")
    keys: dict[str | None, PyJWK] = {}
    for each in published:
        key = _key(each)
        if key is not None:
            keys[each.get("kid")] = key
    if len(keys) == 1:
        keys[None] = next(iter(keys.values()))
    else:
        keys.pop(None, None)
    return keys


def _key(published: dict[str, Any]) -> PyJWK | None:
    """A public key that verifies signatures; None for any other, above all for a shared secret, which no set should hold."""
    if published.get("kty") == "oct" or published.get("use", "sig") != "sig":
        return None
    if not isinstance(published.get("kid"), str | None):
        return None
    try:
        key = PyJWK(published)
    except (PyJWTError, ValueError, TypeError, KeyError):
        # Keys for other programs may be of kinds that we do not know.
        return None
    return key if key.algorithm_name in ALGORITHMS else None
