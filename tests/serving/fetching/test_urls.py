"""Every URL has one reading. A URL that could have two is refused."""
# ruff: noqa: RUF001 (characters that look alike are what this is about)

from __future__ import annotations

import contextlib
import string
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lambda_function.errors import (
    AddressNotAllowedError,
    BadRequestError,
    FetchError,
    ServiceError,
)
from lambda_function.fetching.urls import (
    Target,
    loggable_url,
    normal_host_and_port,
    parse_location,
    parse_s3_uri,
    parse_url,
)
from tests.support.addresses import SPELLINGS

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = Target("https", "example.com", 443, "/a/b.jpg?x=1")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://example.com", Target("http", "example.com", 80, "/")),
        ("HTTPS://EXAMPLE.com./a?b=c#d", Target("https", "example.com", 443, "/a?b=c")),
        ("http://example.com:443/", Target("http", "example.com", 443, "/")),
        ("http://example.com:/", Target("http", "example.com", 80, "/")),
        ("http://example.com?q", Target("http", "example.com", 80, "/?q")),
        ("http://a_b.example/", Target("http", "a_b.example", 80, "/")),
        ("http://[2606:4700::0:1111]/", Target("http", "2606:4700::1111", 80, "/")),
        ("http://8.8.8.8/", Target("http", "8.8.8.8", 80, "/")),
        ("  http://example.com/a b ", Target("http", "example.com", 80, "/a%20b")),
        ("http://example.com/é", Target("http", "example.com", 80, "/%C3%A9")),
        ("http://example.com/%2e%2E/%00", Target("http", "example.com", 80, "/%2e%2E/%00")),
        (
            "http://example.com/a{b}|c\"d^e`f<g>h[i]~!$&'()*+,;=:@-._%7b",
            Target(
                "http",
                "example.com",
                80,
                "/a%7Bb%7D%7Cc%22d%5Ee%60f%3Cg%3Eh[i]~!$&'()*+,;=:@-._%7b",
            ),
        ),
        (
            'http://example.com/?a[]={b}|c^d`"<e>',
            Target("http", "example.com", 80, "/?a[]={b}|c^d`%22%3Ce%3E"),
        ),
    ],
)
def test_a_url_has_these_parts(url: str, expected: Target) -> None:
    assert parse_url(url) == expected


@pytest.mark.parametrize(("host", "expected"), [*SPELLINGS.items(), ("134744072", "8.8.8.8")])
def test_every_spelling_of_an_address_becomes_the_same(host: str, expected: str) -> None:
    target = parse_url(f"http://{host}/")
    assert target.host == expected
    assert target.is_address


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("bücher.example", "xn--bcher-kva.example"),  # the example of RFC 5890's predecessors
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),  # IANA's test domain
        ("аpple.example", "xn--pple-43d.example"),  # a Cyrillic first letter: another host
        ("gооgle.example", "xn--ggle-55da.example"),  # two Cyrillic letters among Latin ones
        ("ＧＯＯＧＬＥ.example", "google.example"),
        ("ⓢⓗⓞⓟ.example", "shop.example"),
    ],
)
def test_international_names_become_punycode(host: str, expected: str) -> None:
    assert parse_url(f"http://{host}/").host == expected


