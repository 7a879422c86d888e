"""The seal on numbers of rows."""

from base64 import urlsafe_b64decode

from hypothesis import given
from hypothesis import strategies as st

from metering.seal import Seal

SEAL = Seal(b"a secret of this service")
NUMBERS = st.integers(0, 2**63 - 1)
KINDS = st.sampled_from(["Statement", "RejectedEvent", "CreditEntry"])


@given(KINDS, NUMBERS)
def test_a_number_comes_back(kind: str, number: int) -> None:
    """What was sealed is opened to the same number, whenever it is sealed and by whichever process has the secret."""
    sealed = SEAL.closed(kind, number)

    assert number == SEAL.opened(kind, sealed) == Seal(b"a secret of this service").opened(kind, sealed)
    assert sealed == SEAL.closed(kind, number)
    assert 22 == len(sealed)


@given(KINDS, KINDS, NUMBERS)
def test_nobody_else_opens_it(kind: str, other: str, number: int) -> None:
    """Sealed as another kind, or with another secret, it is no number; so numbers of one kind tell nothing of another's."""
    sealed = SEAL.closed(kind, number)

    assert (number if kind == other else None) == SEAL.opened(other, sealed)
    assert Seal(b"another secret").opened(kind, sealed) is None


@given(KINDS, st.one_of(st.text("aZ09-_=+ ü\0", max_size=30), st.text("abXYZ019-_", min_size=22, max_size=22)))
def test_what_was_not_sealed_is_no_number(kind: str, text: str) -> None:
    """Texts by chance, of the right length or not, are opened to nothing, and are no error."""
    assert SEAL.opened(kind, text) is None


@given(KINDS, st.integers(0, 2**40), st.integers(1, 3))
def test_what_is_next_does_not_look_so(kind: str, number: int, step: int) -> None:
    """Of numbers that follow each other no part stays the same, in either half: who has two cannot tell how far they are."""
    first, second = (urlsafe_b64decode(SEAL.closed(kind, each) + "==") for each in (number, number + step))

    assert first[:8] != second[:8]
    assert first[8:] != second[8:]
