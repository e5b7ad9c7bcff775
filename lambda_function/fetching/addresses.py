"""Which addresses are on the public internet: the rule that keeps fetches out of our network.

Why not ``ipaddress``'s ``is_global``: its answer depends on the Python version (3.11 takes
``2002:a9fe:a9fe::``, 6to4 for 169.254.169.254, and ``192.0.0.192``, a cloud's metadata service,
for global), and it says yes to multicast and to NAT64 forms of private addresses. The rule here
is a list of what is refused, from IANA's special-purpose address registries
(https://www.iana.org/assignments/iana-ipv4-special-registry/ and
https://www.iana.org/assignments/iana-ipv6-special-registry/), with IPv6 limited to 2000::/3,
the only block from which global unicast addresses are given out.
"""

from __future__ import annotations

import ipaddress

NO_PUBLIC_ADDRESS = (  # for private hosts and for those that are not there, word for word
    "The URL's host does not resolve to addresses on the public internet; "
    "images are fetched from nowhere else."
)

_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; one cloud's metadata service
        "127.0.0.0/8",  # loopback: the Lambda runtime API
        "168.63.129.16/32",  # public by number, but a cloud's own host agent
        "169.254.0.0/16",  # link-local: metadata and credentials services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocols; one cloud's metadata service
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, withdrawn by RFC 7526
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(block)
    for block in (
        "2001::/23",  # IETF protocols: Teredo (2001::/32), ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address in disguise, withdrawn by RFC 7526
        "3fff::/20",  # documentation
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052; an IPv6-only subnet's way to IPv4
_ISATAP = 0x00005EFE  # RFC 5214: these 32 bits, the u bit aside, stand before an IPv4 address


def is_public(address: str) -> bool:
    """Say whether an address may be connected to on behalf of a stranger.

    IPv4-mapped and NAT64 addresses are judged by the IPv4 address inside. 6to4, Teredo,
    ISATAP and IPv4-compatible addresses are refused whatever is inside.

    Args:
        address: in text, as ``getaddrinfo`` gives it.

    Returns:
        ``is_public("8.8.8.8")`` is True, ``is_public("64:ff9b::a9fe:a9fe")`` is False, and so
        is anything that is not an address.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = _unwrapped(parsed)
        if inner is None:
            return _is_public_v6(parsed)
        parsed = inner
    return not any(parsed in block for block in _REFUSED_V4)


def _unwrapped(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _is_public_v6(address: ipaddress.IPv6Address) -> bool:
    isatap = (int(address) >> 32) & 0xFDFFFFFF == _ISATAP
    scoped = address.scope_id is not None
    refused = isatap or scoped or any(address in block for block in _REFUSED_V6)
    return address in _GLOBAL_V6 and not refused
