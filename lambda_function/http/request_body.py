"""Decode a request for predictions: from JSON, a raw body, a form or a query string.

All of them end in one ``PredictionRequest``. Error messages name the wrong key or value, so that
callers can correct their request.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

from lambda_function.errors import BadRequestError, UnsupportedImageError, shown
from lambda_function.fetching.urls import MAX_URL_LENGTH
from lambda_function.http.events import decode_base64

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_function.http.events import Request
    from lambda_function.metadata import ModelMetadata

MAX_IMAGES = 32  # of one request
MAX_EXPLAINED = 4  # images of a request with explain
MAX_SCORES = 50_000  # of one response, at 100 bytes with their labels. Lambda sends 6 MB
SOURCES = ("url", "urls", "image")
KEYS = (*SOURCES, "top_k", "explain")
FORM_KEYS = ("image", "url", "top_k", "explain")  # a form has no lists
_DATA_PREFIX_LENGTH = 200  # "data:image/jpeg;base64," with room for parameters
_JSON_BYTES_WITHOUT_IMAGE = 300_000  # 32 URLs of 8,192 characters, and room
_JSON_VALUES_BESIDE_IMAGE = 100
_MAX_TEXT_BYTES = 4 * MAX_URL_LENGTH  # of a form field in UTF-8
_FORM_LINE = re.compile(rb"(?:url|urls|image|top_k|explain)=")  # no image begins like this
_BEST_CLASS = "1"  # explain in a query or form
_SHOWN_LABELS = 100  # in a message
_EXAMPLE = '{"url": "https://example.com/image.jpg"}'


@dataclasses.dataclass(frozen=True)
class PredictionRequest:
    """The images to classify.

    Attributes:
        sources: one or more, each a URL (http, https or s3) or an encoded image.
        top_k: how many classes to return, 1 to all.
        is_batch: whether the response is a list of results.
        explain: the label to explain, or True for each image's best class. False explains none.
    """

    sources: tuple[str | bytes, ...]
    top_k: int
    is_batch: bool = False
    explain: bool | str = False


class _FormImages(tuple[bytes, ...]):
    """Several images of one form. JSON cannot make this type."""

    __slots__ = ()


def read_prediction_request(request: Request, metadata: ModelMetadata) -> PredictionRequest:
    """Decode an HTTP request to ``/predict``.

    Args:
        request: GET with a query string, or POST with a body and perhaps ``?top_k=``.
        metadata: of the model that is served.

    Raises:
        BadRequestError: the request is malformed. The message says where.
        UnsupportedImageError: the body has a content type that is not read.
    """
    fields = _query_fields(request)
    if request.method != "POST" and "url" not in fields:
        raise BadRequestError(
            "Give the image's address in the query, percent-encoded: "
            "/predict?url=https%3A%2F%2Fexample.com%2Fimage.jpg"
        )
    if request.method == "POST":
        body_fields = _body_fields(request)
        for name in fields:
            if name in body_fields:
                raise BadRequestError(f"{name!r} is given twice: in the body and in the query.")
        fields |= body_fields
    return read_fields(fields, metadata)


def read_fields(fields: Mapping[str, Any], metadata: ModelMetadata) -> PredictionRequest:
    """Decode a JSON object: the body of a POST, or a direct invoke's event.

    Args:
        fields: one of ``SOURCES``, and perhaps ``top_k`` and ``explain``. ``image`` is base64
            text, or what a form holds.
        metadata: of the model that is served.

    Raises:
        BadRequestError: an unknown key, no source or several, or a wrong value.
    """
    if not fields.keys() <= set(KEYS):
        unknown = min(str(key) for key in fields if key not in KEYS)
        raise BadRequestError(f"Unknown key {shown(unknown)}. Known: {', '.join(KEYS)}.")
    given = [name for name in SOURCES if name in fields]
    if len(given) != 1:
        received = f"Received: {' and '.join(given)}." if given else f"Example: {_EXAMPLE}."
        raise BadRequestError(f"Give exactly one of url, urls and image. {received}")
    class_count = len(metadata.labels)
    top_k = _top_k(fields.get("top_k", class_count), class_count)
    explain = _explain(fields.get("explain", False), metadata)
    sources, is_batch = _sources(fields)
    if explain and len(sources) > MAX_EXPLAINED:
        raise BadRequestError(
            f"At most {MAX_EXPLAINED} images of one request are explained. Received: "
            f"{len(sources)}. Send fewer, or leave out explain."
        )
    if len(sources) * top_k > MAX_SCORES:
        raise BadRequestError(
            f"{len(sources)} images with {top_k:,} scores each do not fit into one response. Give "
            f"top_k, at most {MAX_SCORES // len(sources):,} here, or send fewer images."
        )
    return PredictionRequest(sources, top_k, is_batch, explain)


def _sources(fields: Mapping[str, Any]) -> tuple[tuple[str | bytes, ...], bool]:
    """Return the images to classify, and whether they are a batch."""
    if "url" in fields:
        return (_url("url", fields["url"]),), False
    if "urls" in fields:
        return _urls(fields["urls"]), True
    if isinstance(fields["image"], _FormImages):
        return fields["image"], True
    return (_image(fields["image"]),), False


def _query_fields(request: Request) -> dict[str, Any]:
    known = ("top_k", "explain") if request.method == "POST" else ("url", "top_k", "explain")
    fields: dict[str, Any] = {}
    for name, value in request.query:
        if name == "url" and name not in known:
            raise BadRequestError(f"A POST names the image in its body. Example: {_EXAMPLE}.")
        if name not in known:
            raise BadRequestError(
                f"Unknown query parameter {shown(name)}. Known: {', '.join(known)}. "
                "An image's address must be percent-encoded, its own '&' included."
            )
        if name in fields:
            raise BadRequestError(f"The query parameter {name!r} is given twice.")
        fields[name] = _value(name, value)
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
    # curl's -d and --data-binary say application/x-www-form-urlencoded for every body
    if kind in ("", "application/x-www-form-urlencoded"):
        if request.body.lstrip()[:1] in (b"{", b"["):
            return _json_fields(request.body)
        if _FORM_LINE.match(request.body):
            raise BadRequestError(f"Send the fields as JSON, not as a form. Example: {_EXAMPLE}.")
        return {"image": request.body}
    raise UnsupportedImageError(
        f"A body of type {shown(kind)} is not read here. "
        "Send application/json, image/* or multipart/form-data."
    )


def _json_fields(body: bytes) -> dict[str, Any]:
    # Parsed, 6 MB of empty lists take 110 MB. A long body has one long value, the image.
    if len(body) > _JSON_BYTES_WITHOUT_IMAGE:
        values = sum(map(body.count, (b",", b"[", b"{")))
        if values > _JSON_VALUES_BESIDE_IMAGE:
            raise BadRequestError(
                f"The body is longer than {_JSON_BYTES_WITHOUT_IMAGE:,} bytes and holds more than "
                f"one image. Example: {_EXAMPLE}."
            )
    try:
        fields = json.loads(body, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        where = (
            f" ({error.msg}: line {error.lineno}, column {error.colno})"
            if isinstance(error, json.JSONDecodeError)
            else ""
        )
        raise BadRequestError(f"The body is not valid JSON{where}.") from error
    if not isinstance(fields, dict):
        rule = f"The body must be a JSON object. Example: {_EXAMPLE}."
        raise BadRequestError(rule, received=fields)
    return fields


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise BadRequestError(f"The JSON key {shown(name)} is given twice.")
        fields[name] = value
    return fields


def _form_fields(request: Request) -> dict[str, Any]:
    from lambda_function.http.form import read_form  # imported here: only browsers' forms need it

    fields: dict[str, Any] = {}
    images: list[bytes] = []
    for part in read_form(request.headers["content-type"], request.body):
        if part.is_unchosen_file:
            continue
        if part.name not in FORM_KEYS:
            raise BadRequestError(
                f"Unknown form field {shown(part.name)}. Known: {', '.join(FORM_KEYS)}."
            )
        if part.name == "image":
            images.append(part.content)
        elif part.name in fields:
            raise BadRequestError(f"The form field {shown(part.name)} is given twice.")
        else:
            fields[part.name] = _value(part.name, _form_text(part.name, part.content))
    if len(images) > MAX_IMAGES:
        raise BadRequestError(
            f"A form may hold up to {MAX_IMAGES} images. Received: {len(images)} of them."
        )
    if images:
        fields["image"] = images[0] if len(images) == 1 else _FormImages(images)
    return fields


def _form_text(name: str, content: bytes) -> str:
    if len(content) > _MAX_TEXT_BYTES:
        raise BadRequestError(f"The form field {name!r} is longer than {_MAX_TEXT_BYTES:,} bytes.")
    try:
        return content.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise BadRequestError(f"The form field {name!r} is not text.") from error


def _value(name: str, text: str) -> int | bool | str:
    """Return the value of a query's or form's field, or the text itself for the error message."""
    if name == "top_k" and re.fullmatch(r"[0-9]{1,4}", text):
        return int(text)
    return True if name == "explain" and text == _BEST_CLASS else text


def _top_k(value: Any, class_count: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= class_count:
        raise BadRequestError(f"top_k must be an integer, 1 to {class_count}.", received=value)
    return value


def _explain(value: Any, metadata: ModelMetadata) -> bool | str:
    if value is False:
        return False
    if metadata.activation_map is None:
        raise BadRequestError(
            "The model has no activation map, so it cannot explain a prediction. Leave out "
            "explain, or set it to false.",
            received=value,
        )
    if value is True or (isinstance(value, str) and value in metadata.labels):
        return value
    labels = ", ".join(metadata.labels[:_SHOWN_LABELS])
    more = len(metadata.labels) - _SHOWN_LABELS
    rest = f" and {more} more (GET /model)" if more > 0 else ""
    raise BadRequestError(
        f"explain must be true, or {_BEST_CLASS} in a query or form, or one of the labels "
        f"{labels}{rest}.",
        received=value,
    )


def _url(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or value.isspace():
        raise BadRequestError(f"{name} must be an image's address.", received=value)
    return value


def _urls(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_IMAGES:
        received = f"{len(value)} of them" if isinstance(value, list) else shown(value)
        raise BadRequestError(
            f"urls must be a list of 1 to {MAX_IMAGES} addresses. Received: {received}."
        )
    return tuple(_url(f"urls[{i}]", url) for i, url in enumerate(value))


def _image(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            value = decode_base64(_without_data_prefix(value))
        except ValueError as error:
            raise _not_base64(value) from error
    if not isinstance(value, bytes):
        raise _not_base64(value)
    if not value:
        raise BadRequestError("The image is empty.")
    return value


def _without_data_prefix(text: str) -> str:
    """Return what follows the comma of ``data:image/png;base64,``.

    Raises:
        ValueError: a data URL without base64.
    """
    if text[:5].lower() != "data:":
        return text
    prefix, comma, _ = text[:_DATA_PREFIX_LENGTH].partition(",")
    if not comma or not prefix.lower().endswith(";base64"):
        raise ValueError("no base64")
    return text[len(prefix) + 1 :]


def _not_base64(value: Any) -> BadRequestError:
    return BadRequestError("image must be the image's bytes in base64.", received=value)
