"""Fetching from servers that behave, or fail honestly. Attacks: test_client_attacks."""

from __future__ import annotations

import concurrent.futures
import socket
import ssl
import threading
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lambda_function import REPOSITORY
from lambda_function.errors import (
    AddressNotAllowedError,
    DeadlineError,
    FetchError,
    ServiceError,
    TooLargeError,
    UnsupportedImageError,
)
from lambda_function.fetching.client import FetchLimits, fetch_image
from lambda_function.fetching.errors import ServerStatusError
from lambda_function.fetching.lookup import resolve_host
from lambda_function.fetching.sockets import default_tls_context
from tests.support.servers import (
    PUBLIC,
    Authority,
    LoopbackServer,
    Names,
    Wires,
    answer,
    by_user_agent,
    drip,
    header,
    raw,
    redirect,
    silent,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.servers import Play, Stage

OPEN_FILES = Path("/proc/self/fd")
BODY = bytes(range(256)) * 700  # 179,200 bytes: several chunks
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED_HELLO = b"5\r\nhello\r\n1;extension=x\r\n,\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
HELLO = b"hello, world"


def limits(server: LoopbackServer, **changed: Any) -> FetchLimits:
    """Return limits that trust this server, and would not hold up a test for long."""
    defaults: dict[str, Any] = {"max_bytes": 10**6, "timeout_s": 30.0}
    return FetchLimits(trusted_hosts=frozenset({server.host}), **defaults | changed)


def fetch(play: Play, **changed: Any) -> bytes:
    """Fetch from a server that plays this."""
    with LoopbackServer({"/": play}) as server:
        return fetch_image(server.url(), limits(server, **changed))


@pytest.mark.parametrize(
    ("data", "body"),
    [
        pytest.param(OK + b"Content-Length: 179200\r\n\r\n" + BODY, BODY, id="length"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\n" + BODY, BODY, id="until the connection ends"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED_HELLO, HELLO, id="chunked"
        ),
        pytest.param(
            OK + b"Transfer-Encoding: chunked \t\r\n\r\n" + CHUNKED_HELLO,
            HELLO,
            id="chunked with trailing blanks",
        ),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n" + CHUNKED_HELLO,
            HELLO,
            id="chunked with a length too",
        ),
        pytest.param(OK + b"Content-Length: 2\r\n" * 2 + b"\r\nok", b"ok", id="a length twice"),
        pytest.param(OK + b"Content-Length: 2 \r\n\r\nok", b"ok", id="a length with a blank"),
        pytest.param(b"HTTP/1.1 200\r\n\r\nok", b"ok", id="no reason"),
        pytest.param(b"HTTP/1.1 203 x\r\n\r\nok", b"ok", id="status 203"),
        pytest.param(OK + b"Server:\r\nContent-Length: 2\r\n\r\nok", b"ok", id="empty header"),
        pytest.param(OK.replace(b"\r", b"") + b"\nok", b"ok", id="bare line feeds"),
        pytest.param(b"\r\n\n" + OK + b"\r\nok", b"ok", id="blank lines before"),
        *(
            pytest.param(
                OK + line + b"\r\nTransfer-Encoding: chunked \r\n\r\n" + CHUNKED_HELLO,
                HELLO,
                id=name,
            )
            for name, line in {
                "a header without colon": b"preload",  # of a header that was broken in two
                "a header with a blank before the colon": b'P3P : CP="ALL"',
                "a header with a blank in its name": b"Set Cookie: a=b",
                "a header without name": b": value",
                "a header with other letters": "Größe: 1".encode(),
                "a status line among the headers": b"HTTP/1.1 200 OK",
                "a folded header": b"X-Long: a\r\n b",
                "a line of blanks": b" \t",
            }.items()
        ),
        pytest.param(
            OK + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKED_HELLO,
            HELLO,
            id="chunked with blank",
        ),
        *(
            pytest.param(
                f"HTTP/1.1 {status}\r\nLink: </a>\r\n\r\n".encode() * 3
                + OK
                + b"Content-Length: 2\r\n\r\nok",
                b"ok",
                id=f"after {status}",
            )
            for status in ("100 Continue", "102 Processing", "103 Early Hints", "199 x")
        ),
    ],
)
def test_a_body_is_returned_unchanged_however_it_is_framed(data: bytes, body: bytes) -> None:
    assert fetch(raw(data)) == body


