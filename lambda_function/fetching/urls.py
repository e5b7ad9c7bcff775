"""URLs, parsed strictly before anything is done with them.

Why not ``urlsplit``: it drops tabs and line breaks without a word, ignores what stands around the
brackets of an IPv6 address, keeps every URL in a cache, and needs seconds for a long host of
combining characters. It leaves every spelling of a host (``2130706433``, ``0x7f.1``,
``LOCALHOST.``, full-width digits) as it is. This module checks lengths first. It refuses what two
parsers could read in two ways. The rest gets one form, which is looked up, checked, connected to
and sent.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket
from urllib.parse import quote, urljoin

from lambda_function.errors import (
    AddressNotAllowedError,
    BadRequestError,
    FetchError,
    ServiceError,
)
from lambda_function.fetching.addresses import NO_PUBLIC_ADDRESS

PORTS = {"http": 80, "https": 443}
MAX_URL_LENGTH = 8192  # of a request line in common servers. Signed URLs have about 2,000
MAX_HOST_LENGTH = 253  # of a name in DNS
MAX_KEY_BYTES = 1024  # of an S3 key in UTF-8
MAX_LOGGED_LENGTH = 500
S3_SCHEME = "s3://"

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#.*)?"
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_AUTHORITY = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@/?#]+))(?::(?P<port>[0-9]{0,5}))?"
)
_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_NUMERIC = re.compile(r"(?:.*\.)?(?:0x[0-9a-f]*|[0-9]+)")  # a URL's host that "ends in a number"
_REFUSED_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\\\u2028\u2029]")
# IDNA 2003, which Python has, and IDNA 2008 turn names with these into different hosts.
_AMBIGUOUS_IN_HOSTS = re.compile("[\u00df\u03c2\u200c\u200d]")
_NO_NAME = "The URL's host is not a valid name. Write an international one in its xn-- form."
# What browsers encode (https://url.spec.whatwg.org/#path-percent-encode-set), and "|".
_ENCODED_IN_PATH = re.compile(r'(?:[^\x21-\x7e]|["<>^`{|}])+')
_ENCODED_IN_QUERY = re.compile(r'(?:[^\x21-\x7e]|["<>])+')
_S3_URI = re.compile(r"[sS]3://(?P<bucket>[^/]+)/(?P<key>.+)", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9.-]{3,63}")
# A path ends in the log where a query, a parameter or another URL may begin, encoded or not.
_LOGGED_PATH = re.compile(
    r"(?:[A-Za-z0-9/._~@+,()!*'$-]"
    r"|%(?:2[0-24789A-Fa-f]|5[BDEbde]|60|7[BCDbcd]|[89A-Fa-f][0-9A-Fa-f]))*"
)


@dataclasses.dataclass(frozen=True)
class Target:
    """A URL that keeps the rules of form. Whether its address is allowed is not known yet.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: lower case. A name in ASCII (punycode) without a final dot, or an address.
        port: 1..65535.
        path: with the query, percent-encoded ASCII, without the fragment.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def is_address(self) -> bool:
        """Whether the host is an address, which needs no lookup."""
        return ":" in self.host or _NUMERIC.fullmatch(self.host) is not None

    @property
    def host_and_port(self) -> str:
        """Host and port as lists of trusted hosts write them, always with the port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def host_header(self) -> str:
        """Host and port as HTTP writes them, without the scheme's own port."""
        return self.host_and_port.removesuffix(f":{PORTS[self.scheme]}")

    @property
    def url(self) -> str:
        """The whole URL in normal form."""
        return f"{self.scheme}://{self.host_header}{self.path}"


def parse_url(url: str) -> Target:
    """Parse a URL strictly. What two parsers could read in two ways is refused.

    Raises:
        BadRequestError: the URL is malformed or too long, has credentials or another scheme.
        AddressNotAllowedError: the host is a number that is not an IPv4 address.
    """
    _check_text(url)
    match = _URL.fullmatch(url.strip(" "))
    scheme = match["scheme"].lower() if match else ""
    if match is None or scheme not in PORTS:
        raise BadRequestError("The URL must begin with http:// or https://.", received=url)
    host, port = _host_and_port(match["authority"], scheme)
    path = _percent_encoded(match["path"] or "/", _ENCODED_IN_PATH)
    if match["query"]:
        path += "?" + _percent_encoded(match["query"], _ENCODED_IN_QUERY)
    if len(path) > MAX_URL_LENGTH:
        raise _too_long(path)
    return Target(scheme, host, port, path)


def normal_host_and_port(text: str) -> str:
    """Bring ``host:port`` into the form that ``Target.host_and_port`` has.

    Returns:
        ``"[::1]:8080"`` for ``"[0:0::1]:8080"``.

    Raises:
        BadRequestError: host or port is missing or malformed.
    """
    match = _AUTHORITY.fullmatch(text)
    if match is None or not match["port"]:
        raise BadRequestError(f"Expected host:port. Received: {text!r}.")
    return parse_url(f"http://{text}/").host_and_port


