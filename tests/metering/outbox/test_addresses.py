"""Where webhooks may be sent to."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.outbox.addresses import Allowed, is_public, target_of, url_faults

NOBODY = Allowed()


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.1", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1", "192.0.2.1",
        "198.18.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fd00:ec2::254", "fec0::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b:1::a00:1",
    ],
)  # fmt: skip
def test_no_network_s_own_address_is_public(address: str) -> None:
    """Loopback, private, shared, link-local and reserved addresses, also where they stand in one of IPv6."""
    assert not is_public(ip_address(address))


@given(st.one_of(st.ip_addresses(v=4), st.sampled_from(["8.8.8.8", "1.1.1.1"]).map(IPv4Address)))
def test_an_address_in_another_is_as_public_as_it_is(address: IPv4Address) -> None:
    """Mapped, translated, or tunnelled: what is reached in the end decides."""
    number = int(address)
    inside = (0xFFFF << 32 | number, 0x0064FF9B << 96 | number, 0x2002 << 112 | number << 80)

    assert all(is_public(IPv6Address(each)) == is_public(address) for each in inside)


@pytest.mark.parametrize(
    "url",
    [
        "", "hook", "ftp://example.com/", "https://", "http://example.com/", "https://user:word@example.com/",
        "https://example.com/#part", "https://example.com:70000/", "https://127.0.0.1/", "https://[::1]/x",
        "https://exa mple.com/", "https://example.com/\n", "https://ex\u00e4mple.com/", "https://example.com/" + "x" * 2_000,
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_meant_is_refused(url: str) -> None:
    """Each of these has a fault before anything is looked up; an address that is fine has none."""
    assert list(url_faults(url, NOBODY))
    assert [] == list(url_faults("https://example.com:8443/hooks?token=1", NOBODY))


def test_what_is_shown_of_an_address_has_no_path() -> None:
    """The path and what is asked by it may be a secret."""
    assert "https://example.com:8443/…" == target_of("https://example.com:8443/hooks/secret?token=1").shown
