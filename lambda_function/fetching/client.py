"""Fetch a stranger's URL safely. Only this module talks to servers that we do not know.

The contract:

- http and https on ports 80 and 443, without credentials in the URL.
- The name is resolved once. Every address that it has must be public (``addresses``). The
  connection goes to one of these addresses, with the Host header, SNI and certificate check of
  the name.
- At most ``max_redirects`` redirects. Each is checked like the first URL.
- Bytes are counted while they arrive.
- One deadline covers everything, the name lookup included.
- Proxies of the environment are never used.
- ``trusted_hosts`` are exempt from the address and port rules.

Private hosts and non-existent hosts return the same error after the same pause. Such errors are
returned on a grid of ``REFUSAL_GRID_S``, so the time of a lookup shows only if it is longer.

Why ``http.client`` on our own socket: the deadline must hold for every single receive, such as a
header that comes at one byte a second. The connection must go to the address that was checked. A
client library with its own pool, lookups, retries and redirects stands in the way of both. Import
times beside what serving imports anyway: http.client 5 ms, urllib3 65 ms and 115 modules (2 busy
cores, 2026-11-24). Nothing is kept between requests, so threads may call at any time.
"""

from __future__ import annotations

import dataclasses
import http.client
import math
import ssl
import time
from typing import TYPE_CHECKING

