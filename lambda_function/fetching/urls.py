"""URLs taken apart, strictly, before anything is done with them.

Why not ``urlsplit`` alone: it silently drops tabs and line breaks, ignores what stands around the
brackets of an IPv6 address, and leaves every spelling of a host (``2130706433``, ``0x7f.1``,
``LOCALHOST.``, full-width digits) as it is. What two parsers could read in two ways is refused
here or brought into the one form that is then looked up, checked, connected to and sent.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket
from urllib.parse import quote, urljoin, urlsplit

from lambda_function.errors import AddressNotAllowedError, BadRequestError
from lambda_function.fetching.addresses import NO_PUBLIC_ADDRESS

PORTS = {"http": 80, "https": 443}
MAX_URL_LENGTH = 8192  # what common servers take in a request line; signed URLs reach 2,000

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NETLOC = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@/?#]+))(?::(?P<port>[0-9]{0,5}))?"
)
_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_NUMERIC = re.compile(r"(?:.*\.)?(?:0x[0-9a-f]*|[0-9]+)")  # a URL's host that "ends in a number"
_REFUSED_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\\\u2028\u2029]")
# IDNA 2003, which Python has, and IDNA 2008 turn names with these into different hosts.
_AMBIGUOUS_IN_HOSTS = re.compile("[\u00df\u03c2\u200c\u200d]")


@dataclasses.dataclass(frozen=True)
class Target:
    """A URL that keeps the rules of form; whether its address is allowed is not known yet.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: lower case; a name in ASCII (punycode) without a final dot, or an address.
        port: 1..65535.
        path: with the query, percent-encoded ASCII; never the fragment.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def is_address(self) -> bool:
        """Whether the host is an address, so that there is nothing to look up."""
        return ":" in self.host or _NUMERIC.fullmatch(self.host) is not None

    @property
    def host_and_port(self) -> str:
        """As lists of trusted hosts name it, the port always written."""
        return f"{self._bracketed_host}:{self.port}"

    @property
    def host_header(self) -> str:
        """As HTTP wants it: with the port only where it is not the scheme's own."""
        return self._bracketed_host if self.port == PORTS[self.scheme] else self.host_and_port

    @property
    def url(self) -> str:
        """The whole URL again, in normal form."""
        return f"{self.scheme}://{self.host_header}{self.path}"

    @property
    def _bracketed_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_url(url: str) -> Target:
    """Take a URL apart, strictly: what two parsers could read in two ways is refused.

    Raises:
        BadRequestError: the URL is malformed, has credentials or another scheme.
        AddressNotAllowedError: the host is a number that is no IPv4 address.
    """
    _check_characters(url)
    try:
        parts = urlsplit(url.strip(" "))
    except ValueError as error:
        raise BadRequestError("The URL is malformed: its host cannot be read.") from error
    if parts.scheme not in PORTS:
        raise BadRequestError("The URL must begin with http:// or https://.")
    if "@" in parts.netloc:
        raise BadRequestError("The URL must not carry a user name or password.")
    match = _NETLOC.fullmatch(parts.netloc)
    if match is None:
        raise BadRequestError(
            "The URL is malformed: no host, or a host and port that do not parse."
        )
    port = int(match["port"] or PORTS[parts.scheme])
    if not 0 < port < 65536:
        raise BadRequestError("The URL's port must be a number from 1 to 65535.")
    host = _address_v6(match["v6"]) if match["v6"] else _host_name(match["name"])
    path = _percent_encoded(parts.path or "/")
    query = f"?{_percent_encoded(parts.query)}" if parts.query else ""
    return Target(parts.scheme, host, port, path + query)


def normal_host_and_port(text: str) -> str:
    """Bring ``host:port`` into the form that ``Target.host_and_port`` has.

    Returns:
        ``"[::1]:8080"`` for ``"[0:0::1]:8080"``.

    Raises:
        BadRequestError: it is not ``host:port``; both must be there.
    """
    match = _NETLOC.fullmatch(text)
    if match is None or not match["port"]:
        raise BadRequestError(f"Expected host:port. Received: {text!r}.")
    return parse_url(f"http://{text}/").host_and_port


def parse_location(base: Target, location: str) -> Target:
    """Read a redirect's Location header, relative or not, by the same rules.

    Args:
        base: that answered with it.
        location: as ``http.client`` gives it: Latin-1, whatever it was.

    Raises:
        BadRequestError, AddressNotAllowedError: as ``parse_url``.
    """
    try:  # a raw UTF-8 path is common
        location = location.encode("latin-1").decode()
        _check_characters(location)
        relative = _SCHEME.match(location) is None
        return parse_url(urljoin(base.url, location) if relative else location)
    except ValueError as error:
        raise BadRequestError("The URL redirects to something that is not a URL.") from error


def _check_characters(url: str) -> None:
    if len(url) > MAX_URL_LENGTH:
        raise BadRequestError(f"The URL is longer than {MAX_URL_LENGTH:,} characters.")
    try:
        url.encode()
    except UnicodeEncodeError as error:
        raise BadRequestError("The URL is not valid Unicode.") from error
    if _REFUSED_CHARACTERS.search(url):
        raise BadRequestError("The URL holds a line break, control character or backslash.")


def _address_v6(text: str) -> str:
    try:
        return ipaddress.IPv6Address(text).compressed
    except ValueError as error:
        raise BadRequestError("The URL is malformed: its IPv6 address does not parse.") from error


def _host_name(text: str) -> str:
    name = text.lower().removesuffix(".")
    if not name.isascii() and len(name) < 254 and not _AMBIGUOUS_IN_HOSTS.search(name):
        try:
            name = name.encode("idna").decode("ascii").lower().removesuffix(".")
        except UnicodeError as error:
            raise BadRequestError("The URL's host is not a valid name.") from error
    if len(name) > 253 or not _HOST.fullmatch(name):
        raise BadRequestError(
            "The URL's host is not a valid name. Write an international one in its xn-- form."
        )
    return _address_v4(name) if _NUMERIC.fullmatch(name) else name


def _address_v4(text: str) -> str:
    """Read decimal, octal, hexadecimal and short forms as every resolver would, as one address."""
    try:
        return socket.inet_ntoa(socket.inet_aton(text))
    except OSError as error:
        raise AddressNotAllowedError(NO_PUBLIC_ADDRESS) from error


def _percent_encoded(text: str) -> str:
    return re.sub(r"[^\x21-\x7e]+", lambda match: quote(match[0]), text)
