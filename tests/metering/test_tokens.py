"""Tokens: taken when everything about them is right, refused with the reason when one thing is not."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

from metering.errors import KeySetUnavailableError, UnauthenticatedError
from metering.key_sets import KeySet
from metering.keys import Caller, Scope
from metering.limits import LIMITS
from metering.reach import EVERYTHING, Reach
from metering.tokens import Tokens

ISSUER, AUDIENCE = "https://issuer.test", "metering"
SECRET: Final = "a secret of at least thirty-two bytes"
PRIVATE: Final[dict[str, Any]] = {
    "RS256": rsa.generate_private_key(public_exponent=65_537, key_size=2_048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
LEEWAY: Final = timedelta(seconds=30)


def published(**keys: Any) -> bytes:
    """A key set of the public keys of these private ones, by their ids."""
    algorithms = get_default_algorithms()
    found = []
    for kid, private in keys.items():
        name = next(name for name, each in PRIVATE.items() if type(each) is type(private))
        found.append(json.loads(algorithms[name].to_jwk(private.public_key())) | {"kid": kid, "use": "sig"})
    return json.dumps({"keys": found}).encode()


def signed(algorithm: str = "RS256", key: Any = None, kid: str | None = None, **claims: Any) -> str:
    """A token that is good for a minute, but for what is said here; a claim that is None is left out."""
    told = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ana", "exp": time.time() + 60, "accounts": ["acme"], **claims}
    told = {name: value for name, value in told.items() if value is not None}
    return jwt.encode(told, key or PRIVATE[algorithm], algorithm, headers={"kid": kid or algorithm})


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A key set with a key of each kind."""
    file = tmp_path / "jwks.json"
    file.write_bytes(published(**PRIVATE))
    return file


def verified(source: Path | str | None, *tokens: str, secret: str | None = None) -> list[Caller | str]:
    """Who the tokens are of, or why each is refused."""

    async def verify() -> list[Caller | str]:
        keys = None if source is None else KeySet(str(source), LIMITS)
        verifier = Tokens(ISSUER, AUDIENCE, LIMITS, keys=keys, secret=secret, leeway=LEEWAY)
        outcomes: list[Caller | str] = []
        for token in tokens:
            try:
                outcomes.append(await verifier.caller(token))
            except UnauthenticatedError as error:
                outcomes.append(str(error))
        await verifier.close()
        return outcomes

    return asyncio.run(verify())


# ---------------------------------------------------------------- what is taken


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_each_algorithm(key_file: Path, algorithm: str) -> None:
    """A token is taken by each kind of public key, and says who asks, what it may do, and whose rows it reaches."""
    (caller,) = verified(key_file, signed(algorithm, scope="openid USAGE_READ CHARGES_READ", user="ana"))

    assert isinstance(caller, Caller)
    assert ("ana", frozenset({Scope.USAGE_READ, Scope.CHARGES_READ})) == (caller.name, caller.scopes)
    assert Reach(frozenset({"acme"}), user="ana") == caller.reach


def test_a_shared_secret() -> None:
    """With a shared secret and no key set, HS256 is taken, and only by that secret."""
    good, other, public = verified(
        None, signed("HS256", SECRET), signed("HS256", SECRET + "!"), signed("RS256"), secret=SECRET
    )

    assert isinstance(good, Caller)
    assert "This token's signature is not good, or it is no token at all." == other
    assert "A token must be signed with HS256; this says 'RS256'." == public


def test_every_account_is_said() -> None:
    """Who reaches everything says so with a star; subscriptions narrow accounts that are named."""
    everything, some = verified(
        None,
        signed("HS256", SECRET, accounts="*", scope=["ADMIN", "nothing"]),
        signed("HS256", SECRET, accounts=["a", "b"], subscriptions=["s"]),
        secret=SECRET,
    )

    assert isinstance(everything, Caller)
    assert isinstance(some, Caller)
    assert (EVERYTHING, frozenset({Scope.ADMIN})) == (everything.reach, everything.scopes)
    assert Reach(frozenset("ab"), frozenset("s")) == some.reach


def test_tokens_for_other_accounts_are_other_senders() -> None:
    """Tokens of one subject for different accounts are different senders, so neither sees what the other had refused."""
    callers = verified(
        None,
        *(signed("HS256", SECRET, accounts=[account]) for account in ("a", "b", "a")),
        signed("HS256", SECRET, accounts=["a"], user="x"),
        secret=SECRET,
    )
    senders = [caller.sender for caller in callers if isinstance(caller, Caller)]

    assert senders[0] == senders[2]
    assert 3 == len(set(senders))