from lambda_function.errors import (
    AddressNotAllowedError,
    BadRequestError,
    FetchError,
    ServiceError,
)
from lambda_function.fetching.addresses import NO_PUBLIC_ADDRESS, is_public
from lambda_function.fetching.deadline import Deadline
from lambda_function.fetching.errors import ServerStatusError, UnusableResponseError, too_slow
from lambda_function.fetching.identity import VIA, user_agent
from lambda_function.fetching.lookup import LookupPool, resolve_host
from lambda_function.fetching.response import (
    CHUNK_BYTES,
    IMAGE_STATUSES,
    MAX_FRAMING_BYTES,
    REDIRECTS,
    ResponseReader,
    check_head,
    read_body,
)
from lambda_function.fetching.sockets import (
    DeadlineSocket,
    connect_to,
    connect_to_any,
    default_tls_context,
    start_tls,
)
from lambda_function.fetching.urls import (
    PORTS,
    Target,
    normal_host_and_port,
    parse_location,
    parse_url,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from lambda_function.fetching.lookup import Resolve
    from lambda_function.fetching.sockets import Connect

ACCEPT = (
    "image/jpeg,image/png,image/webp,image/avif,image/heic,image/heif,image/gif,image/bmp,*/*;q=0.5"
)
REFUSAL_GRID_S = 0.25

_lookups = LookupPool()


@dataclasses.dataclass(frozen=True)
class FetchLimits:
    """What one fetch may cost.

    Attributes:
        max_bytes: of the image.
        timeout_s: for everything, redirects and name lookups included.
        max_redirects: that are followed.
        trusted_hosts: ``host:port`` pairs exempt from the address and port rules, such as
            ``"images.internal:8080"`` or ``"[::1]:8080"``. Kept in the form that URLs get.
        contact: of the operator, for the User-Agent. Wikimedia asks for one.
    """

    max_bytes: int
    timeout_s: float
    max_redirects: int = 5
    trusted_hosts: frozenset[str] = frozenset()
    contact: str = ""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0. Received: {getattr(self, name)!r}")
        try:
            trusted = frozenset(map(normal_host_and_port, self.trusted_hosts))
        except BadRequestError as error:
            raise ValueError(f"trusted_hosts: {error}") from error
        object.__setattr__(self, "trusted_hosts", trusted)
        user_agent(self.contact)  # raises ValueError


def fetch_image(
    url: str,
    limits: FetchLimits,
    *,
    deadline: float = math.inf,
    own_host: str = "",
    resolve: Resolve = resolve_host,
    connect: Connect = connect_to,
    tls_context: Callable[[], ssl.SSLContext] = default_tls_context,
    sleep: Callable[[float], None] = time.sleep,
) -> bytes:
    """Download the image that a stranger's URL names.

    Args:
        url: http or https.
        limits: what the fetch may cost.
        deadline: a moment of ``time.monotonic()``. The fetch ends at this moment or
            ``limits.timeout_s`` from now, whichever is earlier.
        own_host: the host name of this service, which is not fetched from.
        resolve: name to addresses. No addresses and an OSError mean the same.
        connect: (address, port, timeout_s) to a connected socket.
        tls_context: makes the TLS context when it is first needed.
        sleep: for the pause before an error.

    Returns:
        The body of the response, 1 to ``max_bytes`` bytes. They may or may not be an image.

    Raises:
        BadRequestError: the URL's scheme or form is not accepted, or it has credentials.
        AddressNotAllowedError: the host is private, does not exist or is this service, or the
            port is not allowed.
        TooLargeError: more than ``max_bytes``.
        UnsupportedImageError: the response is a web page.
        FetchError: the server cannot be reached, or did not send a whole image with status 200.
        DeadlineError: the image did not arrive in time.
    """
    download = _Download(
        limits,
        Deadline(min(deadline, time.monotonic() + limits.timeout_s)),
        own_host.lower().removesuffix("."),
        resolve,
        connect,
        tls_context,
        sleep,
    )
    return download.follow(parse_url(url))


@dataclasses.dataclass(frozen=True)
class _Download:
    """One call of ``fetch_image``.

    Attributes:
        deadline: of the fetch.
    """

    limits: FetchLimits
    deadline: Deadline
    own_host: str
    resolve: Resolve
    connect: Connect
    tls_context: Callable[[], ssl.SSLContext]
    sleep: Callable[[float], None]

    def follow(self, target: Target) -> bytes:
        """Return the body behind a URL, redirects followed."""
        for _ in range(self.limits.max_redirects + 1):
            result = self._get(target)
            if isinstance(result, bytes):
                return result
            target = result
        raise FetchError(
            f"The image's server redirects more than {self.limits.max_redirects} times."
        )

    def _get(self, target: Target) -> bytes | Target:
        """Return the body of one response, or the target of its redirect."""
        addresses = self._allowed_addresses(target)
        try:
            with self._open(target, addresses) as sock:
                return self._exchange(sock, target)
        except ServiceError:
            raise
        except TimeoutError as error:
            raise too_slow() from error
        except ssl.SSLCertVerificationError as error:
            raise FetchError(
                f"The image's server has no valid certificate: {error.verify_message}."
            ) from error
        except ssl.SSLEOFError as error:
            raise FetchError("The image's server cut the secure connection short.") from error
        except ssl.SSLError as error:
            raise FetchError("No secure connection to the image's server.") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise FetchError(
                "The image's server broke off or answered something that is not HTTP."
            ) from error

    def _allowed_addresses(self, target: Target) -> Sequence[str]:
        """Return the target's addresses, all of them checked."""
        if target.host == self.own_host:
            raise AddressNotAllowedError(
                "The URL names this service itself. Use the URL of an image."
            )
        trusted = target.host_and_port in self.limits.trusted_hosts
        if not trusted and target.port not in PORTS.values():
            raise AddressNotAllowedError(
                f"Port {target.port} is not allowed. Images are fetched from ports 80 and 443."
            )
        started_s = time.monotonic()
        addresses: Sequence[str] = [target.host]
        if not target.is_address:
            addresses = _lookups.resolve(target.host, self.resolve, self.deadline)
        if not addresses or not (trusted or all(map(is_public, addresses))):
            self._pause_since(started_s)
            raise AddressNotAllowedError(NO_PUBLIC_ADDRESS)
        return addresses

    def _pause_since(self, started_s: float) -> None:
        pause_s = REFUSAL_GRID_S - (time.monotonic() - started_s) % REFUSAL_GRID_S
        self.sleep(self.deadline.limit_s(pause_s))

    def _open(self, target: Target, addresses: Sequence[str]) -> socket.socket:
        sock = connect_to_any(addresses, target.port, self.deadline, self.connect)
        if target.scheme == "http":
            return sock
        return start_tls(sock, target.host, self.deadline, self.tls_context)

    def _exchange(self, sock: socket.socket, target: Target) -> bytes | Target:
        sock.settimeout(self.deadline.remaining_s())
        sock.sendall(_request_head(target, self.limits.contact))
        max_bytes = self.limits.max_bytes
        wire = DeadlineSocket(sock, self.deadline, max_bytes + CHUNK_BYTES + MAX_FRAMING_BYTES)
        response = ResponseReader(wire).read_head()
        if response.status in REDIRECTS and self.limits.max_redirects:
            return _redirect_target(target, response)
        if response.status not in IMAGE_STATUSES:
            raise ServerStatusError(response.status, response.headers)
        packed = check_head(response, max_bytes)
        return read_body(response, max_bytes, packed=packed)


def _request_head(target: Target, contact: str) -> bytes:
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.host_header}",
        f"User-Agent: {user_agent(contact)}",
        f"Via: {VIA}",
        f"Accept: {ACCEPT}",
        "Accept-Encoding: identity",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")


def _redirect_target(target: Target, response: http.client.HTTPResponse) -> Target:
    locations: set[str] = set(response.headers.get_all("Location", []))
    if not locations:
        raise ServerStatusError(response.status, response.headers)
    if len(locations) > 1:
        raise UnusableResponseError("The image's server redirects to two different URLs.")
    return parse_location(target, locations.pop())