# Why a URL is not fetched, and such URLs.
REFUSED = {
    "no host": [
        *("", " ", "http:", "http:/", "http://", "http:///", "http://?", "http://#", "http://."),
        *("http://..", "http://.example.com", "http://a..b", "http://a\u3002\u3002b/"),
    ],
    "no scheme, or no slashes after it": [
        *("image.jpg", "example.com/image.jpg", "//example.com/", "http:example.com"),
        *("https:/me:password@example.com/", "http:\\\\example.com\\"),
    ],
    "another scheme": [
        *("file:///etc/passwd", "ftp://example.com/", "gopher://example.com/", "s3://bucket/key"),
        *("data:image/png;base64,AAAA", "javascript:alert(1)", "dict://example.com:11211/"),
        *("jar:http://example.com!/", "http+unix://%2Fsocket/", "ldap://127.0.0.1/"),
        "view-source:http://example.com/",
    ],
    "no port": [
        *("http://example.com:port/", "http://example.com:0/", "http://example.com:65536/"),
        *("http://example.com:-80/", "http://example.com:+80/", "http://example.com:８０/"),
        *("http://example.com:000080/", "http://example.com:80:80/"),
    ],
    "no IPv6 address in brackets": [
        *("http://[::1/", "http://::1/", "http://[::1]x/", "http://x[::1]/", "http://[::1]x:80/"),
        *("http://[]/", "http://[:::]/", "http://[v1.a]/", "http://[127.0.0.1]/"),
        *("http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/"),
    ],
    "no host name, or an escaped one": [
        *("http://exa mple.com/", "http://%31%32%37.0.0.1/", "http://127.0.0.1%00.example.com/"),
        *("http://exa%6Dple.com/", "http://faß.example/", "http://a\u200db.example/"),
        "http://example.com\u2100/",  # NFKC makes a slash of it
    ],
    "too long": [
        *("http://" + "a" * 64 + ".example/", "http://" + "a." * 127 + "aa/"),
        *("http://example.com/" + "a" * 8192, "http://" + "\u0301" * 255 + "/"),
        "http://example.com/" + "é" * 2000,  # 12,000 characters when it is sent
    ],
    "credentials, or what looks like them": [
        *("http://user@example.com/", "http://user:password@example.com/", "http://@example.com/"),
        *("http://:@example.com/", "http://example.com@127.0.0.1/"),
        *("http://example.com\\@127.0.0.1/", "http://127.0.0.1\\.example.com/"),
        "http://example.com#@127.0.0.1\\",
    ],
    "control characters": [
        *("http://example.com/\r\nHost: other", "http://example.com\r\n/", "http://exam\tple.com/"),
        *("http://example.com/\n", "\nhttp://example.com/", "http://example.com/\x00"),
        *("http://example.com/\x7f", "http://example.com/\x85", "http://example.com/\u2028"),
        *("ht\ttp://example.com/", "http://example.com/\ud800", "http://127.0.0.1\t.example.com/"),
        "http://example.com/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
}


@pytest.mark.parametrize("url", [url for urls in REFUSED.values() for url in urls])
def test_a_url_that_is_not_fetched_is_a_bad_request(url: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_url(url)
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize(
    ("url", "received"),
    [
        ("image.jpg", "'image.jpg'"),
        ("ftp://example.com/" + "a" * 100, "'ftp://example.com/" + "a" * 38 + "..."),
        ("http://:80/", "':80'"),
        ("http://example.com:65536/", "65536"),
        ("http://[:::]/", "':::'"),
        ("http://a..b/", "'a..b'"),
        ("http://faß.example/", "'faß.example'"),
        ("http://" + "\u0301" * 255 + "/", "255"),
        ("http://example.com/" + "a" * 8192, "8211"),
        ("http://example.com/" + "é" * 2000, "12001"),
        ("http://example.com/a\tb", r"'\t'"),
    ],
)
def test_what_is_wrong_with_a_url_is_shown(url: str, received: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_url(url)
    assert caught.value.detail.endswith(f" Received: {received}.")


def test_credentials_are_named_as_what_is_wrong_and_not_shown() -> None:
    with pytest.raises(BadRequestError, match="must not carry a user name or password") as caught:
        parse_url("http://user:secret@example.com/")
    assert "secret" not in caught.value.detail


def test_a_data_url_is_told_about_image() -> None:
    with pytest.raises(BadRequestError, match='base64 part as "image" instead'):
        parse_url("Data:image/png;base64," + "A" * 10_000)


@pytest.mark.parametrize(
    "host", ["256.256.256.256", "1.2.3.4.5", "4294967297", "08.8.8.8", "a.0x", "425.510.425.510"]
)
def test_a_number_that_is_no_address_is_refused_like_a_non_existent_host(host: str) -> None:
    with pytest.raises(AddressNotAllowedError):
        parse_url(f"http://{host}/")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("c.jpg", "https://example.com/a/c.jpg"),
        ("/c.jpg", "https://example.com/c.jpg"),
        ("../../../c.jpg", "https://example.com/c.jpg"),
        ("//other.example/c", "https://other.example/c"),
        ("http://other.example", "http://other.example/"),
        ("?y=2", "https://example.com/a/b.jpg?y=2"),
        ("", "https://example.com/a/b.jpg?x=1"),
        ("/\u00c3\u00a9", "https://example.com/%C3%A9"),  # UTF-8, read as Latin-1
        ("/a b", "https://example.com/a%20b"),
        ("/\u00e9", "https://example.com/%E9"),  # Latin-1, as browsers send it back
        ("/{a}|b", "https://example.com/%7Ba%7D%7Cb"),
    ],
)
def test_a_location_is_read_relative_to_its_base(location: str, expected: str) -> None:
    assert parse_location(BASE, location).url == expected


@pytest.mark.parametrize(
    "location",
    [
        *("file:///etc/passwd", "http://[", "//[", "//user@other.example/", "/\r\n b", "/\u0100"),
        *("data:image/png;base64,AA", "//\u00e9.example/", "/" + "a" * 8192),
        *("gopher://other.example/_x", "javascript:alert(1)", "s3://bucket/key", "http:///x"),
        *("http://a b/", "//127.0.0.1\\@other.example/", "/\x01", "/\\"),
    ],
)
def test_a_location_that_is_not_fetched_is_the_server_s_fault(location: str) -> None:
    with pytest.raises(FetchError, match="redirects to a URL that is not fetched") as caught:
        parse_location(BASE, location)
    assert caught.value.status == 502
    assert "Received" not in caught.value.detail  # a log has the detail, and a URL may be a key


def test_a_location_that_is_a_number_but_no_address_is_not_allowed() -> None:
    with pytest.raises(AddressNotAllowedError):
        parse_location(BASE, "http://256.1.1.1/")


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("images.internal:8080", "images.internal:8080"),
        ("IMAGES.internal.:80", "images.internal:80"),
        ("[0:0::1]:443", "[::1]:443"),
        ("127.1:1", "127.0.0.1:1"),
    ],
)
def test_host_and_port_in_normal_form(pair: str, expected: str) -> None:
    assert normal_host_and_port(pair) == expected
    assert parse_url(f"http://{pair}/x").host_and_port == expected


