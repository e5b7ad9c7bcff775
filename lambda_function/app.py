"""``lambda_handler``: the routes, and the one place where an error becomes a response.

An event is either HTTP (API Gateway payload 2.0 or 1.0, Function URL) or a direct invoke::

    {"url": "https://example.com/pants.jpg"}  ->  the body that HTTP would carry, no envelope

Errors are RFC 9457 problems: over HTTP with their status and ``application/problem+json``, in a
direct invoke as the returned object, whose ``status`` tells it from a prediction. Whatever the
event, this module answers; it raises into the runtime only for a bulk run's batch (``bulk``),
whose caller reads the name of the error.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lambda_function import logs, pages, payload
from lambda_function.batch import run_batch
from lambda_function.bulk import ITEMS, BatchError, classify_batch, read_event
from lambda_function.errors import (
    BadRequestError,
    InternalError,
    MethodNotAllowedError,
    NotFoundError,
    ServiceError,
)
from lambda_function.gateway import (
    Request,
    Response,
    is_gateway_event,
    json_response,
    read_request,
    read_route,
)
from lambda_function.predictor import Prediction, Predictor, Stopwatch, load_predictor
from lambda_function.settings import Settings

if TYPE_CHECKING:
    from lambda_function.payload import Asked

DEADLINE_MARGIN_S = 1.0  # kept of the function's remaining time, to answer in
DEFAULT_REMAINING_S = 30.0  # without a Lambda context: the longest that an HTTP API waits
_INTERNAL = "Something went wrong on our side. Quote the request_id when you report it."
_cold = iter([True])  # has one item, for the process's first request


class Call:
    """One invocation: what every route may need to know about it.

    Attributes:
        predictor: the loaded model and the ways to it.
        request_id: Lambda's.
        deadline: the ``time.monotonic()`` moment to be done by.
        allow_s3: whether this caller may name S3 objects.
        log: of this request.
        watch: started with the request.
    """

    def __init__(self, predictor: Predictor, context: Any, *, is_http: bool) -> None:
        self.watch = Stopwatch()
        self.predictor = predictor
        self.request_id = str(getattr(context, "aws_request_id", None) or os.urandom(16).hex())
        self.deadline = time.monotonic() + _remaining_s(context) - DEADLINE_MARGIN_S
        self.allow_s3 = not is_http or predictor.settings.api_auth != "none"
        self.log = logs.RequestLog(
            predictor.settings, request_id=self.request_id, cold_start=next(_cold, False)
        )
        self.log.add(model_version=self.model["version"])

    @property
    def model(self) -> dict[str, str]:
        """Name and version, as answers carry them."""
        metadata = self.predictor.classifier.metadata
        return {"name": metadata.name, "version": metadata.version}

    @property
    def classes(self) -> int:
        """How many the model knows."""
        return len(self.predictor.classifier.metadata.labels)


def lambda_handler(event: Any, context: Any) -> dict[str, Any]:
    """Answer one event.

    Args:
        event: any JSON value; see the module.
        context: Lambda's, or anything with ``aws_request_id`` and
            ``get_remaining_time_in_millis``.

    Returns:
        For HTTP events the gateway's response object, otherwise the answer itself.
    """
    return handle(event, context, predictor())


def handle(
    event: Any,
    context: Any,
    predictor: Predictor,
    *,
    write: Callable[[str], None] = logs.write_line,
) -> dict[str, Any]:
    """Answer one event: ``lambda_handler`` with its surroundings as arguments.

    Args:
        event: any JSON value.
        context: as for ``lambda_handler``.
        predictor: the loaded model and the ways to it.
        write: takes the request's log line.

    Raises:
        BatchError: a bulk run's batch that is to be tried again, or cannot be done.
    """
    is_http = is_gateway_event(event)
    call = Call(predictor, context, is_http=is_http)
    try:
        return _answer_http(event, call) if is_http else _answer_direct(event, call)
    finally:
        write(call.log.line(call.watch.total_ms()))


@functools.cache
def predictor() -> Predictor:
    """Return the one predictor of this process, configured by its environment.

    Raises:
        SettingsError: a wrong value in the environment.
        ArtifactError, MetadataError, ModelDownloadError: the model cannot be served.
    """
    return load_predictor(Settings.from_environment(os.environ))


# --- routes ------------------------------------------------------------------


def predict(request: Request, call: Call) -> Response:
    """Classify what the request names or carries."""
    return json_response(200, answer(payload.read_asked(request, call.classes), call))


def health(_: Request, call: Call) -> Response:
    """Run the model once."""
    timings_ms = {"inference": call.predictor.self_test_ms(), "total": call.watch.total_ms()}
    return json_response(
        200,
        {
            "status": "ok",
            "model": call.model,
            "timings_ms": timings_ms,
            "request_id": call.request_id,
        },
    )


def model(_: Request, call: Call) -> Response:
    """Show what the artifact says about itself."""
    return json_response(200, call.predictor.classifier.metadata.to_dict())


def static(request: Request, _: Call) -> Response:
    """Serve one of the pages."""
    return pages.serve(request.path)


Handler = Callable[[Request, Call], Response]
ROUTES: dict[str, dict[str, Handler]] = {
    "/": {"GET": static},
    "/docs": {"GET": static},
    "/openapi.json": {"GET": static},
    "/health": {"GET": health},
    "/model": {"GET": model},
    "/predict": {"GET": predict, "POST": predict},
}


def allowed_methods(path: str) -> list[str]:
    """Return the methods that a path of ``ROUTES`` answers."""
    return sorted({*ROUTES[path], "HEAD", "OPTIONS"})


# --- direct invokes ----------------------------------------------------------


def predict_direct(event: dict[str, Any], call: Call) -> dict[str, Any]:
    """Classify what ``{"url": ...}``, ``{"urls": [...]}`` or ``{"image": ...}`` names."""
    return answer(payload.read_fields(event, call.classes), call)


def predict_bulk(event: dict[str, Any], call: Call) -> dict[str, Any]:
    """Classify a batch of S3 objects for Step Functions; see ``bulk``."""
    call.log.add(route="bulk")
    batch = read_event(event)
    results = classify_batch(
        batch,
        load=lambda uri: call.predictor.load(uri, deadline=call.deadline, allow_s3=True),
        classify=lambda data, fetch_ms: _bulk_item(call, data, fetch_ms),
        refuse=lambda error: {"error": _problem(_known(error, call))},
        deadline=call.deadline,
    )
    failed = sum("error" in result for result in results)
    call.log.add(items=len(results), items_done=len(results) - failed)
    return {"results": results}


DirectHandler = Callable[[dict[str, Any], Call], dict[str, Any]]
# The first key that an event has chooses; other events are read as predictions.
DIRECT: dict[str, DirectHandler] = {ITEMS: predict_bulk}


# --- answers -----------------------------------------------------------------


def answer(asked: Asked, call: Call) -> dict[str, Any]:
    """Return an answer's body: one prediction, or one result per address.

    Raises:
        ServiceError: for a single image; a batch carries its errors per item.
    """
    if asked.urls is not None:
        return _answer_batch(asked.urls, asked.top_k, call)
    if asked.url is not None:
        call.log.add(image_url=logs.redact_url(asked.url))
        prediction = call.predictor.predict_url(
            asked.url, deadline=call.deadline, allow_s3=call.allow_s3
        )
    else:
        prediction = call.predictor.classify(asked.image or b"")
    call.log.add(
        image_bytes=prediction.image_bytes,
        image_size=list(prediction.image_size),
        timings_ms=prediction.timings_ms,
        label=prediction.scores[0][0],
    )
    body = _item(prediction, asked.top_k, call)
    timings_ms = {**prediction.timings_ms, "total": call.watch.total_ms()}
    return body | {"model": call.model, "timings_ms": timings_ms, "request_id": call.request_id}


def _answer_batch(urls: tuple[str, ...], top_k: int, call: Call) -> dict[str, Any]:
    sizes: list[int] = []
    codes: set[str] = set()

    def classify(data: bytes, fetch_ms: float) -> dict[str, Any]:
        prediction = call.predictor.classify(data, fetch_ms=fetch_ms)
        sizes.append(prediction.image_bytes)
        return _item(prediction, top_k, call)

    def refuse(error: Exception) -> dict[str, Any]:
        known = _known(error, call)
        codes.add(known.code)
        return {"error": _problem(known)}

    results = run_batch(
        urls,
        load=lambda url: call.predictor.load(url, deadline=call.deadline, allow_s3=call.allow_s3),
        classify=classify,
        refuse=refuse,
        deadline=call.deadline,
    )
    call.log.add(
        items=len(urls), items_done=len(sizes), item_codes=sorted(codes), image_bytes=sum(sizes)
    )
    timings_ms = {"total": call.watch.total_ms()}
    return {
        "results": results,
        "model": call.model,
        "timings_ms": timings_ms,
        "request_id": call.request_id,
    }


def _bulk_item(call: Call, data: bytes, fetch_ms: float) -> dict[str, Any]:
    item = _item(call.predictor.classify(data, fetch_ms=fetch_ms), call.classes, call)
    del item["timings_ms"]  # a million of them help nobody
    return item | {"model": call.model}


def _item(prediction: Prediction, top_k: int, call: Call) -> dict[str, Any]:
    return prediction.to_json(top_k=top_k, min_score=call.predictor.settings.min_score)


# --- errors ------------------------------------------------------------------


def _answer_http(event: dict[str, Any], call: Call) -> dict[str, Any]:
    method, path = read_route(event)
    call.log.add(route=f"{method} {path}" if path in ROUTES else "unknown")
    try:
        response = _route(event, method, path, call)
    except Exception as error:
        response = _problem_response(_known(error, call), call, path)
    call.log.add(status=response.status)
    return response.to_event(with_body=method != "HEAD")


def _route(event: dict[str, Any], method: str, path: str, call: Call) -> Response:
    if path not in ROUTES:
        raise NotFoundError(f"There is no {path[:100]!r} here. See /docs.")
    if method == "OPTIONS":
        return Response(204, "", headers={"allow": ", ".join(allowed_methods(path))})
    handler = ROUTES[path].get("GET" if method == "HEAD" else method)
    request = read_request(event)
    call.log.add(gateway_request_id=request.gateway_id or None)
    if handler is None:
        raise MethodNotAllowedError(
            f"{path} does not answer {method[:20]!r}, but {', '.join(allowed_methods(path))}."
        )
    return handler(request, call)


def _answer_direct(event: Any, call: Call) -> dict[str, Any]:
    call.log.add(route="direct")
    try:
        if not isinstance(event, dict):
            raise BadRequestError('The event must be a JSON object such as {"url": "https://..."}.')
        handler = next((DIRECT[key] for key in DIRECT if key in event), predict_direct)
        body = handler(event, call)
        call.log.add(status=200)
    except BatchError as error:
        call.log.add(code=type(error).__name__, detail=str(error))
        raise
    except Exception as error:
        body = _problem(_known(error, call)) | {"request_id": call.request_id}
        call.log.add(status=body["status"])
    return body


def _known(error: BaseException, call: Call) -> ServiceError:
    """Return an error that a caller may see; what is not ours is logged and becomes a 500."""
    if isinstance(error, ServiceError) and not isinstance(error, InternalError):
        known = error
    else:
        call.log.add_failure(error)
        known = InternalError(_INTERNAL)
    call.log.add(code=known.code)
    return known


def _problem(error: ServiceError) -> dict[str, Any]:
    """Return the RFC 9457 object of an error, without its request id."""
    return {
        "type": f"/docs#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }


def _problem_response(error: ServiceError, call: Call, path: str) -> Response:
    response = json_response(error.status, _problem(error) | {"request_id": call.request_id})
    headers = dict(response.headers)
    if error.status == MethodNotAllowedError.status:
        headers["allow"] = ", ".join(allowed_methods(path))
    return Response(error.status, response.body, "application/problem+json", headers)


def _remaining_s(context: Any) -> float:
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    return remaining() / 1000 if callable(remaining) else DEFAULT_REMAINING_S


if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    # In Lambda, importing this module is the init phase: the model is loaded there, and what is
    # wrong with it or with a setting fails the init with its own message.
    predictor()
