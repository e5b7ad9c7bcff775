"""Fetching from servers that behave, or fail honestly. What attackers do: test_fetch_attacks."""

from __future__ import annotations

import concurrent.futures
import socket
import subprocess
import sys
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
    TooLargeError,
    UnsupportedImageError,
)
from lambda_function.fetching.client import FetchLimits, fetch_image
from lambda_function.fetching.lookup import resolve_host
from lambda_function.fetching.response import ServerStatusError
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
    from tests.support.servers import Play

OPEN_FILES = Path("/proc/self/fd")
BODY = bytes(range(256)) * 700  # 179,200 bytes: several chunks


def limits(server: LoopbackServer, **changed: Any) -> FetchLimits:
    """Return limits that trust this server, and would not hold up a test for long."""
    defaults: dict[str, Any] = {"max_bytes": 10**6, "timeout_s": 30.0}
    return FetchLimits(trusted_hosts=frozenset({server.host}), **defaults | changed)


def fetch(play: Play, **changed: Any) -> bytes:
    """Fetch from a server that plays this."""
    with LoopbackServer({"/": play}) as server:
        return fetch_image(server.url(), limits(server, **changed))


def test_a_body_comes_as_it_is() -> None:
    assert fetch(answer(BODY)) == BODY


def test_a_body_is_admitted_once_after_redirects_and_before_it_is_read() -> None:
    admitted = []
    with LoopbackServer({"/": redirect("/body"), "/body": answer(BODY)}) as server:
        found = fetch_image(server.url(), limits(server), admit=lambda: admitted.append(1))
    assert (found, admitted) == (BODY, [1])


def test_waiting_for_a_place_in_memory_is_not_the_server_s_slowness() -> None:
    """The server needs no time, the place 0.6 s: more than the download's own 0.5 s."""
    with LoopbackServer({"/": answer(BODY)}) as server:
        found = fetch_image(
            server.url(), limits(server, timeout_s=0.5), admit=lambda: time.sleep(0.6)
        )
    assert found == BODY


def test_waiting_for_a_place_in_memory_prolongs_nothing_beyond_the_request() -> None:
    with LoopbackServer({"/": answer(BODY)}) as server, pytest.raises(DeadlineError):
        fetch_image(
            server.url(),
            limits(server, timeout_s=30.0),
            deadline=time.monotonic() + 0.3,
            admit=lambda: time.sleep(0.4),
        )


def test_after_the_wait_for_a_place_only_what_was_left_is_left() -> None:
    start = time.monotonic()
    with (
        LoopbackServer({"/": drip(b"z", first=b"HTTP/1.1 200 OK\r\n\r\n")}) as server,
        pytest.raises(DeadlineError),
    ):
        fetch_image(server.url(), limits(server, timeout_s=0.5), admit=lambda: time.sleep(0.6))
    assert 1.0 < time.monotonic() - start < 4.0


def test_what_is_no_image_asks_for_no_place_in_memory() -> None:
    admitted: list[int] = []
    with (
        LoopbackServer({"/": raw(b"HTTP/1.1 404 Not Found\r\n\r\n")}) as server,
        pytest.raises(ServerStatusError),
    ):
        fetch_image(server.url(), limits(server), admit=lambda: admitted.append(1))
    assert admitted == []


def test_a_body_of_unknown_length_ends_with_the_connection() -> None:
    assert fetch(raw(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)) == BODY


def test_a_chunked_body_is_put_together() -> None:
    chunked = b"5\r\nhello\r\n1;extension=x\r\n,\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert fetch(raw(head + chunked)) == b"hello, world"


def test_an_interim_answer_is_skipped() -> None:
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert fetch(raw(b"HTTP/1.1 100 Continue\r\n\r\n" + final)) == b"ok"


def test_exactly_max_bytes_are_taken_and_one_more_is_not() -> None:
    assert fetch(answer(BODY), max_bytes=len(BODY)) == BODY
    with pytest.raises(TooLargeError):
        fetch(answer(BODY), max_bytes=len(BODY) - 1)


def test_the_request_says_who_asks_and_for_what() -> None:
    with LoopbackServer({"/a%20b?c=%C3%A9": answer(b"x")}) as server:
        fetch_image(server.url("/a b?c=é#fragment"), limits(server))
    (head,) = server.heads
    assert head.startswith(b"GET /a%20b?c=%C3%A9 HTTP/1.1\r\n")
    assert header(head, "Host") == server.host
    assert header(head, "Accept-Encoding") == "identity"
    assert header(head, "Connection") == "close"
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    short = version["project"]["version"].rpartition(".")[0]
    assert header(head, "User-Agent").startswith(f"serverless-image-classifier/{short} (")
    assert "image/jpeg" in header(head, "Accept")


def test_a_server_that_refuses_anonymous_clients_serves_us() -> None:
    assert fetch(by_user_agent) == b"picture"
    with pytest.raises(ServerStatusError, match="403"):
        fetch(by_user_agent, user_agent="python-requests/2")


