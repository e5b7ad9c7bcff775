"""Addresses that nothing may be fetched from, and the ways to write them."""
# ruff: noqa: RUF001 (characters that look alike are among the tricks)

from __future__ import annotations

PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",  # a cloud's metadata
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # a cloud's host agent
    "169.254.100.1",
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
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "0:0:0:0:0:0:0:1",
    "2001:0:7f00:1::",
    "64:ff9b::169.254.169.254",
]
# Text that is no address for ``is_public``: names, zones, and spellings of other parsers.
NO_ADDRESSES = ("localhost", "", "2130706433", "0x7f.0.0.1", "fe80::1%eth0", "2606:4700::1%eth0")
# A host as somebody may write it, and the address that it means.
SPELLINGS = {
    "2130706433": "127.0.0.1",
    "0x7f000001": "127.0.0.1",
    "0X7F.1": "127.0.0.1",
    "0x7f.0x0.0x0.0x1": "127.0.0.1",
    "017700000001": "127.0.0.1",
    "0177.0.0.01": "127.0.0.1",
    "127.1": "127.0.0.1",
    "127.0.0.1.": "127.0.0.1",
    "１２７。０．０｡１": "127.0.0.1",
    "①②⑦.0.0.①": "127.0.0.1",
    "2852039166": "169.254.169.254",
    "0xa9fea9fe": "169.254.169.254",
    "0251.0376.0251.0376": "169.254.169.254",
    "①⑥⑨。②⑤④。①⑥⑨。②⑤④": "169.254.169.254",
    "0": "0.0.0.0",
}