@pytest.mark.parametrize("late", [-29, 29])
def test_clocks_may_differ_a_little(key_file: Path, late: int) -> None:
    """A token that expired within the leeway, or begins within it, is taken."""
    at = time.time() + late
    (caller,) = verified(key_file, signed(**({"exp": at} if late < 0 else {"nbf": at})))

    assert isinstance(caller, Caller)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "somebody else"}, "This token is for another audience than 'metering'."),
        ({"aud": None}, "This token does not say 'aud'; it must say exp, iss, aud."),
        ({"iss": "https://other.test"}, "This token is of another issuer than 'https://issuer.test'."),
        ({"iss": None}, "This token does not say 'iss'; it must say exp, iss, aud."),
        ({"exp": 1}, "This token has expired."),
        ({"exp": None}, "This token does not say 'exp'; it must say exp, iss, aud."),
        ({"nbf": 2**40}, "This token is not valid yet."),
        ({"accounts": None}, "This token's claims are not understood: Object missing required field `accounts`"),
        ({"accounts": "acme"}, "This token's claims are not understood: Invalid enum value 'acme' - at `$.accounts`"),
        ({"accounts": ["a\0"]}, "This token's claim `accounts`: This must have 1 to 256 characters"),
        ({"accounts": [""]}, "This token's claim `accounts`: This must have 1 to 256 characters"),
        ({"accounts": ["a"] * 1_001}, "This token's claim `accounts`: 1,001 values; 1,000 are taken."),
        ({"accounts": "*", "user": "ana"}, "A token for subscriptions, or for a user, must name their accounts."),
        ({"accounts": "*", "subscriptions": []}, "A token for subscriptions, or for a user, must name their accounts."),
        ({"sub": "x" * 257}, "This token's claim `sub`: This must have 1 to 256 characters"),
        ({"sub": "x" * 9_000}, "A token may have 8,192 bytes; this is longer."),
    ],
)
def test_what_a_token_must_say(key_file: Path, claims: dict[str, Any], reason: str) -> None:
    """A token is refused for each thing that it says wrong, or does not say; and the reason names it."""
    (outcome,) = verified(key_file, signed(**claims))

    assert isinstance(outcome, str)
    assert outcome.startswith(reason)


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _forged(algorithm: str, **header: str) -> str:
    """A token by hand: without a signature, or signed with what everybody knows."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60, "accounts": "*", "scope": "ADMIN"}
    signed_part = f"{_part({'alg': algorithm, 'typ': 'JWT', **header})}.{_part(claims)}"
    if algorithm.lower() == "none":
        return f"{signed_part}."
    public = PRIVATE["RS256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = hmac.HMAC(public, hashes.SHA256())
    signature.update(signed_part.encode())
    return f"{signed_part}.{base64.urlsafe_b64encode(signature.finalize()).rstrip(b'=').decode()}"


@pytest.mark.parametrize("secret", [None, SECRET])
@pytest.mark.parametrize(
    "token",
    [
        _forged("none"),
        _forged("none", kid="RS256"),
        _forged("None", kid="RS256"),
        # The public key is no secret: whoever knows it signs so.
        _forged("HS256", kid="RS256"),
        _forged("HS256"),
        signed("ES256", kid="RS256"),
        signed("RS256", rsa.generate_private_key(public_exponent=65_537, key_size=2_048)),
        signed("RS256", kid="unknown"),
        "ey.ey.ey",
        "..",
        "",
    ],
)
def test_no_forgery_is_taken(key_file: Path, token: str, secret: str | None) -> None:
    """No signature, another key's, another algorithm's than the key's, or one made with the public key: all are refused."""
    (outcome,) = verified(key_file, token, secret=secret)

    assert isinstance(outcome, str)


def test_no_shared_secret_comes_from_a_key_set(tmp_path: Path) -> None:
    """A key set that holds a shared secret, or a key for encryption, or one of a kind that is not taken, is read without it."""
    file = tmp_path / "jwks.json"
    keys = json.loads(published(RS256=PRIVATE["RS256"]))["keys"]
    secret = {"kty": "oct", "kid": "HS256", "k": base64.urlsafe_b64encode(SECRET.encode()).decode(), "alg": "HS256"}
    others = [{**keys[0], "kid": "enc", "use": "enc"}, {"kty": "RSA", "kid": "broken"}, {"kty": "new", "kid": "new"}]
    file.write_text(json.dumps({"keys": [secret, *others, *keys]}))
    shared, encryption, good = verified(
        file, signed("HS256", SECRET, kid="HS256"), signed("RS256", kid="enc"), signed("RS256")
    )

    assert "No key of the issuer has the id of this token's, 'HS256'." == shared
    assert "No key of the issuer has the id of this token's, 'enc'." == encryption
    assert isinstance(good, Caller)


