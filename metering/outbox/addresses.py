"""Where may be sent to: what an address must look like, and which machines it may lead to. Pure.

A webhook is a request that somebody else chose the target of. So it does not go to this machine, to the network that it is
in, or to the services that clouds have on link-local addresses, unless a setting allows that.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

import httpx2
import msgspec

from metering.limits import LIMITS

_PORT_MAX: Final = 65_535
# In these an IPv4 address stands in one of IPv6 and may be translated back: anybody's (RFC 6052), and a network's own (RFC 8215).
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
_TRANSLATED_LOCALLY: Final = IPv6Network("64:ff9b:1::/48")
_LOW_32_BITS: Final = 0xFFFF_FFFF


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator allows besides: addresses that are not public, and requests without TLS."""

    private: bool = False
    plain_http: bool = False


class Target(msgspec.Struct, frozen=True):
    """An address, taken apart. `shown` is what of it may be shown: the rest may be a secret."""

    scheme: str
    host: str
    port: int
    path: str
    shown: str


def url_faults(text: str, allowed: Allowed) -> Iterator[str]:
    """What is wrong with the address of a destination, as far as that can be known without looking up its host."""
    if (
        not 0 < len(text) <= LIMITS.destination_url_chars_max
        or not text.isascii()
        or not text.isprintable()
        or " " in text
    ):
        yield f"An address has 1 to {LIMITS.destination_url_chars_max:,} characters of ASCII, without spaces."
        return
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        yield f"This is no address: {error}."
        return
    if url.scheme not in {"https", "http"} or not url.host or not 0 < (url.port or 1) <= _PORT_MAX:
        yield "This is no address such as https://example.com/hooks/metering."
        return
    if url.scheme == "http" and not allowed.plain_http:
        yield "This must begin with https://; METERING_WEBHOOK_ALLOW_HTTP allows others."
    if url.userinfo or url.fragment:
        yield "An address has no user or password before the host, and no fragment behind a #."
    literal = _literal(url.host)
    if literal is not None and not may_reach(literal, allowed):
        yield f"{url.host} is not a public address; METERING_WEBHOOK_ALLOW_PRIVATE allows others."


def target_of(text: str) -> Target:
    """An address that url_faults() finds nothing wrong with, taken apart."""
    url = httpx2.URL(text)
    port = url.port or (443 if url.scheme == "https" else 80)
    origin = f"{url.scheme}://{url.netloc.decode()}"
    return Target(url.scheme, url.host, port, url.raw_path.decode(), f"{origin}/…")


def may_reach(address: IPv4Address | IPv6Address, allowed: Allowed) -> bool:
    """Whether a request may be sent to this machine."""
    return allowed.private or is_public(address)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the internet's, and not of some network's own; also where it only stands for another."""
    if isinstance(address, IPv6Address):
        inner = [each for each in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if each is not None]
        if address in _TRANSLATED:
            inner.append(IPv4Address(int(address) & _LOW_32_BITS))
        if inner:
            return all(map(is_public, inner))
        if address.is_site_local or address in _TRANSLATED_LOCALLY:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
