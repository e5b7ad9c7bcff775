"""A stranger's URL, fetched without harm: the only code that talks to servers we do not know.

The contract: http and https on ports 80 and 443, no credentials in the URL; the name is resolved
once, every address it has must be public (``addresses``), and the connection goes to one of those
very addresses with the Host header, SNI and certificate check of the name; at most
``max_redirects`` redirects, each checked like the first URL; nothing but the identity encoding;
bytes counted while they arrive; one deadline over everything, name lookup included; proxies of
the environment never used. ``trusted_hosts`` are exempt from the address and port rules.

What an answer tells. A host with a private address and a host that is not there get the same
status, code and words, and the same pause: such refusals are answered on a grid of
``REFUSAL_GRID_S``, so the time a lookup took shows only when it exceeds that.

Why ``http.client`` on a socket of our own. The deadline has to hold every single receive, a
header that comes one byte a second included, and the connection has to go to an address that was
checked; a client library with its own pool, lookups, retries and redirects is in the way of both.
Measured on top of what serving imports anyway: http.client 5 ms, urllib3 65 ms and 115 modules
(2 busy cores, 2026-11-24). Nothing is kept between requests, so threads may call at will.

Lookups. ``getaddrinfo`` can be neither timed out nor stopped, so it runs in a daemon thread that is
left behind at the deadline. That thread holds nothing of the request: it ends by itself when the
system resolver gives up (``RES_OPTIONS="timeout:1 attempts:2"`` makes that 2 seconds a name
server), and drops its answer. A frozen and thawed function may see it end inside a later request,
where it has nothing to touch. At most ``MAX_LOOKUPS`` exist at once; further ones wait for
a place, within their own deadline.
"""

from __future__ import annotations

