"""The files that are served as they are: demo page, docs, OpenAPI document.

Each HTML page is one file with its own style and script inside. The Content-Security-Policy
allows exactly those, by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path

from lambda_function.http.events import Response

_FOLDER = Path(__file__).parent
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/openapi.json": ("openapi.json", "application/json"),
}
_CACHE = "public, max-age=300"
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@functools.cache
def serve(path: str) -> Response:
    """Return the page of a path.

    Args:
        path: one of ``/``, ``/docs`` and ``/openapi.json``.
    """
    name, content_type = _FILES[path]
    text = (_FOLDER / name).read_text(encoding="utf-8")
    headers = {"cache-control": _CACHE}
    if content_type.startswith("text/html"):
        headers |= {
            "content-security-policy": content_security_policy(text),
            "referrer-policy": "no-referrer",
        }
    return Response(200, text, content_type, headers)


def content_security_policy(html: str) -> str:
    """Return the policy that lets a page run its own inline script and style only.

    Images may come from anywhere, since the page shows the image that a user names. Requests may
    go to this API only.
    """
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, content in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(hashes["script"]) or "'none'",
        "style-src": " ".join(hashes["style"]) or "'none'",
        "img-src": "'self' data: blob: https: http:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())
