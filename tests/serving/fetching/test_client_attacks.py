"""What a stranger's URL may try, from OWASP's SSRF cheat sheet and the known tricks.

For each attack: only public addresses are connected to, the deadline holds, memory stays bounded,
and the error has its status. All traffic stays on loopback. Names and connections go through the
two seams of ``fetch_image``, which record where a connection would have gone.
"""
# ruff: noqa: RUF001 (characters that look alike are among the tricks)

from __future__ import annotations

import socket
import string
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lambda_function.errors import (
    AddressNotAllowedError,
    DeadlineError,
    FetchError,
    ServiceError,
    TooLargeError,
)
from lambda_function.fetching.addresses import is_public
from lambda_function.fetching.client import REFUSAL_GRID_S, FetchLimits, fetch_image
from lambda_function.fetching.response import MAX_HEAD_BYTES
from tests.support.addresses import PRIVATE, SPELLINGS
from tests.support.servers import (
    PUBLIC,
    LoopbackServer,
    Names,
    Wires,
    answer,
    drip,
    endless,
    raw,
    redirect,
    silent,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.servers import Play, Stage

LIMITS = FetchLimits(max_bytes=100_000, timeout_s=30.0)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
GZIP_HEAD = OK + b"Content-Encoding: gzip\r\n\r\n"
SLACK_S = 3.0  # that a busy machine may add to a deadline
PRIVATE_URLS = [
    "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next",  # the Lambda runtime API
    "http://127.0.0.1:443/",
    "http://[::1]:80/",
    "http://425.510.425.510/",  # 169.254.169.254 to a parser that takes numbers modulo 256
    *(f"http://{address}/" for address in PRIVATE if ":" not in address),
    *(f"http://[{address}]/" for address in PRIVATE if ":" in address),
    *(f"http://{spelling}/" for spelling in SPELLINGS),
]


class Nowhere:
    """A connector that refuses every connection. An address that is not public fails the test."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, address: str, port: int, timeout_s: float) -> socket.socket:
        self.asked.append(address)
        assert is_public(address), f"connected to {address}"
        raise ConnectionRefusedError


def refused(url: str, table: dict[str, list[list[str]]] | None = None) -> ServiceError:
    """Fetch and return the error. Nothing may be connected to."""
    nowhere = Nowhere()
    with pytest.raises(ServiceError) as caught:
        fetch_image(url, LIMITS, resolve=Names(table or {}), connect=nowhere, sleep=_no_pause)
    assert nowhere.asked == []
    return caught.value


def play(*plays: Play, limits: FetchLimits = LIMITS) -> bytes:
    """Fetch a public name that a loopback server plays. ``plays`` are for /0, /1, ..."""
    numbered = {f"/{number}": each for number, each in enumerate(plays)}
    with LoopbackServer(numbered) as server:
        return fetch_image(
            "http://shop.example/0",
            limits,
            resolve=Names({"shop.example": [[PUBLIC]]}),
            connect=Wires({80: server.port}),
            sleep=_no_pause,
        )


def _no_pause(_: float) -> None:
    """The pause before a refusal has a test of its own."""


# --- addresses --------------------------------------------------------------------------


@pytest.mark.parametrize("url", PRIVATE_URLS)
def test_every_spelling_of_a_private_address_is_refused(url: str) -> None:
    error = refused(url)
    assert (error.status, error.code) == (400, "address_not_allowed")


def test_a_url_with_two_readings_is_refused_before_its_name_is_looked_up() -> None:
    """All that ``parse_url`` refuses: test_urls."""
    error = refused("http://shop.example@127.0.0.1/", {"shop.example": [[PUBLIC]]})
    assert (error.status, error.code) == (400, "bad_request")


@pytest.mark.parametrize("port", [1, 22, 25, 81, 3306, 6379, 8080, 8443, 9001, 65535])
def test_other_ports_are_refused_before_the_name_is_looked_up(port: int) -> None:
    names = Names({"shop.example": [[PUBLIC]]})
    with pytest.raises(AddressNotAllowedError, match=f"Port {port} is not allowed"):
        fetch_image(f"http://shop.example:{port}/", LIMITS, resolve=names, connect=Nowhere())
    assert names.asked == []


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["::ffff:169.254.169.254"],
        ["64:ff9b::a9fe:a9fe"],
        ["2002:a9fe:a9fe::1"],
        ["fe80::1%eth0"],
        [PUBLIC, "127.0.0.1"],  # one good address does not excuse the other
        ["127.0.0.1", PUBLIC],
        [PUBLIC] * 50 + ["10.0.0.1"],
        ["2606:4700::1", "::1"],
        ["not an address"],
    ],
)
def test_a_name_with_a_private_address_is_refused(addresses: list[str]) -> None:
    error = refused("http://rebind.example/", {"rebind.example": [addresses]})
    assert (error.status, error.code) == (400, "address_not_allowed")


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST.", "ｌｏｃａｌｈｏｓｔ", "ip6-localhost"])
def test_names_of_this_machine_are_refused(name: str) -> None:
    """With the system's own resolver."""
    with pytest.raises(AddressNotAllowedError):
        fetch_image(f"http://{name}/", LIMITS, connect=Nowhere(), sleep=_no_pause)


def test_a_name_that_changes_its_address_between_redirects_is_refused() -> None:
    names = Names({"rebind.example": [[PUBLIC], ["127.0.0.1"]]})
    with LoopbackServer({"/": redirect("/again")}) as server:
        wires = Wires({80: server.port})
        with pytest.raises(AddressNotAllowedError):
            fetch_image(
                "http://rebind.example/", LIMITS, resolve=names, connect=wires, sleep=_no_pause
            )
    assert wires.asked == [(PUBLIC, 80)]


# --- what an error tells ----------------------------------------------------------------


def test_private_and_non_existent_hosts_return_the_same_error() -> None:
    table = {"private.example": [["10.0.0.1"]], "mixed.example": [[PUBLIC, "10.0.0.1"]]}
    urls = ("http://private.example/", "http://mixed.example/", "http://nowhere.example/")
    told = {
        (error.status, error.code, error.title, error.detail)
        for error in (refused(url, table) for url in (*urls, "http://10.0.0.1/", "http://256.1/"))
    }
    assert len(told) == 1


def test_private_and_non_existent_hosts_take_the_same_time() -> None:
    """Lookups of 1, 60 and 120 ms, and none at all, return at the same moment."""

    def resolve(name: str) -> list[str]:
        time.sleep({"quick.example": 0.001, "slower.example": 0.06}.get(name, 0.12))
        if name == "slowest.example":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return ["10.0.0.1"]

    def spread_s() -> float:
        taken_s = []
        for host in ("quick.example", "slower.example", "slowest.example", "10.0.0.1", "[::1]"):
            start = time.monotonic()
            with pytest.raises(AddressNotAllowedError):
                fetch_image(f"http://{host}/", LIMITS, resolve=resolve, connect=Nowhere())
            taken_s.append(time.monotonic() - start)
        assert min(taken_s) >= REFUSAL_GRID_S
        return max(taken_s) - min(taken_s)

    assert any(
        spread_s() < 0.1 for _ in range(5)
    )  # the lookups differ by more. The machine may be busy


def test_the_pause_before_an_error_keeps_the_deadline() -> None:
    pauses: list[float] = []
    with pytest.raises(AddressNotAllowedError):
        deadline = time.monotonic() + 0.05
        fetch_image(
            "http://10.0.0.1/", LIMITS, connect=Nowhere(), deadline=deadline, sleep=pauses.append
        )
    assert 0 <= pauses[0] <= 0.05


def test_errors_repeat_neither_the_url_nor_the_server_s_words() -> None:
    secret = "token=s3cr3t"
    for answered in (
        answer(status=f"500 {secret}"),
        redirect(f"http://10.0.0.1/{secret}"),
        redirect(f"ftp://{secret}/"),
        answer(b"x", headers={"Content-Encoding": f"br, gzip, {secret}"}),
        answer(b"x", headers={"Transfer-Encoding": secret}),
        raw(secret.encode()),
    ):
        with pytest.raises(ServiceError) as caught:
            play(answered)
        assert "s3cr3t" not in caught.value.detail


# --- redirects --------------------------------------------------------------------------


@pytest.mark.parametrize("url", [url for url in PRIVATE_URLS if url.isascii()])
def test_a_redirect_to_a_private_address_is_refused(url: str) -> None:
    with pytest.raises(AddressNotAllowedError):
        play(redirect(url))


def test_a_redirect_to_a_url_that_is_not_fetched_is_the_server_s_fault() -> None:
    with pytest.raises(FetchError, match="redirects to a URL that is not fetched") as caught:
        play(redirect("file:///proc/self/environ"))
    assert (caught.value.status, caught.value.code) == (502, "fetch_failed")


def test_a_redirect_to_another_port_is_refused() -> None:
    with pytest.raises(AddressNotAllowedError, match="Port 9001"):
        play(redirect("http://shop.example:9001/"))


def test_a_folded_location_injects_nothing() -> None:
    with pytest.raises(FetchError):
        play(raw(b"HTTP/1.1 302 Found\r\nLocation: /1\r\n X-Injected: yes\r\n\r\n"), answer(b"x"))


def test_slow_redirects_share_one_deadline() -> None:
    def slowly(stage: Stage) -> None:
        if stage.wait(0.2):
            redirect("/0")(stage)

    _times_out(slowly, limits=FetchLimits(1000, 0.5, max_redirects=20))


def test_a_redirect_to_a_trusted_host_is_followed_and_to_its_neighbour_is_not() -> None:
    with LoopbackServer({"/x": answer(b"ours")}) as ours, LoopbackServer({}) as neighbour:
        trusted = FetchLimits(1000, 30.0, trusted_hosts=frozenset({ours.host}))

        def fetch_redirect_to(location: str) -> bytes:
            with LoopbackServer({"/": redirect(location)}) as server:
                ports = {80: server.port, ours.port: ours.port, neighbour.port: neighbour.port}
                return fetch_image(
                    "http://shop.example/",
                    trusted,
                    resolve=Names({"shop.example": [[PUBLIC]]}),
                    connect=Wires(ports),
                )

        assert fetch_redirect_to(ours.url("/x")) == b"ours"
        with pytest.raises(AddressNotAllowedError):
            fetch_redirect_to(neighbour.url("/x"))
        assert neighbour.connections == 0


# --- slowness ---------------------------------------------------------------------------


def _times_out(*plays: Play, limits: FetchLimits | None = None) -> None:
    limits = limits or FetchLimits(max_bytes=10**6, timeout_s=0.3)
    start = time.monotonic()
    with pytest.raises(DeadlineError) as caught:
        play(*plays, limits=limits)
    assert caught.value.status == 504
    assert limits.timeout_s * 0.9 < time.monotonic() - start < limits.timeout_s + SLACK_S


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param(silent, id="silence"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\nX-Slow: ......................"), id="header"),
        pytest.param(drip(b"X: y\r\n", first=OK), id="headers"),
        pytest.param(drip(b"z", first=OK + b"Content-Length: 999\r\n\r\n"), id="body"),
        pytest.param(drip(b"z", first=OK + b"\r\n"), id="body without length"),
        pytest.param(drip(b"1\r\nz\r\n", first=CHUNKED), id="chunks"),
        pytest.param(drip(b"0", first=CHUNKED), id="chunk size"),
        pytest.param(drip(b"X: y\r\n", first=CHUNKED + b"1\r\nz\r\n0\r\n"), id="trailers"),
        pytest.param(drip(b"HTTP/1.1 100 Continue\r\n\r\n"), id="informational responses"),
        pytest.param(drip(b"HTTP/1.1 103 Early Hints\r\n\r\n"), id="early hints"),
        pytest.param(drip(b"\0", first=GZIP_HEAD), id="gzip"),
        pytest.param(drip(b"z", first=OK + b"Content-Length: 1000\r\n\r\n", pause_s=30), id="stop"),
        pytest.param(endless(b"z" * 64, first=OK + b"\r\n"), id="fast and without end"),
    ],
)
def test_a_response_without_end_ends_at_the_deadline(slow: Play) -> None:
    _times_out(slow, limits=FetchLimits(max_bytes=10**9, timeout_s=0.3))


