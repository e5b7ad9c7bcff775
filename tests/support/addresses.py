"""Addresses that nothing may be fetched from, and the ways to write them."""
# ruff: noqa: RUF001 (characters that look alike are among the tricks)

from __future__ import annotations

PRIVATE = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "127.0.0.1", "127.255.255.254", "172.16.0.1"),
    "172.31.255.255",
    *("192.168.1.1", "169.254.100.1", "100.64.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.1"),
    "198.19.255.255",
    *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1"),
    "255.255.255.255",
    # Metadata, container credentials and host agents of clouds.
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
    "fd00:ec2::254",
    *("::", "::1", "0:0:0:0:0:0:0:1", "100::1", "2001:db8::1", "2001:2::1", "3fff::1", "4000::1"),
    "5f00::1",
    *("fc00::1", "fe80::1", "fec0::1", "ff02::1", "ff0e::1"),
    # IPv4 inside: compatible (whatever is inside), mapped, translated (RFC 2765), NAT64 (a
    # local-use prefix is anybody's), Teredo, 6to4 (whatever is inside), ISATAP.
    *("::7f00:1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::ffff:0:127.0.0.1"),
    *("64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "64:ff9b:1::808:808"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:0:7f00:1::"),
    *("2002:a9fe:a9fe::", "2002:7f00:1::", "2002:808:808::1"),
    *("2a00:1450::5efe:7f00:1", "2a00:1450::200:5efe:10.0.0.1"),
]
# Text that is no address for ``is_public``: names, zones, and spellings of other parsers.
NO_ADDRESSES = ("localhost", "", "2130706433", "0x7f.0.0.1", "fe80::1%eth0", "2606:4700::1%eth0")
# A host as somebody may write it, and the address that it means.
SPELLINGS = {
    **dict.fromkeys(("2130706433", "0x7f000001", "0X7F.1", "0x7f.0x0.0x0.0x1"), "127.0.0.1"),
    **dict.fromkeys(("017700000001", "0177.0.0.01", "127.1", "127.0.0.1."), "127.0.0.1"),
    **dict.fromkeys(("１２７。０．０｡１", "①②⑦.0.0.①"), "127.0.0.1"),
    **dict.fromkeys(("2852039166", "0xa9fea9fe", "0251.0376.0251.0376"), "169.254.169.254"),
    "①⑥⑨。②⑤④。①⑥⑨。②⑤④": "169.254.169.254",
    "0": "0.0.0.0",
}