def test_exactly_max_bytes_are_accepted_and_one_more_is_refused() -> None:
    assert fetch(answer(BODY), max_bytes=len(BODY)) == BODY
    with pytest.raises(TooLargeError):
        fetch(answer(BODY), max_bytes=len(BODY) - 1)


# --- the request ------------------------------------------------------------------------


def test_the_request_names_the_client_and_the_wanted_types() -> None:
    with LoopbackServer({"/a%20b?c=%C3%A9": answer(b"x")}) as server:
        fetch_image(server.url("/a b?c=é#fragment"), limits(server, contact="mail@shop.example"))
    (head,) = server.heads
    assert head.startswith(b"GET /a%20b?c=%C3%A9 HTTP/1.1\r\n")
    assert header(head, "Host") == server.host
    assert header(head, "Accept-Encoding") == "identity"
    assert header(head, "Connection") == "close"
    assert header(head, "Via") == "1.1 serverless-image-classifier"
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    short = version["project"]["version"].rpartition(".")[0]
    assert header(head, "User-Agent").startswith(
        f"serverless-image-classifier/{short} (mail@shop.example; "
    )
    assert "image/jpeg" in header(head, "Accept")


def test_a_server_that_refuses_anonymous_clients_sends_the_image() -> None:
    assert fetch(by_user_agent) == b"image"


# --- statuses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "named"),
    [
        ("404 Gone fishing", r"answered 404 \(Not Found\)\."),
        ("403 Forbidden", r"answered 403 \(Forbidden\)\."),
        ("500 Oops", r"answered 500 \(Internal Server Error\)\."),
        ("503 x", r"answered 503 \(Service Unavailable\)\."),
        ("204 No Content", r"answered 204 \(No Content\)\."),
        ("206 Partial Content", r"answered 206 \(Partial Content\)\."),
        ("304 Not Modified", r"answered 304 \(Not Modified\)\."),
        ("300 Multiple Choices", r"answered 300 \(Multiple Choices\)\."),
        ("101 Switching Protocols", r"answered 101 \(Switching Protocols\)\."),
        ("799 Made up", r"answered 799\."),
    ],
)
def test_the_server_s_status_is_named_in_the_standard_s_words(status: str, named: str) -> None:
    with pytest.raises(FetchError, match=named) as caught:
        fetch(answer(b"x", status=status))
    assert caught.value.status == 502
    assert isinstance(caught.value, ServerStatusError)
    assert caught.value.server_status == int(status[:3])


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<!DOCTYPE html><p>hello", "text/html; charset=utf-8"),
        (b"\n  <p>hello", "text/html"),
        (b"<p>hello", "application/xhtml+xml"),
        (b"\xef\xbb\xbf\n<HTML><body>", "image/jpeg"),
    ],
)
def test_a_web_page_is_not_an_image(body: bytes, content_type: str) -> None:
    with pytest.raises(UnsupportedImageError, match="web page"):
        fetch(answer(body, headers={"Content-Type": content_type}))


def test_an_image_that_is_called_a_web_page_is_an_image() -> None:
    jpeg = b"\xff\xd8\xff\xe0"
    assert fetch(answer(jpeg, headers={"Content-Type": "text/html"})) == jpeg


def test_an_empty_response_is_the_server_s_failure() -> None:
    with pytest.raises(FetchError, match="empty"):
        fetch(answer(b""))


# --- redirects --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int) -> None:
    plays = {"/": redirect("there?x=1", status=f"{status} x"), "/there?x=1": answer(b"here")}
    with LoopbackServer(plays) as server:
        assert fetch_image(server.url(), limits(server)) == b"here"


def test_five_redirects_are_followed_and_six_are_not() -> None:
    plays = {f"/{n}": redirect(f"/{n - 1}") for n in range(1, 7)} | {"/0": answer(b"end")}
    with LoopbackServer(plays) as server:
        assert fetch_image(server.url("/5"), limits(server)) == b"end"
        with pytest.raises(FetchError, match="more than 5 times"):
            fetch_image(server.url("/6"), limits(server))


