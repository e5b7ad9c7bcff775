"""Which addresses are public: IANA's registries, known tricks and the standard library."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_function.fetching.addresses import is_public
from tests.support.addresses import NO_ADDRESSES, PRIVATE

PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "93.184.215.14"),
    "100.63.255.255",  # the last before carrier-grade NAT
    "100.128.0.0",  # the first behind it
    *("172.15.255.255", "172.32.0.0", "223.255.255.255", "2606:4700:4700::1111"),
    *("2a00:1450:4001:80b::200e", "::ffff:8.8.8.8", "64:ff9b::808:808"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_these_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", [*PRIVATE, *NO_ADDRESSES])
def test_these_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses())
def test_only_addresses_that_the_standard_library_accepts_are_public(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert not is_public(str(address)) or address.is_global


@given(st.ip_addresses(v=4))
def test_the_ipv4_address_inside_decides_for_a_wrapped_address(
    address: ipaddress.IPv4Address,
) -> None:
    mapped = ipaddress.IPv6Address((0xFFFF << 32) + int(address))
    nat64 = ipaddress.IPv6Address((0x64FF9B << 96) + int(address))
    assert is_public(str(mapped)) == is_public(str(nat64)) == is_public(str(address))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_six_to_four_and_teredo_are_never_public(middle: int, low: int) -> None:
    assert not is_public(str(ipaddress.IPv6Address((0x2002 << 112) + (middle << 64) + low)))
    assert not is_public(str(ipaddress.IPv6Address((0x20010000 << 96) + (middle << 64) + low)))