@pytest.mark.parametrize("pair", ["", "host", "host:", ":80", "a/b:80", "u@h:80", "h:99999", "::1"])
def test_other_text_is_not_host_and_port(pair: str) -> None:
    with pytest.raises(BadRequestError):
        normal_host_and_port(pair)


TRICKY = st.text(alphabet=string.printable + "ß。．①%[]@\\\u200d\ud800\u2100İ", max_size=60)


@given(st.one_of(st.text(), TRICKY, TRICKY.map("http://{}".format), TRICKY.map("//{}".format)))
@example("http://İ。/")
def test_any_text_is_refused_or_a_target_in_normal_form(text: str) -> None:
    try:
        target = parse_url(text)
    except ServiceError:
        return
    assert target.scheme in ("http", "https")
    assert target.host.isascii() and target.host == target.host.lower()
    assert not set(target.host) & set("/\\@?#% \r\n\t")
    assert all("\x21" <= character <= "\x7e" for character in target.path)
    assert target.path.startswith("/")
    assert parse_url(target.url) == target  # one reading


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_any_location_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ServiceError):
        parse_location(BASE, text)


# --- cost -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://shop.example/" + "a" * 5_000_000, id="long path"),
        pytest.param("s3://bucket/" + "a" * 5_000_000, id="long key"),
        pytest.param("data:image/png;base64," + "A" * 5_000_000, id="data"),
        pytest.param(" " * 5_000_000, id="blanks"),
        pytest.param("http://" + "\u0301\u0316" * 50_000, id="combining marks"),
        pytest.param("http://" + "\u0301\u0316" * 4_000, id="combining marks below the limit"),
        pytest.param("http://" + "\u0301\u0316" * 120, id="a host of combining marks"),
        pytest.param("http://" + "1." * 4_000, id="dots"),
        pytest.param("http://" + ":" * 8_000, id="colons"),
    ],
)
@pytest.mark.parametrize("parse", [parse_url, parse_s3_uri, loggable_url])
def test_a_long_url_costs_nothing(parse: Callable[[str], object], url: str) -> None:
    """Twenty of them: neither memory is kept, nor more than 0.1 s each is needed."""
    tracemalloc.start()
    start = time.process_time()
    for number in range(20):
        with contextlib.suppress(ServiceError):
            parse(url[:-8] + f"{number:08}")
    needed_s = time.process_time() - start
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert needed_s < 2  # a busy machine takes a third of it
    assert kept < 10**6
    assert peak < 25 * 10**6  # this test's own copies: at most 4 bytes for a character