def test_no_redirect_is_followed_if_none_is_allowed() -> None:
    server = LoopbackServer({"/": redirect("/0"), "/0": answer(b"end")})
    with server, pytest.raises(ServerStatusError, match=r"302 \(Found\)"):
        fetch_image(server.url(), limits(server, max_redirects=0))
    assert len(server.heads) == 1


def test_a_location_may_be_sent_twice_but_not_two_locations() -> None:
    head = b"HTTP/1.1 302 Found\r\nLocation: /0\r\nLocation: "
    plays = {"/same": raw(head + b"/0\r\n\r\n"), "/two": raw(head + b"/1\r\n\r\n")}
    with LoopbackServer(plays | {"/0": answer(b"end")}) as server:
        assert fetch_image(server.url("/same"), limits(server)) == b"end"
        with pytest.raises(FetchError, match="two different URLs"):
            fetch_image(server.url("/two"), limits(server))


def test_a_redirect_without_a_location_names_its_status() -> None:
    with pytest.raises(ServerStatusError, match=r"301 \(Moved Permanently\)"):
        fetch(answer(b"", status="301 Moved Permanently"))


def test_a_redirect_from_http_to_https_is_followed(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.server_context("short.example")
    with (
        LoopbackServer({"/": answer(b"over TLS")}, tls=context) as secure,
        LoopbackServer({"/x": redirect("https://short.example/")}) as plain,
    ):
        wires = Wires({80: plain.port, 443: secure.port})
        body = fetch_image(
            "http://short.example/x",
            FetchLimits(10**6, 30.0),
            resolve=Names({"short.example": [[PUBLIC]]}),
            connect=wires,
            tls_context=authority.client_context,
        )
    assert body == b"over TLS"
    assert wires.asked == [(PUBLIC, 80), (PUBLIC, 443)]


# --- names and connections --------------------------------------------------------------


def test_the_connection_goes_to_the_checked_address_and_the_request_keeps_the_name() -> None:
    """DNS rebinding: the name is public for the check, and private a moment later."""
    with LoopbackServer({"/": answer(b"x")}) as server:
        names = Names({"shop.example": [[PUBLIC], ["127.0.0.1"]]})
        wires = Wires({80: server.port})
        fetch_image("http://Shop.Example./", FetchLimits(9, 30.0), resolve=names, connect=wires)
    assert names.asked == ["shop.example"]
    assert wires.asked == [(PUBLIC, 80)]
    assert header(server.heads[0], "Host") == "shop.example"


def test_addresses_of_both_families_are_tried_in_turn() -> None:
    """A subnet without IPv6: the first family fails at once, and the other gets its turn."""
    addresses = ["2606:4700::1", "2606:4700::2", "1.1.1.1", "1.0.0.1"]
    asked = []

    def connect(address: str, port: int, timeout_s: float) -> socket.socket:
        asked.append(address)
        if address != "1.0.0.1":
            raise OSError("unreachable")
        return socket.create_connection(("127.0.0.1", server.port), timeout_s)

    with LoopbackServer({"/": answer(b"x")}) as server:
        names = Names({"shop.example": [addresses]})
        fetch_image("http://shop.example/", FetchLimits(9, 30.0), resolve=names, connect=connect)
    assert asked == ["2606:4700::1", "1.1.1.1", "2606:4700::2", "1.0.0.1"]


def test_a_server_that_cannot_be_reached_is_the_server_s_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    trusted = FetchLimits(9, 30.0, trusted_hosts=frozenset({f"127.0.0.1:{port}"}))
    with pytest.raises(FetchError, match="cannot be reached"):
        fetch_image(f"http://127.0.0.1:{port}/", trusted)


def test_trusted_names_are_resolved_by_the_system() -> None:
    assert set(resolve_host("localhost")) <= {"127.0.0.1", "::1"}
    with LoopbackServer({"/": answer(b"x")}) as server:
        trusted = FetchLimits(9, 30.0, trusted_hosts=frozenset({f"LOCALHOST:{server.port}"}))
        assert fetch_image(f"http://localhost:{server.port}/", trusted) == b"x"


def test_a_trusted_host_is_trusted_on_its_port_only() -> None:
    with LoopbackServer({}) as server:
        other = FetchLimits(9, 30.0, trusted_hosts=frozenset({"127.0.0.1:80"}))
        with pytest.raises(AddressNotAllowedError, match=f"Port {server.port}"):
            fetch_image(server.url(), other)
    assert server.connections == 0


def test_an_ipv6_address_is_fetched_from() -> None:
    try:
        server = LoopbackServer({"/": answer(b"six")}, family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with server:
        assert fetch_image(server.url(), limits(server)) == b"six"


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(answer(b"straight")) == b"straight"


# --- TLS --------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def fetch_tls(
    authority: Authority,
    host: str,
    context: ssl.SSLContext,
    *,
    play: Play | None = None,
    trusted: Callable[[], ssl.SSLContext] | None = None,
) -> bytes:
    """Fetch https://host/ from a loopback server with this TLS context."""
    with LoopbackServer({"/": play or answer(b"secret")}, tls=context) as server:
        return fetch_image(
            f"https://{host}/",
            FetchLimits(10**6, 30.0),
            resolve=Names({host: [[PUBLIC]]}),
            connect=Wires({443: server.port}),
            tls_context=trusted or authority.client_context,
        )


def test_https_with_a_valid_certificate_sends_the_name(authority: Authority) -> None:
    context = authority.server_context("shop.example")
    asked: list[str] = []
    context.sni_callback = lambda _sock, name, _context: asked.append(name)
    assert fetch_tls(authority, "shop.example", context) == b"secret"
    assert asked == ["shop.example"]


def test_the_certificate_of_an_address_must_name_the_address(authority: Authority) -> None:
    assert fetch_tls(authority, PUBLIC, authority.server_context(PUBLIC)) == b"secret"
    with pytest.raises(FetchError, match="certificate"):
        fetch_tls(authority, PUBLIC, authority.server_context("1.1.1.1"))


def test_an_invalid_certificate_is_the_server_s_failure(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path)
    valid = authority.server_context("shop.example")
    for context, trusted, reason in (
        (authority.server_context("other.example"), None, "mismatch"),
        (authority.server_context("shop.example", expired=True), None, "expired"),
        (stranger.server_context("shop.example"), None, "certificate"),
        (valid, default_tls_context, "certificate"),
    ):
        with pytest.raises(FetchError, match=reason) as caught:
            fetch_tls(authority, "shop.example", context, trusted=trusted)
        assert caught.value.status == 502


def close_with_farewell(stage: Stage) -> None:
    stage.send(OK + b"\r\nwhole")
    assert isinstance(stage.sock, ssl.SSLSocket)
    stage.sock.unwrap()


def test_a_body_without_length_must_end_with_tls_s_farewell(authority: Authority) -> None:
    def lenient() -> ssl.SSLContext:
        """Python's own default in some versions."""
        context = authority.client_context()
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        return context

    context = authority.server_context("shop.example")
    assert fetch_tls(authority, "shop.example", context, play=close_with_farewell) == b"whole"
    with pytest.raises(FetchError, match="cut the secure connection short") as caught:
        fetch_tls(authority, "shop.example", context, play=raw(OK + b"\r\nwho"), trusted=lenient)
    assert caught.value.status == 502


def test_a_server_without_tls_is_the_server_s_failure() -> None:
    with LoopbackServer({"": raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")}) as server:
        trusted = limits(server)
        with pytest.raises(FetchError, match="secure connection"):
            fetch_image(server.url().replace("http", "https"), trusted)


def test_the_connection_is_closed_if_tls_cannot_start() -> None:
    ours, theirs = socket.socketpair()

    def broken() -> Any:
        raise OSError("no certificates on this machine")

    with theirs, pytest.raises(FetchError):
        fetch_image(
            f"https://{PUBLIC}/",
            FetchLimits(9, 30.0),
            connect=lambda *_: ours,
            tls_context=broken,
        )
    assert ours.fileno() == -1


# --- deadlines --------------------------------------------------------------------------


@pytest.mark.parametrize(("timeout_s", "deadline_s"), [(0.2, 60.0), (60.0, 0.2)])
def test_the_earlier_of_deadline_and_timeout_ends_the_fetch(
    timeout_s: float, deadline_s: float
) -> None:
    with LoopbackServer({"/": silent}) as server:
        start = time.monotonic()
        with pytest.raises(DeadlineError):
            trusted = limits(server, timeout_s=timeout_s)
            fetch_image(server.url(), trusted, deadline=start + deadline_s)
        assert 0.2 <= time.monotonic() - start < 3


def test_after_the_deadline_nothing_is_connected_to() -> None:
    with LoopbackServer({"/": answer(b"x")}) as server, pytest.raises(DeadlineError):
        fetch_image(server.url(), limits(server), deadline=time.monotonic() - 1)
    assert server.connections == 0


def test_a_slow_server_that_is_fast_enough_is_waited_for() -> None:
    head = OK + b"Content-Length: 6\r\n\r\n"
    assert fetch(drip(b"slowly", first=head, pause_s=0.01)) == b"slowly"


# --- several at once, and nothing left behind -------------------------------------------


def test_many_threads_fetch_at_once() -> None:
    plays = {f"/{n}": answer(bytes([n]) * 5000) for n in range(1, 33)}
    with LoopbackServer(plays) as server, concurrent.futures.ThreadPoolExecutor(8) as pool:
        trusted = limits(server)
        bodies = list(pool.map(lambda n: fetch_image(server.url(f"/{n}"), trusted), range(1, 33)))
    assert bodies == [bytes([n]) * 5000 for n in range(1, 33)]


def test_no_file_descriptor_and_no_thread_is_left(authority: Authority) -> None:
    if not OPEN_FILES.exists():
        pytest.skip("needs /proc")
    plays = {
        "/": answer(b"x"),
        "/hints": raw(b"HTTP/1.1 103 x\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx"),
        "/404": answer(status="404 x"),
        "/html": answer(b"<html>"),
    }
    secure = authority.server_context("127.0.0.1")
    with LoopbackServer(plays) as plain, LoopbackServer(plays, tls=secure) as tls:
        for server in (plain, tls):
            _fetch_in_all_ways(server, authority)
        before, threads = _open_files(), _lookup_threads()
        for server in (plain, tls) * 5:
            _fetch_in_all_ways(server, authority)
        _wait_until(lambda: _open_files() <= before)
        assert _open_files() <= before
        assert _lookup_threads() == threads == 0


def _fetch_in_all_ways(server: LoopbackServer, authority: Authority) -> None:
    for path in ("/", "/hints", "/404", "/html"):
        try:
            fetch_image(server.url(path), limits(server), tls_context=authority.client_context)
        except (FetchError, UnsupportedImageError):
            assert path in ("/404", "/html")
    with pytest.raises(DeadlineError):
        fetch_image(server.url(), limits(server, timeout_s=1e-5))


def _open_files() -> int:
    return sum(1 for _ in OPEN_FILES.iterdir())


def _lookup_threads() -> int:
    return sum(thread.name == "lookup" for thread in threading.enumerate())


def _wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        time.sleep(0.02)


# --- limits and the service's own host --------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"max_bytes": 0},
        {"timeout_s": 0},
        {"trusted_hosts": frozenset({"no-port"})},
        {"contact": "x\r\nInjected: y"},
        {"contact": "é"},
        {"contact": "a) evil (b"},
    ],
)
def test_impossible_limits_are_refused_by_name(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed))):
        FetchLimits(**{"max_bytes": 1, "timeout_s": 1.0} | changed)


@pytest.mark.parametrize("host", ["api.example", "API.Example.", "api.example:80"])
def test_the_service_s_own_host_is_not_fetched_from(host: str) -> None:
    names = Names({"api.example": [[PUBLIC]], "short.example": [[PUBLIC]]})
    with LoopbackServer({"/": redirect(f"http://{host}/predict")}) as server:
        wires = Wires({80: server.port})
        for first in (host, "short.example"):
            with pytest.raises(ServiceError, match="this service itself") as caught:
                fetch_image(
                    f"http://{first}/",
                    FetchLimits(9, 30.0),
                    own_host="Api.example.",
                    resolve=names,
                    connect=wires,
                )
            assert caught.value.code == "address_not_allowed"
    assert names.asked == ["short.example"]