import dataclasses
import functools
import http.client
import io
import itertools
import math
import queue
import socket
import ssl
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from lambda_function.errors import (
    AddressNotAllowedError,
    BadRequestError,
    DeadlineError,
    FetchError,
    ServiceError,
    TooLargeError,
    UnsupportedImageError,
)
from lambda_function.fetching.addresses import NO_PUBLIC_ADDRESS, is_public
from lambda_function.fetching.urls import (
    PORTS,
    Target,
    normal_host_and_port,
    parse_location,
    parse_url,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from email.message import Message

USER_AGENT = "serverless-image-classifier/0.2 (fetches one image at its user's request)"
ACCEPT = "image/jpeg,image/png,image/webp,image/avif,image/gif,image/bmp,*/*;q=0.5"
MAX_HEAD_BYTES = 64 * 1024  # of status line and headers
CHUNK_BYTES = 64 * 1024
REFUSAL_GRID_S = 0.25
CONNECT_PATIENCE_S = 2.0  # for one address while others are left; the first SYN is repeated at 1 s
MAX_ADDRESSES = 8  # of one host that are tried
MAX_LOOKUPS = 64  # name lookups at once, abandoned ones included

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_lookups = threading.BoundedSemaphore(MAX_LOOKUPS)


class ServerStatusError(FetchError):
    """The image's server answered with a status other than 200, or a redirect to nowhere.

    Attributes:
        server_status: that status.
        server_headers: the headers that came with it.
    """

    def __init__(self, server_status: int, server_headers: Message) -> None:
        super().__init__(f"The image's server answered {_named(server_status)}.")
        self.server_status = server_status
        self.server_headers = server_headers


class UnusableAnswerError(FetchError):
    """The image's server did answer, with what can be no image: nothing, or encoded bytes."""


@dataclasses.dataclass(frozen=True)
class FetchLimits:
    """What one fetch may cost.

    Attributes:
        max_bytes: of the image.
        timeout_s: for everything, redirects and name lookups included.
        max_redirects: that are followed.
        trusted_hosts: ``host:port`` pairs exempt from the address and port rules, such as
            ``"images.internal:8080"`` or ``"[::1]:8080"``; kept in the form that URLs get.
        user_agent: sent to servers; some answer 403 to one that does not say who is asking.
    """

    max_bytes: int
    timeout_s: float
    max_redirects: int = 3
    trusted_hosts: frozenset[str] = frozenset()
    user_agent: str = USER_AGENT

    def __post_init__(self) -> None:
        for name in ("max_bytes", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0. Received: {getattr(self, name)!r}")
        try:
            trusted = frozenset(map(normal_host_and_port, self.trusted_hosts))
        except BadRequestError as error:
            raise ValueError(f"trusted_hosts: {error}") from error
        object.__setattr__(self, "trusted_hosts", trusted)
        if not self.user_agent.isascii() or not self.user_agent.isprintable():
            raise ValueError(f"user_agent must be printable ASCII. Received: {self.user_agent!r}")


def fetch_image(
    url: str,
    limits: FetchLimits,
    *,
    deadline: float | None = None,
    admit: Callable[[], None] | None = None,
    resolve: Callable[[str], Sequence[str]] | None = None,
    connect: Callable[[str, int, float], socket.socket] | None = None,
    tls_context: Callable[[], ssl.SSLContext] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> bytes:
    """Download what a stranger's URL names.

    Args:
        url: http or https.
        limits: what it may cost.
        deadline: a moment of ``time.monotonic()``; the earlier of it and ``limits.timeout_s``
            from now holds.
        admit: called once the server has begun to answer with an image, before its bytes are read;
            may wait, until there is memory to hold them, or raise a ServiceError. Its wait is not
            the server's: it prolongs ``limits.timeout_s``, but not beyond ``deadline``.
        resolve: name to addresses; an empty answer or an OSError means there are none.
        connect: (address, port, timeout_s) to a connected socket.
        tls_context: made when first needed.
        sleep: for the pause before a refusal.

    Returns:
        The body of the answer, 1 to ``max_bytes`` bytes; not yet known to be an image.

    Raises:
        BadRequestError: not a URL that is fetched: its scheme, its form, or credentials in it.
        AddressNotAllowedError: the host is private or is not there, or the port is not allowed.
        TooLargeError: more than ``max_bytes``.
        UnsupportedImageError: the answer is a web page.
        FetchError: the server cannot be reached, or did not answer 200 and a whole body.
        DeadlineError: it was not done in time.
    """
    latest = time.monotonic() + limits.timeout_s
    last = math.inf if deadline is None else deadline
    download = _Download(
        limits,
        min(latest, last),
        last,
        resolve or resolve_host,
        connect or connect_to,
        tls_context or _default_tls_context,
        sleep,
        admit or _always,
    )
    return download.follow(url)


def resolve_host(name: str) -> list[str]:
    """Ask the system resolver for a name's addresses, in the order in which to try them.

    Blocks for as long as the system resolver likes.

    Raises:
        OSError: there are none, or they cannot be found out.
    """
    found = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def connect_to(address: str, port: int, timeout_s: float) -> socket.socket:
    """Open a TCP connection to a numeric address.

    Raises:
        OSError: refused, unreachable, or (TimeoutError) not answered in time.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        sock.settimeout(timeout_s)
        sock.connect((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


@dataclasses.dataclass(frozen=True)
class _Download:
    """One call of ``fetch_image``: its limits, deadlines and ways out.

    Attributes:
        deadline: of the fetch.
        last: of the request that it is part of.
    """

    limits: FetchLimits
    deadline: float
    last: float
    resolve: Callable[[str], Sequence[str]]
    connect: Callable[[str, int, float], socket.socket]
    tls_context: Callable[[], ssl.SSLContext]
    sleep: Callable[[float], None]
    admit: Callable[[], None]

    def follow(self, url: str) -> bytes:
        target = parse_url(url)
        for _ in range(self.limits.max_redirects + 1):
            answer = self._get(target)
            if isinstance(answer, bytes):
                return answer
            target = answer
        raise FetchError(
            f"The image's server redirects more than {self.limits.max_redirects} times."
        )

    def _get(self, target: Target) -> bytes | Target:
        addresses = self._allowed_addresses(target)
        try:
            with self._open(target, addresses) as sock:
                return self._exchange(sock, target)
        except ServiceError:
            raise
        except TimeoutError as error:
            raise _too_slow() from error
        except ssl.SSLCertVerificationError as error:
            raise FetchError(
                f"The image's server has no valid certificate: {error.verify_message}."
            ) from error
        except ssl.SSLError as error:
            raise FetchError("No secure connection to the image's server.") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise FetchError(
                "The image's server broke off or answered something that is not HTTP."
            ) from error

    # --- where to: only checked addresses come out of here

    def _allowed_addresses(self, target: Target) -> Sequence[str]:
        trusted = target.host_and_port in self.limits.trusted_hosts
        if not trusted and target.port not in PORTS.values():
            raise AddressNotAllowedError(
                f"Port {target.port} is not allowed; images are fetched from ports 80 and 443."
            )
        started = time.monotonic()
        found = [target.host] if target.is_address else self._lookup(target.host)
        if not found or not (trusted or all(map(is_public, found))):
            self._pause_since(started)
            raise AddressNotAllowedError(NO_PUBLIC_ADDRESS)
        return _alternating(found)[:MAX_ADDRESSES]

    def _lookup(self, host: str) -> Sequence[str]:
        if not _lookups.acquire(timeout=self._remaining_s()):
            raise _too_slow()
        answer: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()
        threading.Thread(
            target=_look_up, args=(self.resolve, host, answer), name="lookup", daemon=True
        ).start()
        try:
            return answer.get(timeout=self._remaining_s())
        except queue.Empty:
            raise _too_slow() from None

    def _pause_since(self, started: float) -> None:
        pause_s = REFUSAL_GRID_S - (time.monotonic() - started) % REFUSAL_GRID_S
        self.sleep(max(0.0, min(pause_s, self.deadline - time.monotonic())))

    # --- the connection

    def _open(self, target: Target, addresses: Sequence[str]) -> socket.socket:
        sock = self._connect_to_any(addresses, target.port)
        if target.scheme == "http":
            return sock
        try:
            sock.settimeout(self._remaining_s())
            return self.tls_context().wrap_socket(sock, server_hostname=target.host)
        except BaseException:
            sock.close()
            raise

    def _connect_to_any(self, addresses: Sequence[str], port: int) -> socket.socket:
        for address in addresses[:-1]:
            try:
                return self.connect(address, port, min(CONNECT_PATIENCE_S, self._remaining_s()))
            except OSError:
                continue
        try:
            return self.connect(addresses[-1], port, self._remaining_s())
        except TimeoutError:
            raise
        except OSError as error:
            raise FetchError("The image's server cannot be reached.") from error

    # --- the exchange

    def _exchange(self, sock: socket.socket, target: Target) -> bytes | Target:
        sock.settimeout(self._remaining_s())
        sock.sendall(_request(target, self.limits.user_agent))
        wire = _Wire(sock, self.deadline, MAX_HEAD_BYTES + 2 * self.limits.max_bytes)
        response = http.client.HTTPResponse(cast("socket.socket", wire), method="GET")
        with response:
            response.begin()
            if response.status in _REDIRECTS and self.limits.max_redirects:
                return _redirect(target, response)
            if response.status != HTTPStatus.OK:
                raise ServerStatusError(response.status, response.headers)
            _check_encoding(response)
            return self._read_body(response, wire)

    def _read_body(self, response: http.client.HTTPResponse, wire: _Wire) -> bytes:
        declared = response.length
        if declared is not None and declared > self.limits.max_bytes:
            raise self._too_large()
        asked = time.monotonic()
        self.admit()
        wire.deadline = min(self.deadline + (time.monotonic() - asked), self.last)
        body = io.BytesIO()  # getvalue() hands its buffer over without a copy
        while chunk := response.read(CHUNK_BYTES):
            body.write(chunk)
            if body.tell() > self.limits.max_bytes:
                raise self._too_large()
        if declared is not None and body.tell() < declared:
            raise FetchError(
                f"The image's server broke off after {body.tell():,} of {declared:,} bytes."
            )
        return _not_a_page(body.getvalue(), response)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(
            f"The image has more than {self.limits.max_bytes:,} bytes. Use a smaller one."
        )

    def _remaining_s(self) -> float:
        remaining_s = self.deadline - time.monotonic()
        if remaining_s <= 0:
            raise _too_slow()
        return remaining_s


class _Wire(io.RawIOBase):
    """A socket to read from that holds the deadline and a limit of bytes at every receive.

    The limit stands under the HTTP parser: whatever it is told by chunk sizes, interim
    responses or trailers, no more than this arrives.

    Attributes:
        deadline: a ``time.monotonic()`` moment.
    """

    def __init__(self, sock: socket.socket, deadline: float, max_bytes: int) -> None:
        self._sock = sock
        self.deadline = deadline
        self._left = max_bytes

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        remaining_s = self.deadline - time.monotonic()
        if remaining_s <= 0:
            raise _too_slow()
        self._sock.settimeout(remaining_s)
        count = self._sock.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise TooLargeError("The image's server sends more than is accepted.")
        return count


def _always() -> None:
    """Admit every image at once."""


def _look_up(
    resolve: Callable[[str], Sequence[str]], host: str, answer: queue.SimpleQueue[Sequence[str]]
) -> None:
    try:
        found = resolve(host)
    except (OSError, UnicodeError):
        found = []
    finally:
        _lookups.release()
    answer.put(found)


def _alternating(addresses: Sequence[str]) -> list[str]:
    """Put the families in turn (RFC 8305): a subnet without IPv6 must not try only that."""
    first = ":" in addresses[0]
    same = [address for address in addresses if (":" in address) == first]
    other = [address for address in addresses if (":" in address) != first]
    pairs = itertools.zip_longest(same, other)
    return [address for pair in pairs for address in pair if address is not None]


@functools.cache
def _default_tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _request(target: Target, user_agent: str) -> bytes:
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.host_header}",
        f"User-Agent: {user_agent}",
        f"Accept: {ACCEPT}",
        "Accept-Encoding: identity",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


def _redirect(target: Target, response: http.client.HTTPResponse) -> Target:
    location = response.headers.get("Location")
    if location is None:
        raise ServerStatusError(response.status, response.headers)
    return parse_location(target, location)


def _check_encoding(response: http.client.HTTPResponse) -> None:
    for header, accepted in (
        ("Content-Encoding", {"", "identity"}),
        ("Transfer-Encoding", {"", "identity", "chunked"}),
    ):
        encoding = response.headers.get(header, "").strip().lower()
        if encoding not in accepted:
            raise UnusableAnswerError(
                f"The image's server answered with a {header} that was not asked for; "
                "images are taken as they are."
            )


def _not_a_page(body: bytes, response: http.client.HTTPResponse) -> bytes:
    """Tell a web page from an image: the commonest mistake, and the decoder would not name it.

    A page is what starts like one and what is called text/html and starts with ``<``. An
    image that a server calls text/html is still taken.
    """
    if not body:
        raise UnusableAnswerError("The image's server sent an empty answer.")
    start = body[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    called_html = response.headers.get_content_type() in ("text/html", "application/xhtml+xml")
    if start.startswith((b"<!doctype html", b"<html")) or (called_html and start[:1] == b"<"):
        raise UnsupportedImageError(
            "The URL leads to a web page (HTML), not to an image. "
            "Use the address of the picture itself."
        )
    return body


def _named(status: int) -> str:
    """Return a status with its name; the server's own words are not repeated."""
    try:
        return f"{status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return str(status)


def _too_slow() -> DeadlineError:
    return DeadlineError("The image was not there in time; its server is too slow.")
