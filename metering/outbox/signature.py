"""Standard Webhooks signatures: HMAC-SHA256 over id, time and body, one for each secret that is in use. Pure."""

import hmac
from base64 import b64decode, b64encode
from binascii import Error as BinasciiError
from collections.abc import Mapping, Sequence
from typing import Final

_PREFIX: Final = "whsec_"
_VERSION: Final = "v1"
_HASH: Final = "sha256"
# Whoever receives refuses what was signed longer ago, or will be: it may have been recorded, and sent again.
TOLERANCE_SECONDS: Final = 300


def secret_text(secret: bytes) -> str:
    """A secret as people pass it on."""
    return _PREFIX + b64encode(secret).decode()


def secret_bytes(text: str) -> bytes:
    """The secret of such a text. Raises ValueError for one that is none."""
    try:
        return b64decode(text.removeprefix(_PREFIX), validate=True)
    except BinasciiError as error:
        raise ValueError("This is no secret of a webhook: whsec_ and base64.") from error


def signed_headers(secrets: Sequence[bytes], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that prove where a body comes from; a signature for each secret, the newest first."""
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_signature(secret, id, timestamp, body) for secret in secrets),
    }


def is_genuine(secret: bytes, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether a request was signed with this secret, a short while ago; header names in lower case."""
    try:
        timestamp = int(headers["webhook-timestamp"])
        given = headers["webhook-signature"].split(" ")
        expected = _signature(secret, headers["webhook-id"], timestamp, body)
    except (KeyError, ValueError):
        return False
    is_recent = abs(now - timestamp) <= TOLERANCE_SECONDS
    return is_recent and any(hmac.compare_digest(each.encode(), expected.encode()) for each in given)


def _signature(secret: bytes, id: str, timestamp: int, body: bytes) -> str:
    signed = b"%b.%d.%b" % (id.encode(), timestamp, body)
    return f"{_VERSION},{b64encode(hmac.digest(secret, signed, _HASH)).decode()}"
