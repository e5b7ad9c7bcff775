"""Servers on loopback that behave well, badly or maliciously, and ways to make them look public.

A server has a play for each path. A play is a function that gets the connected socket after the
request's head was read, and sends what it wants. ``gone`` is set when the server stops, so that no
play outlives its test.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Play = Callable[["Stage"], None]

PUBLIC = "93.184.215.14"  # any public address. Never connected to


@dataclass
class Stage:
    """One connection, as a play sees it.

    Attributes:
        sock: connected. The request's head has been read.
        head: of the request.
        gone: set when the server stops.
    """

    sock: socket.socket
    head: bytes
    gone: threading.Event

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def wait(self, seconds: float) -> bool:
        """Wait. Return False if the server has stopped."""
        return not self.gone.wait(seconds)


def answer(
    body: bytes = b"",
    *,
    status: str = "200 OK",
    headers: Mapping[str, str] | None = None,
    length: int | None = None,
) -> Play:
    """Send a correct response. ``length`` replaces the announced length."""
    announced = {"Content-Length": str(len(body) if length is None else length)} | dict(
        headers or {}
    )
    return raw(_head(status, announced) + body)


def redirect(location: str, *, status: str = "302 Found") -> Play:
    return answer(status=status, headers={"Location": location})


def raw(data: bytes) -> Play:
    """Send these bytes and close."""
    return lambda stage: stage.send(data)


def silent(stage: Stage) -> None:
    """Accept the connection and send nothing."""
    stage.wait(30)


def drip(data: bytes, *, first: bytes = b"", pause_s: float = 0.02) -> Play:
    """Send ``first`` at once, then repeat ``data``, one byte at a time."""

    def play(stage: Stage) -> None:
        stage.send(first)
        position = 0
        while stage.wait(pause_s):
            stage.send(data[position % len(data) :][:1])
            position += 1

    return play


def endless(
    block: bytes, *, first: bytes = b"", total: int = 3 * 10**9, sent: list[int] | None = None
) -> Play:
    """Send ``first``, then ``block`` up to ``total`` bytes. ``sent`` gets the number of bytes."""

    def play(stage: Stage) -> None:
        count = 0
        try:
            stage.send(first)
            while count < total and not stage.gone.is_set():
                stage.send(block)
                count += len(block)
        finally:
            if sent is not None:
                sent.append(count)

    return play


def by_user_agent(stage: Stage) -> None:
    """Send 403 to a client that does not name itself, as Wikimedia does."""
    agent = header(stage.head, "User-Agent").lower()
    anonymous = not agent or agent.startswith(("python-urllib", "python-requests", "python-http"))
    play = answer(status="403 Forbidden") if anonymous else answer(b"image")
    play(stage)


def header(head: bytes, name: str) -> str:
    """Return a header of a request's head, or ``""``."""
    for line in head.decode("latin-1").split("\r\n")[1:]:
        found, _, value = line.partition(":")
        if found.lower() == name.lower():
            return value.strip()
    return ""


def _head(status: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


class LoopbackServer:
    """Plays by path on loopback, for a ``with`` block. ``default`` plays for other paths.

    Attributes:
        port: on loopback.
        heads: of all requests, in order of arrival.
        connections: accepted so far.
    """

    def __init__(
        self,
        plays: Mapping[str, Play],
        *,
        default: Play | None = None,
        tls: ssl.SSLContext | None = None,
        family: socket.AddressFamily = socket.AF_INET,
    ) -> None:
        self.heads: list[bytes] = []
        self.connections = 0
        self._plays = dict(plays)
        self._default = default or answer(b"none", status="404 Not Found")
        self._tls = tls
        self._gone = threading.Event()
        self._threads: list[threading.Thread] = []
        self._address = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self._listener = socket.create_server((self._address, 0), family=family)
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> LoopbackServer:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._gone.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a play did not end"

    @property
    def host(self) -> str:
        """``host:port``, as ``trusted_hosts`` wants it."""
        return (
            f"[{self._address}]:{self.port}" if ":" in self._address else f"127.0.0.1:{self.port}"
        )

    def url(self, path: str = "/") -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}{path}"

    def _start(self, function: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._gone.is_set():
                sock, _ = self._listener.accept()
                self.connections += 1
                self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(30)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            stack.callback(sock.close)
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True)
                stack.callback(sock.close)
            head = _read_head(sock)
            self.heads.append(head)
            path = head.split(b" ")[1].decode() if head.startswith(b"GET ") else ""
            self._plays.get(path, self._default)(Stage(sock, head, self._gone))


def _read_head(sock: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and not head.startswith(b"\x16"):  # TLS is no request
        chunk = sock.recv(4096)
        if not chunk:
            break
        head += chunk
    return head


@dataclass
class Names:
    """A resolver: names to addresses, from a table. Each answer is used once, the last one stays.

    Attributes:
        table: name to a list of answers.
        asked: names, in order.
    """

    table: Mapping[str, list[list[str]]]
    asked: list[str] = field(default_factory=list)

    def __call__(self, name: str) -> list[str]:
        self.asked.append(name)
        answers = self.table.get(name)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]


@dataclass
class Wires:
    """A connector: all connections go to loopback servers, by port.

    Attributes:
        ports: (asked port) to the loopback port that plays it.
        asked: (address, port) of the connections that were asked for, in order.
    """

    ports: Mapping[int, int]
    asked: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, address: str, port: int, timeout_s: float) -> socket.socket:
        self.asked.append((address, port))
        return socket.create_connection(("127.0.0.1", self.ports[port]), timeout=timeout_s)


class Authority:
    """A certificate authority for tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.certificate = self._sign(self._name, self._key.public_key(), [], authority=True)

    def client_context(self) -> ssl.SSLContext:
        """Return a client's context that trusts this authority only."""
        pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=pem)

    def server_context(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """Return a server's context with a certificate for these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test server")])
        certificate = self._sign(subject, key.public_key(), list(names), expired=expired)
        path = self._folder / f"{'-'.join(names).replace('*', 'any')}{'-expired' * expired}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _sign(
        self,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        names: list[str],
        *,
        authority: bool = False,
        expired: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        issuer_key = self._key.public_key()
        builder = (
            x509.CertificateBuilder(self._name, subject, public_key, x509.random_serial_number())
            .not_valid_before(now - 3 * day)
            .not_valid_after(now - 2 * day if expired else now + day)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False
            )
        )
        if authority:  # Python 3.13 requires it
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
