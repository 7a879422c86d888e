"""Digests of keys: what is kept of a secret. They are keyed, so that whoever reads the table can try no guesses on it.

The service's own secret is METERING_KEY_SECRET, or else one that was made at first start and is kept in the database. Keys
that were made before there was one, or with another one, go on working: each of their digests is looked for.
"""

import hmac
import secrets
from hashlib import sha256
from typing import Final

from metering.store.pool import Database
from metering.store.queries import sql

_HASH: Final = "sha256"
_SECRET_BYTES: Final = 32


class Digests:
    """Makes digests; knows the service's secrets once it was asked."""

    def __init__(self, database: Database, key_secret: str | None) -> None:
        self._database = database
        self._key_secret = key_secret
        self._secrets: tuple[bytes, ...] = ()

    async def of(self, secret: str) -> list[bytes]:
        """What may be kept of a key's secret: first as it is kept now, then as it was before."""
        if not self._secrets:
            kept = await kept_secret(self._database)
            self._secrets = (kept,) if self._key_secret is None else (self._key_secret.encode(), kept)
        written = secret.encode()
        return [*(hmac.digest(own, written, _HASH) for own in self._secrets), sha256(written).digest()]


async def kept_secret(database: Database) -> bytes:
    """The secret in the database; made where there is none, by whoever is first."""
    async with database.connection() as connection:
        await connection.execute(sql("keys.make_secret"), secrets.token_bytes(_SECRET_BYTES))
        kept: bytes = await connection.fetchval(sql("keys.read_secret"))
    return kept