# --- S3 addresses and logs --------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/key", ("bucket", "key")),
        ("S3://b/a/b c%20?d=e#f\n", ("b", "a/b c%20?d=e#f\n")),
        ("s3://b/" + "é" * 512, ("b", "é" * 512)),
    ],
)
def test_an_s3_address_is_split_without_unescaping(uri: str, expected: tuple[str, str]) -> None:
    assert parse_s3_uri(uri) == expected


@pytest.mark.parametrize(
    "uri",
    [
        *("", "s3:/b/k", "s3://b", "s3://b/", "s3:///k", "s4://b/k", "xs3://b/k", "s3://b/\ud800"),
        *(f"s3://b/{513 * 'é'}", f"s3://{8200 * 'b'}/k"),
    ],
)
def test_other_text_is_not_an_s3_address(uri: str) -> None:
    with pytest.raises(BadRequestError, match=r"must read s3://bucket/key\. Received: '"):
        parse_s3_uri(uri)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://shop.example/a/b.jpg", "https://shop.example/a/b.jpg"),
        ("HTTP://Shop.example:80/a b.jpg", "http://shop.example/a%20b.jpg"),
        (
            "http://shop.example:8080/logo@2x~1,w_3!.png",
            "http://shop.example:8080/logo@2x~1,w_3!.png",
        ),
        ("https://h/%C3%A9%2Fa%20b.jpg", "https://h/%C3%A9%2Fa%20b.jpg"),
        ("https://h/é{1}.jpg", "https://h/%C3%A9%7B1%7D.jpg"),
        ("https://h/a.jpg?X-Amz-Signature=SECRET#SECRET", "https://h/a.jpg"),
        ("https://h?SECRET", "https://h/"),
        *(
            (f"https://h/a.jpg{end}", "https://h/a.jpg...")
            for end in (
                *("%3FX-Amz-Signature=SECRET", "%3fX-Amz-Signature%3DSECRET", "%23SECRET"),
                *("%253FX-Amz-Signature=SECRET", "%26X-Amz-Signature=SECRET"),
                *("&X-Amz-Signature=SECRET", ";session=SECRET", "%3Bsession=SECRET"),
            )
        ),
        ("https://h/proxy/https://me:SECRET@h/a", "https://h/proxy/https..."),
        ("https://h/proxy/https%3A%2F%2Fme%3ASECRET%40h/a", "https://h/proxy/https..."),
        *(
            (url, "unreadable")
            for url in (
                *(
                    "https:/me:SECRET@h/a.jpg",
                    "https:///me:SECRET@h/a.jpg",
                    "https:me:SECRET@h/a.jpg",
                ),
                *(
                    "https://me:SECRET@h/a.jpg",
                    "https://me:SE/CRET@h/a.jpg",
                    "https://SECRET@h/a.jpg",
                ),
                *("https:\\\\me:SECRET@h\\a.jpg", "h/a.jpg?SECRET", "//me:SECRET@h/a.jpg", ""),
                *("https://h/\nSECRET", "data:image/png;base64,SECRET", "ftp://h/SECRET"),
                *("s3://me:SECRET@pics/a.jpg", "s3://pics"),
            )
        ),
        ("s3://pics/a/b c.jpg", "s3://pics/a/b%20c.jpg"),
        ("S3://pics/a.jpg?versionId=SECRET", "s3://pics/a.jpg..."),
    ],
)
def test_a_log_shows_the_query_free_form_or_nothing(url: str, shown: str) -> None:
    assert loggable_url(url) == shown


def test_a_log_shows_at_most_500_characters_of_a_url() -> None:
    assert loggable_url("https://a.example/" + "x" * 8_000) == "https://a.example/" + "x" * 482


PARTS = st.sampled_from(
    [
        *("https:", "http:", "s3:", "/", "//", "me:", "@", "h", "?", "%3F", "%253f", "&", ";"),
        *("\\", ".."),
    ]
)


@given(st.lists(PARTS, max_size=8))
def test_a_log_never_shows_what_follows_a_credential_or_a_query(parts: list[str]) -> None:
    """Whatever stands before it: a signature is never shown, nor is a password."""
    start = "".join(parts)
    for secret in ("?sig=SECRET", "%3Fsig=SECRET", "//me:SECRET@h/a.jpg"):
        assert "SECRET" not in loggable_url(start + secret)
