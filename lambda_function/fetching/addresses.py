"""Which addresses are on the public internet. This rule keeps fetches out of our network.

Why not ``ipaddress``'s ``is_global``: it depends on the Python version, and it accepts multicast
and NAT64 forms of private addresses. Python 3.11 accepts ``2002:a9fe:a9fe::`` (6to4 for
169.254.169.254) and ``192.0.0.192`` (a cloud's metadata service).

The rule here lists the refused blocks, from IANA's special-purpose address registries
(https://www.iana.org/assignments/iana-ipv4-special-registry/ and
https://www.iana.org/assignments/iana-ipv6-special-registry/). IPv6 is limited to 2000::/3, the
only block of global unicast addresses.
"""

from __future__ import annotations

import ipaddress

NO_PUBLIC_ADDRESS = (  # for private hosts and for hosts that do not exist, word for word
    "The URL's host does not resolve to addresses on the public internet. "
    "Images are fetched from public servers only."
)

_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT, and one cloud's metadata service
        "127.0.0.0/8",  # loopback: the Lambda runtime API
        "168.63.129.16/32",  # public by number, but a cloud's own host agent
        "169.254.0.0/16",  # link-local: metadata and credentials services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocols, and one cloud's metadata service
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
_NAT64 = ipaddress.IPv6Network(
    "64:ff9b::/96"
)  # RFC 6052. An IPv6-only subnet reaches IPv4 through it
_ISATAP = 0x00005EFE  # RFC 5214: these 32 bits, without the u bit, stand before an IPv4 address


def is_public(address: str) -> bool:
    """Return whether an address may be connected to for a stranger.

    The IPv4 address inside decides for IPv4-mapped and NAT64 addresses. 6to4, Teredo, ISATAP and
    IPv4-compatible addresses are always refused.

    Args:
        address: as text, as ``getaddrinfo`` gives it.

    Returns:
        True for ``"8.8.8.8"``. False for ``"64:ff9b::a9fe:a9fe"`` and for text that is not an
        address.
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
