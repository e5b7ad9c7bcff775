"""What a caller asks to have predicted: read from JSON, a raw body, a form or a query string.

All ways in end in one ``Asked``. Wrong keys and values are named, so that a caller can
correct the request without reading these lines.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

from lambda_function.errors import BadRequestError, UnsupportedImageError
from lambda_function.http.events import decode_base64

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_function.http.events import Request

MAX_URLS = 32
SOURCES = ("url", "urls", "image")
KEYS = (*SOURCES, "top_k")
FORM_KEYS = ("image", "url", "top_k")  # a form has no lists
_DATA_URL = re.compile(r"data:[\w.+/-]{0,100}(?:;[\w=.+-]{1,100})*;base64,", re.ASCII)
_FORM_LINE = re.compile(rb"(?:url|urls|image|top_k)=")  # as no picture begins
_EXAMPLE = '{"url": "https://example.com/pants.jpg"}'


@dataclasses.dataclass(frozen=True)
class Asked:
    """One request for a prediction; exactly one of ``url``, ``urls`` and ``image`` is set.

    Attributes:
        url: of an image; http, https or s3.
        urls: of 1 to ``MAX_URLS`` images.
        image: encoded bytes.
        top_k: how many classes to answer with, 1..classes.
    """

    top_k: int
    url: str | None = None
    urls: tuple[str, ...] | None = None
    image: bytes | None = None


def read_asked(request: Request, classes: int) -> Asked:
    """Read an HTTP request to ``/predict``.

    Args:
        request: GET with a query string, or POST with a body (and perhaps ``?top_k=``).
        classes: how many the model knows.

    Raises:
        BadRequestError: what is asked cannot be understood; says what and why.
        UnsupportedImageError: the body's content type is not read here.
    """
    fields = _query_fields(request)
    if request.method != "POST" and "url" not in fields:
        raise BadRequestError(
            "Give the image's address in the query, percent-encoded: "
            "/predict?url=https%3A%2F%2Fexample.com%2Fpants.jpg"
        )
    if request.method == "POST":
        body_fields = _body_fields(request)
        for name in fields:
            if name in body_fields:
                raise BadRequestError(f"{name!r} is given twice: in the body and in the query.")
        fields |= body_fields
    return read_fields(fields, classes)


def read_fields(fields: Mapping[str, Any], classes: int) -> Asked:
    """Read the keys of a JSON object: the body of a POST, or a direct invoke's event.

    Args:
        fields: one of ``SOURCES``, and perhaps ``top_k``. ``image`` may be base64 text or bytes.
        classes: how many the model knows.

    Raises:
        BadRequestError: unknown key, no source or several, or a wrong value.
    """
    unknown = sorted(str(key) for key in fields if key not in KEYS)
    if unknown:
        raise BadRequestError(f"Unknown key {_shown(unknown[0])}. Known: {', '.join(KEYS)}.")
    given = [name for name in SOURCES if name in fields]
    if len(given) != 1:
        found = f"Received: {' and '.join(given)}." if given else f"Example: {_EXAMPLE}."
        raise BadRequestError(f"Give exactly one of url, urls and image. {found}")
    top_k = _top_k(fields.get("top_k", classes), classes)
    if "url" in fields:
        return Asked(top_k, url=_url("url", fields["url"]))
    if "urls" in fields:
        return Asked(top_k, urls=_urls(fields["urls"]))
    return Asked(top_k, image=_image(fields["image"]))


def _query_fields(request: Request) -> dict[str, Any]:
    known = ("url", "top_k") if request.method != "POST" else ("top_k",)
    fields: dict[str, Any] = {}
    for name, value in request.query:
        if name == "url" and name not in known:
            raise BadRequestError(f"A POST names the image in its body. Example: {_EXAMPLE}.")
        if name not in known:
            raise BadRequestError(
                f"Unknown query parameter {_shown(name)}. Known: {', '.join(known)}. "
                "An image's address must be percent-encoded, its own '&' included."
            )
        if name in fields:
            raise BadRequestError(f"The query parameter {name!r} is given twice.")
        fields[name] = _number(value) if name == "top_k" else value
    return fields


def _body_fields(request: Request) -> dict[str, Any]:
    if not request.body:
        raise BadRequestError(f"The request has no body. Example of one: {_EXAMPLE}.")
    kind = request.content_type
    if kind == "multipart/form-data":
        return _form_fields(request)
    if kind == "application/json" or kind.endswith("+json"):
        return _json_fields(request.body)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return {"image": request.body}
    # curl's -d and --data-binary say application/x-www-form-urlencoded, whatever they send
    if kind in ("", "application/x-www-form-urlencoded"):
        if request.body.lstrip()[:1] in (b"{", b"["):
            return _json_fields(request.body)
        if _FORM_LINE.match(request.body):
            raise BadRequestError(f"Send the fields as JSON, not as a form. Example: {_EXAMPLE}.")
        return {"image": request.body}
    raise UnsupportedImageError(
        f"A body of type {_shown(kind)} is not read here. "
        "Send application/json, image/* or multipart/form-data."
    )


def _json_fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        where = (
            f" ({error.msg}: line {error.lineno}, column {error.colno})"
            if isinstance(error, json.JSONDecodeError)
            else ""
        )
        raise BadRequestError(f"The body is not valid JSON{where}.") from error
    if not isinstance(fields, dict):
        raise BadRequestError(f"The body must be a JSON object. Example: {_EXAMPLE}.")
    return fields


def _form_fields(request: Request) -> dict[str, Any]:
    from lambda_function.http.form import read_form  # imported here: only browsers' forms need it

    fields: dict[str, Any] = {}
    for part in read_form(request.headers["content-type"], request.body):
        if part.name not in FORM_KEYS:
            raise BadRequestError(
                f"Unknown form field {_shown(part.name)}. Known: {', '.join(FORM_KEYS)}."
            )
        if part.name in fields:
            raise BadRequestError(f"The form field {_shown(part.name)} is given twice.")
        if part.name == "image":
            fields["image"] = part.content
            continue
        try:
            text = part.content.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise BadRequestError(f"The form field {_shown(part.name)} is not text.") from error
        fields[part.name] = _number(text) if part.name == "top_k" else text
    return fields


def _number(text: str) -> int | str:
    """Return the number that a query string or form spells, or the text for the error message."""
    return int(text) if re.fullmatch(r"[0-9]{1,4}", text) else text


def _top_k(value: Any, classes: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= classes:
        raise BadRequestError(
            f"top_k must be an integer, 1 to {classes}. Received: {_shown(value)}."
        )
    return value


def _url(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRequestError(f"{name} must be an image's address. Received: {_shown(value)}.")
    return value


def _urls(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_URLS:
        found = f"{len(value)} of them" if isinstance(value, list) else _shown(value)
        raise BadRequestError(f"urls must be a list of 1 to {MAX_URLS}. Received: {found}.")
    return tuple(_url(f"urls[{i}]", url) for i, url in enumerate(value))


def _image(value: Any) -> bytes:
    if isinstance(value, bytes):
        data = value
    elif isinstance(value, str):
        prefix = _DATA_URL.match(value)
        try:
            data = decode_base64(value[prefix.end() :] if prefix else value)
        except ValueError as error:
            raise BadRequestError(
                f"image must be the picture's bytes in base64. Received: {_shown(value)}."
            ) from error
    else:
        raise BadRequestError(
            f"image must be the picture's bytes in base64. Received: {_shown(value)}."
        )
    if not data:
        raise BadRequestError("The image is empty.")
    return data


def _shown(value: Any) -> str:
    """Return a value as a message may show it: short, on one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of brackets in brackets
        return f"a very large {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