def parse_location(base: Target, location: str) -> Target:
    """Parse a redirect's Location header, relative or not, by the same rules.

    Args:
        base: the target that redirects.
        location: as ``http.client`` returns it, which decodes all headers as Latin-1.

    Raises:
        FetchError: the location is malformed or has another scheme. That is the server's fault.
        AddressNotAllowedError: the host is a number that is not an IPv4 address.
    """
    try:
        text = _decoded_location(location)
        _check_text(text)
        relative = _SCHEME.match(text) is None
        return parse_url(urljoin(base.url, text) if relative else text)
    except AddressNotAllowedError:
        raise
    except (BadRequestError, ValueError) as error:
        # Without the value: a log has this reason, and a URL may be a key.
        reason = error.rule if isinstance(error, BadRequestError) else ""
        raise FetchError(
            f"The image's server redirects to a URL that is not fetched. {reason}".rstrip()
        ) from error


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """Split an S3 address.

    Args:
        uri: ``s3://bucket/key``. The key is taken as it is, without unescaping.

    Returns:
        Bucket and key.

    Raises:
        BadRequestError: the address has another form.
    """
    match = _S3_URI.fullmatch(uri) if len(uri) <= MAX_URL_LENGTH else None
    try:
        if match and len(match["key"].encode()) <= MAX_KEY_BYTES:
            return match["bucket"], match["key"]
    except UnicodeEncodeError:
        pass
    raise BadRequestError("An S3 address must read s3://bucket/key.", received=uri)


def loggable_url(url: str) -> str:
    """Return what a log may show of a URL: scheme, host and path, or ``"unreadable"``.

    Signed URLs are keys, and so are credentials. They also hide behind a wrong slash or an encoded
    question mark. So the URL is parsed, and the path ends before the first character that may
    begin a query or another URL.

    >>> loggable_url("https://example.com/a.jpg?X-Amz-Signature=1f#x")
    'https://example.com/a.jpg'
    >>> loggable_url("https://example.com/a.jpg%3FX-Amz-Signature=1f")
    'https://example.com/a.jpg...'
    >>> loggable_url("https:/me:secret@example.com/a.jpg")
    'unreadable'
    """
    try:
        if url[: len(S3_SCHEME)].lower() == S3_SCHEME:
            bucket, key = parse_s3_uri(url)
            if not _BUCKET.fullmatch(bucket):
                return "unreadable"
            start, path = S3_SCHEME + bucket, _percent_encoded(f"/{key}", _ENCODED_IN_PATH)
        else:
            target = parse_url(url)
            start, path = f"{target.scheme}://{target.host_header}", target.path.partition("?")[0]
    except ServiceError:
        return "unreadable"
    match = _LOGGED_PATH.match(path)
    shown = match[0] if match else ""
    return (start + shown)[:MAX_LOGGED_LENGTH] + ("..." if shown != path else "")


def _check_text(url: str) -> None:
    if url[:5].lower() == "data:":
        raise BadRequestError(
            'The URL holds the image itself. Send its base64 part as "image" instead.'
        )
    if len(url) > MAX_URL_LENGTH:
        raise _too_long(url)
    try:
        url.encode()
    except UnicodeEncodeError as error:
        raise BadRequestError("The URL is not valid Unicode.") from error
    if found := _REFUSED_CHARACTERS.search(url):
        rule = "The URL holds a line break, control character or backslash."
        raise BadRequestError(rule, received=found[0])


def _too_long(text: str) -> BadRequestError:
    rule = f"The URL is longer than {MAX_URL_LENGTH:,} characters."
    return BadRequestError(rule, received=len(text))


def _host_and_port(authority: str, scheme: str) -> tuple[str, int]:
    if "@" in authority:
        raise BadRequestError("The URL must not carry a user name or password.")
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        rule = "The URL is malformed: host and port are missing or do not parse."
        raise BadRequestError(rule, received=authority)
    port = int(match["port"] or PORTS[scheme])
    if not 0 < port < 65536:
        raise BadRequestError("The URL's port must be a number from 1 to 65535.", received=port)
    return _address_v6(match["v6"]) if match["v6"] else _host_name(match["name"]), port


def _address_v6(text: str) -> str:
    try:
        return ipaddress.IPv6Address(text).compressed
    except ValueError as error:
        rule = "The URL is malformed: its IPv6 address does not parse."
        raise BadRequestError(rule, received=text) from error


def _host_name(text: str) -> str:
    if len(text) > MAX_HOST_LENGTH + 1:  # with a final dot. The work below is not linear
        rule = f"The URL's host is longer than {MAX_HOST_LENGTH} characters."
        raise BadRequestError(rule, received=len(text))
    name = text.lower().removesuffix(".")
    if not name.isascii() and not _AMBIGUOUS_IN_HOSTS.search(name):
        try:
            name = name.encode("idna").decode("ascii").lower().removesuffix(".")
        except UnicodeError as error:
            raise BadRequestError(_NO_NAME, received=text) from error
    if len(name) > MAX_HOST_LENGTH or not _HOST.fullmatch(name):
        raise BadRequestError(_NO_NAME, received=text)
    return _address_v4(name) if _NUMERIC.fullmatch(name) else name


def _address_v4(text: str) -> str:
    """Read decimal, octal, hexadecimal and short forms as resolvers do, as one address."""
    try:
        return socket.inet_ntoa(socket.inet_aton(text))
    except OSError as error:
        raise AddressNotAllowedError(NO_PUBLIC_ADDRESS) from error


def _percent_encoded(text: str, characters: re.Pattern[str]) -> str:
    return characters.sub(lambda match: quote(match[0], safe=""), text)


def _decoded_location(location: str) -> str:
    """Decode UTF-8. Bytes that are not UTF-8 are percent-encoded, as browsers do."""
    raw = location.encode("latin-1")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return re.sub(rb"[\x80-\xff]", lambda match: b"%%%02X" % match[0][0], raw).decode("ascii")
