"""The seal on numbers of rows: outside of the service a number says nothing, neither of itself nor of how many came before.

Rows are numbered over all accounts, so two numbers of one's own would tell what others have done between them. What leaves the
service is the number as one block of AES, by a key for each kind of row. It is always the same text for the same row, so ids
stay good, and no text that the service did not hand out is the number of a row: half of the block is zeros.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BinasciiError
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

_BLOCK_BYTES: Final = 16
_NUMBER_MAX: Final = 2**63 - 1


class Seal:
    """Seals numbers with a secret of the service's own, which every process that shares the database shares."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._ciphers: dict[str, Cipher[ECB]] = {}

    def closed(self, kind: str, number: int) -> str:
        """The number, 0 to 2**63 - 1, of a row of this kind as text: 22 characters of base64url."""
        assert 0 <= number <= _NUMBER_MAX, "rows are numbered by a bigint"
        encryptor = self._cipher(kind).encryptor()
        block = encryptor.update(number.to_bytes(_BLOCK_BYTES, "big")) + encryptor.finalize()
        return urlsafe_b64encode(block).rstrip(b"=").decode()

    def opened(self, kind: str, text: str) -> int | None:
        """The number that a text is of; None where this was not sealed here, or of another kind."""
        try:
            block = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (BinasciiError, ValueError):
            return None
        if len(block) != _BLOCK_BYTES:
            return None
        decryptor = self._cipher(kind).decryptor()
        number = int.from_bytes(decryptor.update(block) + decryptor.finalize(), "big")
        return number if number <= _NUMBER_MAX else None

    def _cipher(self, kind: str) -> Cipher[ECB]:
        """The cipher of a kind; kinds are few, and the service's own words."""
        cipher = self._ciphers.get(kind)
        if cipher is None:
            key = hmac.digest(self._secret, b"numbers of " + kind.encode(), "sha256")
            # One block is all that is ever encrypted with it, so there is nothing that a mode could chain.
            cipher = self._ciphers[kind] = Cipher(AES(key), ECB())  # noqa: S305
        return cipher
