"""How this service names itself to servers, and how it knows its own requests.

A caller may send the service a URL of the service itself. One request became 992 calls that way.
Each fetch therefore carries the product's name twice: in User-Agent, and in Via, which proxies
must keep (RFC 9110, section 7.6.3). The service refuses requests that carry it. This is a brake,
not a boundary: a server in between can drop both headers. Throttling, reserved concurrency and
authorisation bound the cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PRODUCT = "serverless-image-classifier"  # fixed, so that every deployment knows every other
VERSION = "0.2"
VIA = f"1.1 {PRODUCT}"
_PURPOSE = "fetches one image at its user's request"


def user_agent(contact: str = "") -> str:
    """Return the User-Agent of fetches.

    Args:
        contact: a mail address or a web page of the operator. Wikimedia asks for it.

    Returns:
        ``"serverless-image-classifier/0.2 (mail@example.com; fetches one image ...)"``.

    Raises:
        ValueError: the contact holds something other than printable ASCII, or ``( ) \\``.
    """
    if not contact.isascii() or not contact.isprintable() or set(contact) & set("()\\"):
        raise ValueError(
            f"contact must be printable ASCII without parentheses. Received: {contact!r}"
        )
    comment = f"{contact}; {_PURPOSE}" if contact else _PURPOSE
    return f"{PRODUCT}/{VERSION} ({comment})"


def is_own_request(headers: Mapping[str, str]) -> bool:
    """Return whether a request comes from this service's own fetches.

    Args:
        headers: of the request, names in lower case.
    """
    agent = headers.get("user-agent", "").strip().lower()
    return agent.startswith(PRODUCT) or PRODUCT in headers.get("via", "").lower()
