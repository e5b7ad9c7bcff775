"""Connections to checked addresses, and reading from them within a deadline."""

from __future__ import annotations

import functools
import io
import itertools
import socket
import ssl
from typing import TYPE_CHECKING

from lambda_function.errors import FetchError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import WriteableBuffer

    from lambda_function.fetching.deadline import Deadline

    Connect = Callable[[str, int, float], socket.socket]

CONNECT_PATIENCE_S = 2.0  # for one address while others are left. TCP repeats its SYN after 1 s
MAX_ADDRESSES = 8  # of one host that are tried


def connect_to(address: str, port: int, timeout_s: float) -> socket.socket:
    """Open a TCP connection to a numeric address.

    Args:
        address: IPv4 or IPv6, as text.
        port: 1..65535.
        timeout_s: for the connection.

    Raises:
        OSError: refused or unreachable. A TimeoutError if nothing answered in time.
    """
    return socket.create_connection((address, port), timeout_s)


def connect_to_any(
    addresses: Sequence[str], port: int, deadline: Deadline, connect: Connect
) -> socket.socket:
    """Open a connection to the first address that accepts it.

    Args:
        addresses: at least one. ``MAX_ADDRESSES`` are tried, IPv4 and IPv6 in turn.
        port: 1..65535.
        deadline: of the fetch.
        connect: (address, port, timeout_s) to a connected socket.

    Raises:
        FetchError: no address accepts a connection.
        TimeoutError: the last address did not answer before the deadline.
        DeadlineError: no time is left.
    """
    *others, last = alternate_families(addresses)[:MAX_ADDRESSES]
    for address in others:
        try:
            return connect(address, port, min(CONNECT_PATIENCE_S, deadline.remaining_s()))
        except OSError:
            continue
    try:
        return connect(last, port, deadline.remaining_s())
    except TimeoutError:
        raise
    except OSError as error:
        raise FetchError("The image's server cannot be reached.") from error


def alternate_families(addresses: Sequence[str]) -> list[str]:
    """Put IPv4 and IPv6 in turn (RFC 8305), for subnets that have one of them only."""
    first = ":" in addresses[0]
    same = [address for address in addresses if (":" in address) == first]
    other = [address for address in addresses if (":" in address) != first]
    pairs = itertools.zip_longest(same, other)
    return [address for pair in pairs for address in pair if address is not None]


@functools.cache
def default_tls_context() -> ssl.SSLContext:
    """Return the TLS context that trusts the system's certificate authorities. Made once."""
    return ssl.create_default_context()


def start_tls(
    sock: socket.socket, host: str, deadline: Deadline, tls_context: Callable[[], ssl.SSLContext]
) -> ssl.SSLSocket:
    """Start TLS on a connection, and check the certificate against the host.

    Closes the connection if TLS cannot start. A connection that ends without TLS's own farewell
    raises an error later: otherwise a body of unknown length could be cut short unnoticed.

    Raises:
        ssl.SSLError: the certificate is not valid, or the server does not speak TLS.
        OSError: the connection broke. A TimeoutError at the deadline.
        DeadlineError: no time is left.
    """
    try:
        sock.settimeout(deadline.remaining_s())
        context = tls_context()
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        return context.wrap_socket(sock, server_hostname=host, suppress_ragged_eofs=False)
    except BaseException:
        sock.close()
        raise


class DeadlineSocket(io.RawIOBase):
    """A socket to read from that holds a deadline and a limit of bytes at every receive.

    The HTTP parser reads from this socket. So chunk sizes, informational responses and trailers
    cannot make more bytes arrive than the limit.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline, max_bytes: int) -> None:
        """Wrap a connected socket.

        Args:
            sock: stays the caller's to close.
            deadline: asked before every receive.
            max_bytes: received in all.
        """
        self._sock = sock
        self._deadline = deadline
        self._left = max_bytes

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Receive into a buffer and return the number of bytes.

        Raises:
            DeadlineError: no time is left.
            TooLargeError: the server sent more than ``max_bytes``.
            OSError: the connection broke. A TimeoutError at the deadline.
        """
        self._sock.settimeout(self._deadline.remaining_s())
        count = self._sock.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise TooLargeError("The image's server sends more bytes than are accepted.")
        return count
