"""Which addresses are public: IANA's registries, known tricks and the standard library."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_function.fetching.addresses import is_public

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.215.14",
    "100.63.255.255",  # the last before carrier-grade NAT
    "100.128.0.0",  # the first behind it
    "172.15.255.255",
    "172.32.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]
PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",  # a cloud's metadata
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # a cloud's host agent
    "169.254.169.254",
    "169.254.170.2",  # container credentials
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",  # a cloud's metadata
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",  # IPv4-compatible 127.0.0.1
    "::8.8.8.8",  # IPv4-compatible, whatever is inside
    "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe",
    "::ffff:0:127.0.0.1",  # IPv4-translated, RFC 2765
    "64:ff9b::a9fe:a9fe",  # NAT64 169.254.169.254
    "64:ff9b::7f00:1",
    "64:ff9b:1::808:808",  # local-use NAT64: its prefix is anybody's
    "100::1",  # discard
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
    "2001:db8::1",
    "2001:2::1",
    "2002:a9fe:a9fe::",  # 6to4 169.254.169.254
    "2002:7f00:1::",
    "2002:808:808::1",  # 6to4, whatever is inside
    "2a00:1450::5efe:7f00:1",  # ISATAP 127.0.0.1
    "2a00:1450::200:5efe:10.0.0.1",
    "3fff::1",
    "4000::1",  # never given out
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # a cloud's metadata
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700:4700::1111%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "localhost",
    "",
    "2130706433",
    "0x7f.0.0.1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_these_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
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
