"""The files that are served as they are: demo page, docs, OpenAPI document.

Each HTML page is one file with its own style and script inside. The Content-Security-Policy
allows exactly those, by their hashes, and nothing else. What a page says of the model comes from
the artifact: ``{{title}}`` and the other words that ``serve`` names stand for it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_function.http.events import Response

if TYPE_CHECKING:
    from lambda_function.metadata import ModelMetadata

_FOLDER = Path(__file__).parent
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/openapi.json": ("openapi.json", "application/json"),
}
_CACHE = "public, max-age=300"
_WORD = re.compile(r"\{\{(\w+)\}\}")
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def serve(path: str, metadata: ModelMetadata) -> Response:
    """Return the page of a path, with the words of an artifact.

    Args:
        path: one of ``/``, ``/docs`` and ``/openapi.json``.
        metadata: of the artifact that is served.
    """
    first, second = metadata.labels[:2]
    return _render(
        path,
        title=metadata.title,
        subject=metadata.subject,
        of_one_subject="" if metadata.subject == "image" else f" of one {metadata.subject}",
        name=metadata.name,
        version=metadata.version,
        licence=metadata.licence,
        first_label=first,
        second_label=second,
        map="yes" if metadata.activation_map else "no",
    )


@functools.cache
def _render(path: str, **words: str) -> Response:
    name, content_type = _FILES[path]
    escape = html.escape if content_type.startswith("text/html") else _escape_json
    template = (_FOLDER / name).read_text(encoding="utf-8")
    text = _WORD.sub(lambda found: escape(words[found[1]]), template)
    headers = {"cache-control": _CACHE}
    if content_type.startswith("text/html"):
        headers |= {
            "content-security-policy": content_security_policy(text),
            "referrer-policy": "no-referrer",
        }
    return Response(200, text, content_type, headers)


def _escape_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def content_security_policy(page: str) -> str:
    """Return the policy that lets a page run its own inline script and style only.

    Images may come from anywhere, since the page shows the image that a user names. Requests may
    go to this API only.
    """
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, content in _INLINE.findall(page):
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