# ---------------------------------------------------------------- an issuer's address


class Issuer:
    """An issuer's key set, served over HTTP; it can be changed, break down, and counts how often it is asked."""

    def __init__(self) -> None:
        self.body = published(**PRIVATE)
        self.status = 200
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.send_response(outer.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/jwks"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Be away: nobody listens any more."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer."""
    made = Issuer()
    yield made
    made.close()


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """What time it is."""
        return self.now


def played(source: str, scenario: Callable[[KeySet, Clock], Any]) -> None:
    """Play a scenario on a key set with a clock."""

    async def play() -> None:
        clock = Clock()
        keys = KeySet(source, LIMITS, clock)
        try:
            await scenario(keys, clock)
        finally:
            await keys.close()

    asyncio.run(play())


def test_keys_are_rotated(issuer: Issuer) -> None:
    """A new key is found as soon as a token names it, an old one is forgotten when the set is read anew."""

    async def scenario(keys: KeySet, clock: Clock) -> None:
        assert await keys.find("RS256") is not None
        assert await keys.find("new") is None
        assert 1 == issuer.asked
        issuer.body = published(new=PRIVATE["ES256"])
        clock.now += LIMITS.jwks_retry_seconds
        assert await keys.find("new") is not None
        assert 2 == issuer.asked
        assert await keys.find("RS256") is None

    played(issuer.address, scenario)


def test_an_unknown_key_is_not_asked_for_again_and_again(issuer: Issuer) -> None:
    """Whoever sends many tokens of unknown keys makes the service ask once, not once for each."""

    async def scenario(keys: KeySet, clock: Clock) -> None:
        found = await asyncio.gather(*(keys.find(f"unknown {number}") for number in range(50)))
        clock.now += LIMITS.jwks_retry_seconds - 1
        assert [None] * 51 == [*found, await keys.find("unknown")]
        assert 1 == issuer.asked

    played(issuer.address, scenario)


def test_a_key_set_is_read_anew_in_the_background(issuer: Issuer) -> None:
    """Whoever's key is known does not wait for the set to be read anew; what it says then holds."""

    async def scenario(keys: KeySet, clock: Clock) -> None:
        await keys.find("RS256")
        issuer.body = published(EdDSA=PRIVATE["EdDSA"])
        clock.now += LIMITS.jwks_fresh_seconds
        assert await keys.find("RS256") is not None
        # Its own read is under way: who asks for an unknown one waits for it.
        assert await keys.find("unknown") is None
        assert await keys.find("RS256") is None

    played(issuer.address, scenario)


@pytest.mark.parametrize("status", [500, 302, None])
def test_an_issuer_that_is_down(issuer: Issuer, status: int | None) -> None:
    """While the issuer is down what was read last holds for a while; then, or without it, tokens are to be sent again."""

    async def scenario(keys: KeySet, clock: Clock) -> None:
        await keys.find("RS256")
        if status is None:
            issuer.close()
        else:
            issuer.status = status
        clock.now += LIMITS.jwks_stale_seconds_max - 1
        assert await keys.find("RS256") is not None
        clock.now += LIMITS.jwks_retry_seconds
        with pytest.raises(KeySetUnavailableError):
            await keys.find("RS256")

    played(issuer.address, scenario)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"keys": 1}',
        b"\xff",
        b" " * (LIMITS.jwks_bytes_max + 1),
        b'{"keys": [%s]}' % b",".join([b"{}"] * 101),
    ],
)
def test_what_is_no_key_set(issuer: Issuer, body: bytes) -> None:
    """A source that answers with something else, or too much of it, is as one that is down; nothing else breaks."""
    issuer.body = body

    async def scenario(keys: KeySet, clock: Clock) -> None:
        with pytest.raises(KeySetUnavailableError):
            await keys.find("RS256")
        issuer.body = published(**PRIVATE)
        clock.now += LIMITS.jwks_retry_seconds
        assert await keys.find("RS256") is not None

    played(issuer.address, scenario)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A key set that is a file is read when it appears."""
    file = tmp_path / "jwks.json"

    async def scenario(keys: KeySet, clock: Clock) -> None:
        with pytest.raises(KeySetUnavailableError):
            await keys.find("RS256")
        file.write_bytes(published(RS256=PRIVATE["RS256"]))
        clock.now += LIMITS.jwks_retry_seconds
        # The only key there is also verifies tokens that name none.
        assert await keys.find("RS256") is await keys.find(None) is not None

    played(str(file), scenario)