def test_the_user_agent_can_name_who_to_ask() -> None:
    with LoopbackServer({"/": answer(b"x")}) as server:
        fetch_image(server.url(), limits(server, user_agent="shop/1 (mail@shop.example)"))
    assert header(server.heads[0], "User-Agent") == "shop/1 (mail@shop.example)"


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
        ("799 Made up", r"answered 799\."),
    ],
)
def test_the_server_s_status_is_named_in_the_standard_s_words(status: str, named: str) -> None:
    with pytest.raises(FetchError, match=named) as caught:
        fetch(answer(b"x", status=status))
    assert caught.value.status == 502
    assert isinstance(caught.value, ServerStatusError)
    assert caught.value.server_status == int(status[:3])


def test_a_web_page_is_told_from_an_image() -> None:
    html = {"Content-Type": "text/html; charset=utf-8"}
    for body, headers in (
        (b"<!DOCTYPE html><p>hello", html),
        (b"\n  <p>hello", html),
        (b"<p>hello", {"Content-Type": "application/xhtml+xml"}),
        (b"\xef\xbb\xbf\n<HTML><body>", {"Content-Type": "image/jpeg"}),
    ):
        with pytest.raises(UnsupportedImageError, match="web page"):
            fetch(answer(body, headers=headers))


def test_an_image_that_is_called_a_web_page_is_taken() -> None:
    jpeg = b"\xff\xd8\xff\xe0"
    assert fetch(answer(jpeg, headers={"Content-Type": "text/html"})) == jpeg


def test_an_empty_answer_is_the_server_s_failure() -> None:
    with pytest.raises(FetchError, match="empty"):
        fetch(answer(b""))


# --- redirects --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int) -> None:
    plays = {"/": redirect("there?x=1", status=f"{status} x"), "/there?x=1": answer(b"here")}
    with LoopbackServer(plays) as server:
        assert fetch_image(server.url(), limits(server)) == b"here"


def test_three_redirects_are_followed_and_four_are_not() -> None:
    plays = {f"/{n}": redirect(f"/{n - 1}") for n in range(1, 5)} | {"/0": answer(b"end")}
    with LoopbackServer(plays) as server:
        assert fetch_image(server.url("/3"), limits(server)) == b"end"
        with pytest.raises(FetchError, match="more than 3 times"):
            fetch_image(server.url("/4"), limits(server))


def test_no_redirect_is_followed_where_none_is_allowed() -> None:
    server = LoopbackServer({"/": redirect("/0"), "/0": answer(b"end")})
    with server, pytest.raises(ServerStatusError, match=r"302 \(Found\)"):
        fetch_image(server.url(), limits(server, max_redirects=0))
    assert len(server.heads) == 1


def test_a_redirect_to_nowhere_names_its_status() -> None:
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
        got = fetch_image(
            "http://short.example/x",
            FetchLimits(10**6, 30.0),
            resolve=Names({"short.example": [[PUBLIC]]}),
            connect=wires,
            tls_context=authority.client_context,
        )
    assert got == b"over TLS"
    assert wires.asked == [(PUBLIC, 80), (PUBLIC, 443)]


# --- names and connections --------------------------------------------------------------


def test_the_connection_goes_to_the_checked_address_and_the_name_stays_in_the_request() -> None:
    with LoopbackServer({"/": answer(b"x")}) as server:
        names, wires = Names({"shop.example": [[PUBLIC]]}), Wires({80: server.port})
        fetch_image("http://Shop.Example./", FetchLimits(9, 30.0), resolve=names, connect=wires)
    assert names.asked == ["shop.example"]
    assert wires.asked == [(PUBLIC, 80)]
    assert header(server.heads[0], "Host") == "shop.example"


def test_an_address_that_does_not_answer_is_followed_by_the_next() -> None:
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


def test_a_trusted_host_is_trusted_on_its_port_alone() -> None:
    with LoopbackServer({}) as server:
        other = FetchLimits(9, 30.0, trusted_hosts=frozenset({"127.0.0.1:80"}))
        with pytest.raises(AddressNotAllowedError, match=f"Port {server.port}"):
            fetch_image(server.url(), other)
    assert server.connections == 0


def test_ipv6_works() -> None:
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


def fetch_tls(
    authority: Authority, host: str, context: Any, *, trusted: Any = None, **changed: Any
) -> bytes:
    """Fetch https://host/ from a loopback server with this TLS context."""
    with LoopbackServer({"/": answer(b"secret")}, tls=context) as server:
        return fetch_image(
            f"https://{host}/",
            FetchLimits(10**6, 30.0),
            resolve=Names({host: [[PUBLIC]]}),
            connect=Wires({443: server.port}),
            tls_context=trusted or authority.client_context,
        )


def test_https_with_a_good_certificate_sends_the_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.server_context("shop.example")
    asked = []
    context.sni_callback = lambda _sock, name, _context: asked.append(name)
    assert fetch_tls(authority, "shop.example", context) == b"secret"
    assert asked == ["shop.example"]