def test_a_slow_handshake_ends_at_the_deadline() -> None:
    tls_record = b"\x16\x03\x03\x3f\xff"  # announces 16 kB, which then drip
    with LoopbackServer({"": drip(b"\x02\x00", first=tls_record)}) as server:
        trusted = FetchLimits(1000, 0.3, trusted_hosts=frozenset({server.host}))
        start = time.monotonic()
        with pytest.raises(DeadlineError):
            fetch_image(f"https://{server.host}/", trusted)
        assert time.monotonic() - start < 0.3 + SLACK_S


def test_addresses_that_swallow_packets_share_the_deadline() -> None:
    def connect(_address: str, _port: int, timeout_s: float) -> socket.socket:
        time.sleep(timeout_s)
        raise TimeoutError

    names = Names({"shop.example": [[f"8.8.8.{n}" for n in range(200)]]})
    start = time.monotonic()
    with pytest.raises(DeadlineError):
        fetch_image("http://shop.example/", FetchLimits(9, 0.3), resolve=names, connect=connect)
    assert time.monotonic() - start < 0.3 + SLACK_S


# --- size -------------------------------------------------------------------------------


def peak_bytes(function: Callable[[], Any]) -> int:
    """Return how much more memory Python held at a time while this ran."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


ZEROS = bytes(100_000)


@pytest.mark.parametrize(
    ("first", "block"),
    [
        pytest.param(OK + b"\r\n", ZEROS, id="no end"),
        pytest.param(OK + b"Content-Length: -1\r\n\r\n", ZEROS, id="negative length"),
        pytest.param(OK + b"Content-Length: many\r\n\r\n", ZEROS, id="length of words"),
        pytest.param(CHUNKED, b"186a0\r\n" + ZEROS + b"\r\n", id="chunks without end"),
        pytest.param(CHUNKED + b"b2d05e00\r\n", ZEROS, id="one chunk of 3 GB"),
        pytest.param(GZIP_HEAD, ZEROS, id="gzip that is none, and no end"),
    ],
)
def test_three_gigabytes_are_cut_off_early_and_never_held(first: bytes, block: bytes) -> None:
    sent: list[int] = []

    def fetch() -> None:
        with pytest.raises((TooLargeError, FetchError)) as caught:
            play(endless(block, first=first, sent=sent))
        assert caught.value.status == (502 if first == GZIP_HEAD else 413)

    assert peak_bytes(fetch) < 8 * LIMITS.max_bytes
    assert sent[0] < 20 * 10**6  # what sockets buffer. The rest was never asked for


def test_a_length_over_the_limit_is_refused_without_waiting_for_the_body() -> None:
    def announce(stage: Stage) -> None:
        stage.send(OK + b"Content-Length: 100001\r\n\r\n")
        stage.wait(30)

    with pytest.raises(TooLargeError):
        play(announce)


@pytest.mark.parametrize(
    "before_and_after", [(OK + b"\r\n", b""), (CHUNKED + b"186a1\r\n", b"\r\n0\r\n\r\n")]
)
def test_one_byte_too_many_is_refused_where_no_length_was_said(
    before_and_after: tuple[bytes, bytes],
) -> None:
    before, after = before_and_after
    with pytest.raises(TooLargeError):
        play(raw(before + bytes(100_001) + after))


@pytest.mark.parametrize(
    ("first", "block"),
    [
        pytest.param(OK, b"A" * 100_000, id="one header line"),
        pytest.param(OK, b"X: y\r\n" * 10_000, id="headers"),
        pytest.param(OK, b"X: " + b"y" * 60_000 + b"\r\n", id="long headers"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000, id="100 Continue"),
        pytest.param(b"", b"HTTP/1.1 103 x\r\nLink: y\r\n\r\n" * 4_000, id="103 Early Hints"),
        pytest.param(
            b"", (b"HTTP/1.1 103 x\r\nX: " + b"y" * 60_000 + b"\r\n\r\n"), id="long hints"
        ),
        pytest.param(CHUNKED + b"1\r\nx\r\n0\r\n", b"X: y\r\n" * 10_000, id="trailers"),
        *(
            pytest.param(CHUNKED + size + b"\r\n", ZEROS, id=f"chunk of size {size.decode()}")
            for size in (b"-1", b"+1", b"0x0", b"0x7", b"1_0", b" 5", b"5 5", b"5,5", b"1" * 17)
        ),
        pytest.param(CHUNKED + b"0\r\n", b"a\r\n" * 10_000, id="trailers that look like sizes"),
        pytest.param(CHUNKED, b"z\r\n" * 10_000, id="sizes that are none"),
        pytest.param(CHUNKED, b"1;eeeeeeeeee\r\n0\r\n" * 10_000, id="tiny chunks"),
        pytest.param(CHUNKED, b"1;" + b"e" * 60_000 + b"\r\n0\r\n", id="extensions of chunks"),
    ],
)
def test_framing_above_its_limit_is_refused_and_never_held(first: bytes, block: bytes) -> None:
    sent: list[int] = []

    def fetch() -> None:
        with pytest.raises(FetchError) as caught:
            play(endless(block, first=first, sent=sent))
        assert caught.value.status == 502

    assert peak_bytes(fetch) < 20 * MAX_HEAD_BYTES
    assert sent[0] < 20 * 10**6


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X%d: " % n + b"y" * 1000 + b"\r\n" for n in range(80)),
        *(
            b"HTTP/1.1 103 x\r\nX: " + b"y" * 30_000 + b"\r\n\r\n" + OK + last
            for last in (b"X: " + b"y" * 40_000 + b"\r\n",)
        ),
    ],
)
def test_heads_count_together(head: bytes) -> None:
    """80 kB in headers that http.client would take each, and 70 kB in two responses."""
    with pytest.raises(FetchError, match="more than 65,536 bytes of headers"):
        play(raw(head + b"Content-Length: 2\r\n\r\nok"))


def test_framing_below_its_limits_is_accepted() -> None:
    """A head of 61 kB, and 500 kB with the sizes of chunks."""
    long = b"".join(b"X%d: " % n + b"y" * 1000 + b"\r\n" for n in range(60))
    chunks = b"1;extension=123456789012\r\nx\r\n" * 19_000
    head = OK + long + b"Transfer-Encoding: chunked\r\n\r\n"
    assert play(raw(head + chunks + b"0\r\n\r\n")) == b"x" * 19_000


def test_a_length_that_is_too_short_ends_the_body_there() -> None:
    assert play(answer(b"12345", length=3)) == b"123"


def test_a_length_that_is_too_long_is_the_server_s_failure() -> None:
    with pytest.raises(FetchError, match="after 5 of 9 bytes"):
        play(answer(b"12345", length=9))


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(b"Content-Length: 2\r\nContent-Length: 3", id="two lengths"),
        pytest.param(b"Content-Length: 2, 3", id="two lengths in a line"),
        pytest.param(b"Content-Length: 2\r\nContent-Length:", id="a length and an empty one"),
        pytest.param(b"Transfer-Encoding: gzip, chunked", id="compressed transfer"),
        pytest.param(b"Transfer-Encoding: chunked, chunked", id="chunked in a list"),
        pytest.param(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", id="two codings"),
        pytest.param(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", id="either"),
        pytest.param(b"Transfer-Encoding:\r\nTransfer-Encoding: chunked", id="empty and chunked"),
        pytest.param(b"Transfer-Encoding: xchunked", id="unknown coding"),
        pytest.param(b"Transfer-Encoding: \x0bchunked", id="chunked after a vertical tab"),
    ],
)
def test_a_body_with_two_possible_ends_is_refused(headers: bytes) -> None:
    with pytest.raises(FetchError, match=r"Content-Length|Transfer-Encoding") as caught:
        play(raw(OK + headers + b"\r\n\r\n2\r\nok\r\n0\r\n\r\n"))
    assert caught.value.status == 502


# --- what is not HTTP -------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\r\n\r\n", b"HTTP", b"SSH-2.0-OpenSSH_9.6\r\n", b"\x16\x03\x01\x00", b"\xff" * 99),
        *(b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n"),
        *(b"HTTP/1.1 99 x\r\n\r\n", b"HTTP/1.1 1000 x\r\n\r\n", b"ICY 200 OK\r\n\r\n"),
        *(OK, OK + b"Content-Length: 5\r\n", CHUNKED, CHUNKED + b"z\r\n", CHUNKED + b"5\r\nab"),
        *(CHUNKED + b"-5\r\nabcde\r\n0\r\n\r\n", CHUNKED + b"5" * 70_000),
    ],
)
def test_a_response_that_is_not_whole_http_is_the_server_s_failure(data: bytes) -> None:
    with pytest.raises(FetchError) as caught:
        play(raw(data))
    assert caught.value.status == 502


def test_a_connection_that_is_reset_is_the_server_s_failure() -> None:
    def reset(stage: Stage) -> None:
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        stage.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    with pytest.raises(FetchError):
        play(reset)


# --- anything else ----------------------------------------------------------------------

HOSTS = st.sampled_from(
    ["shop.example", "private.example", "10.0.0.1", "[::1]", "2130706433", "bücher.example", "a..b"]
)
TEXT = st.text(alphabet=string.printable + "ß。．①\\\u200d\ud800İ", max_size=40)
URLS = st.one_of(
    st.text(max_size=80),
    TEXT.map("http://{}".format),
    st.builds("{}://{}{}{}".format, st.sampled_from(["http", "https", "ftp"]), HOSTS, TEXT, TEXT),
    st.builds("http://shop.example/{}".format, TEXT),
)


def canned(data: bytes) -> Callable[[str, int, float], socket.socket]:
    """Return a connector to a server that has sent this and closed the connection."""

    def connect(address: str, _port: int, _timeout_s: float) -> socket.socket:
        assert is_public(address)
        ours, theirs = socket.socketpair()
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        _kept.append(theirs)  # closed by the test. Closing now would reset the connection
        return ours

    return connect


_kept: list[socket.socket] = []


def fetch_canned(url: str, data: bytes) -> bytes | ServiceError:
    """Fetch from two names, one public and one private. Raises all but a ServiceError."""
    table = {"shop.example": [[PUBLIC]], "private.example": [["10.0.0.1"]]}
    names, connect = Names(table), canned(data)
    try:
        return fetch_image(url, LIMITS, resolve=names, connect=connect, sleep=_no_pause)
    except ServiceError as error:
        return error
    finally:
        while _kept:
            _kept.pop().close()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(URLS)
def test_any_url_is_fetched_or_refused_with_a_service_error(url: str) -> None:
    got = fetch_canned(url, OK + b"Content-Length: 2\r\n\r\nok")
    assert got == b"ok" or (isinstance(got, ServiceError) and got.status in (400, 502))


PIECES = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK", b"HTTP/1.1 302 Found", b"HTTP/1.0 404 x", b"HTTP/1.1 100 Continue"),
        *(b"\r\n", b"\n", b"\r\n\r\n", b": ", b"Content-Length: ", b"5", b"-1", b"99999999999999"),
        *(
            *(b"Transfer-Encoding: chunked", b"Location: ", b"http://10.0.0.1/"),
            b"http://shop.example",
        ),
        *(b"Content-Type: text/html", b"multipart/x; boundary=", b"\xff\xfe", b"\x00", b"a;b=c"),
        *(b"Content-Encoding: gzip\r\n", b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"chunked \r\n\r\n"),
        *(b"HTTP/1.1 103 x\r\n\r\n", b"\x03\0\0\0\0\0\0\0\0\0", b"Content-Encoding: utf-8"),
        *(b"ffffffffffff\r\n", b"0\r\n\r\n", b"1_0\r\n", b"Content-Encoding: gzip", b"hello", b" "),
    ]
)
RESPONSES = st.one_of(
    st.binary(max_size=300),
    st.lists(PIECES, max_size=25).map(b"".join),
    st.lists(PIECES, max_size=25).map(lambda pieces: OK + b"".join(pieces)),
    st.lists(PIECES, max_size=25).map(lambda pieces: CHUNKED + b"".join(pieces)),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(RESPONSES)
def test_any_response_is_a_body_or_a_service_error(data: bytes) -> None:
    got = fetch_canned("http://shop.example/", data)
    assert isinstance(got, bytes | ServiceError)
