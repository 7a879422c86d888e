"""Signatures are those of Standard Webhooks, and hold what they sign."""

from hypothesis import given
from hypothesis import strategies as st

from metering.outbox.signature import TOLERANCE_SECONDS, is_genuine, secret_bytes, secret_text, signed_headers

SECRETS = st.binary(min_size=24, max_size=64)
TIMES = st.integers(min_value=0, max_value=2**40)


def test_the_example_of_the_standard_s_libraries_is_signed_as_they_do() -> None:
    """The secret, message and signature that the reference implementations are tested with."""
    secret = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')

    assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == headers["webhook-signature"]


@given(st.lists(SECRETS, min_size=1, max_size=4, unique=True), TIMES, st.binary(max_size=100), SECRETS)
def test_every_secret_in_use_verifies_and_no_other(
    secrets: list[bytes], timestamp: int, body: bytes, other: bytes
) -> None:
    """Whichever of the secrets a receiver knows, it finds its signature; a secret that is not among them finds none."""
    headers = signed_headers(secrets, "an-id", timestamp, body)

    assert all(is_genuine(secret, headers, body, timestamp) for secret in secrets)
    assert is_genuine(other, headers, body, timestamp) == (other in secrets)
    assert all(secret_bytes(secret_text(secret)) == secret for secret in secrets)


@given(SECRETS, TIMES, st.binary(min_size=1, max_size=100), st.data())
def test_what_was_changed_or_is_old_is_not_genuine(
    secret: bytes, timestamp: int, body: bytes, data: st.DataObject
) -> None:
    """Another body, id or time is found out, and so is a request that was recorded and is sent again later."""
    headers = signed_headers([secret], "an-id", timestamp, body)
    place = data.draw(st.integers(0, len(body) - 1))
    changed = bytes([*body[:place], body[place] ^ 1, *body[place + 1 :]])

    assert not is_genuine(secret, headers, changed, timestamp)
    assert not is_genuine(secret, {**headers, "webhook-id": "another"}, body, timestamp)
    assert not is_genuine(secret, {**headers, "webhook-timestamp": str(timestamp + 1)}, body, timestamp)
    assert not is_genuine(secret, headers, body, timestamp + TOLERANCE_SECONDS + 1)
    assert all(not is_genuine(secret, {**headers, name: "x"}, body, timestamp) for name in headers)