def test_an_address_s_certificate_is_checked_against_the_address(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert fetch_tls(authority, PUBLIC, authority.server_context(PUBLIC)) == b"secret"
    with pytest.raises(FetchError, match="certificate"):
        fetch_tls(authority, PUBLIC, authority.server_context("1.1.1.1"))


def test_a_wrong_certificate_is_the_server_s_failure(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path)
    for context, reason in (
        (authority.server_context("other.example"), "mismatch"),
        (authority.server_context("shop.example", expired=True), "expired"),
        (stranger.server_context("shop.example"), "certificate"),
    ):
        with pytest.raises(FetchError, match=reason) as caught:
            fetch_tls(authority, "shop.example", context)
        assert caught.value.status == 502


def test_the_default_context_does_not_trust_a_stranger_s_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with pytest.raises(FetchError, match="certificate"):
        context = authority.server_context("shop.example")
        fetch_tls(authority, "shop.example", context, trusted=default_tls_context)


def test_a_server_without_tls_is_the_server_s_failure() -> None:
    with LoopbackServer({"": raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")}) as server:
        trusted = limits(server)
        with pytest.raises(FetchError, match="secure connection"):
            fetch_image(server.url().replace("http", "https"), trusted)


def test_the_connection_is_closed_where_tls_cannot_begin() -> None:
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


def test_the_earlier_of_deadline_and_timeout_holds() -> None:
    with LoopbackServer({"/": silent}) as server:
        for timeout_s, deadline_s in ((0.2, 60.0), (60.0, 0.2)):
            start = time.monotonic()
            with pytest.raises(DeadlineError):
                trusted = limits(server, timeout_s=timeout_s)
                fetch_image(server.url(), trusted, deadline=start + deadline_s)
            assert 0.2 <= time.monotonic() - start < 3


def test_a_deadline_that_has_passed_connects_to_nothing() -> None:
    with LoopbackServer({"/": answer(b"x")}) as server, pytest.raises(DeadlineError):
        fetch_image(server.url(), limits(server), deadline=time.monotonic() - 1)
    assert server.connections == 0


def test_a_slow_server_that_is_fast_enough_is_waited_for() -> None:
    body = b"slowly"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"
    assert fetch(drip(body, first=head, pause_s=0.01)) == body


# --- several at once, and nothing left behind -------------------------------------------


def test_many_threads_fetch_at_once() -> None:
    plays = {f"/{n}": answer(bytes([n]) * 5000) for n in range(1, 33)}
    with LoopbackServer(plays) as server, concurrent.futures.ThreadPoolExecutor(8) as pool:
        trusted = limits(server)
        got = list(pool.map(lambda n: fetch_image(server.url(f"/{n}"), trusted), range(1, 33)))
    assert got == [bytes([n]) * 5000 for n in range(1, 33)]


def test_no_file_descriptor_and_no_thread_is_left(tmp_path: Path) -> None:
    if not OPEN_FILES.exists():
        pytest.skip("needs /proc")
    authority = Authority(tmp_path)
    plays = {"/": answer(b"x"), "/404": answer(status="404 x"), "/html": answer(b"<html>")}
    secure = authority.server_context("127.0.0.1")
    with LoopbackServer(plays) as plain, LoopbackServer(plays, tls=secure) as tls:
        for server in (plain, tls):
            _fetch_in_all_ways(server, authority)
        before, threads = _open_files(), _client_threads()
        for server in (plain, tls) * 5:
            _fetch_in_all_ways(server, authority)
        _wait_until(lambda: _open_files() <= before)
        assert _open_files() <= before
        assert _client_threads() == threads == 0


def _fetch_in_all_ways(server: LoopbackServer, authority: Authority) -> None:
    for path in ("/", "/404", "/html"):
        try:
            fetch_image(server.url(path), limits(server), tls_context=authority.client_context)
        except (FetchError, UnsupportedImageError):
            assert path != "/"
    with pytest.raises(DeadlineError):
        fetch_image(server.url(), limits(server, timeout_s=1e-5))


def _open_files() -> int:
    return sum(1 for _ in OPEN_FILES.iterdir())


def _client_threads() -> int:
    return sum(thread.name == "lookup" for thread in threading.enumerate())


def _wait_until(condition: Any) -> None:
    for _ in range(100):
        if condition():
            return
        time.sleep(0.02)


def test_importing_it_is_cheap() -> None:
    """No client library, and no certificates read: those cost more than the whole module."""
    code = (
        "import sys, lambda_function.fetching.client, lambda_function.fetching.sockets as f;"
        " print(f.default_tls_context.cache_info().misses,"
        " [m for m in ('urllib3', 'requests', 'boto3', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "0 []"


@pytest.mark.parametrize(
    "changed",
    [
        {"max_bytes": 0},
        {"timeout_s": 0},
        {"trusted_hosts": frozenset({"no-port"})},
        {"user_agent": "x\r\nInjected: y"},
        {"user_agent": "é"},
    ],
)
def test_limits_that_cannot_be_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed))):
        FetchLimits(**{"max_bytes": 1, "timeout_s": 1.0} | changed)
