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
from collections.abc import Callable
from typing import Any

from lambda_function import logs
from lambda_function.bulk import ITEMS, BatchError
from lambda_function.context import Call, problem
from lambda_function.errors import (
    BadRequestError,
    MethodNotAllowedError,
    NotFoundError,
    ServiceError,
)
from lambda_function.http import pages
from lambda_function.http import request_body as payload
from lambda_function.http.events import (
    Request,
    Response,
    is_gateway_event,
    json_response,
    read_request,
    read_route,
)
from lambda_function.predictor import Predictor, load_predictor
from lambda_function.service import answer, answer_bulk
from lambda_function.settings import Settings


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


def predict_direct(event: dict[str, Any], call: Call) -> dict[str, Any]:
    """Classify what ``{"url": ...}``, ``{"urls": [...]}`` or ``{"image": ...}`` names."""
    return answer(payload.read_fields(event, call.classes), call)


DirectHandler = Callable[[dict[str, Any], Call], dict[str, Any]]
# The first key that an event has chooses; other events are read as predictions.
DIRECT: dict[str, DirectHandler] = {ITEMS: answer_bulk}


def _answer_http(event: dict[str, Any], call: Call) -> dict[str, Any]:
    method, path = read_route(event)
    call.log.add(route=f"{method[:20]} {path}" if path in ROUTES else "unknown")
    try:
        response = _route(event, method, path, call)
    except Exception as error:
        response = _problem_response(call.known(error), call, path)
    call.log.add(status=response.status)
    return response.to_event(with_body=method != "HEAD")


def _route(event: dict[str, Any], method: str, path: str, call: Call) -> Response:
    if path not in ROUTES:
        raise NotFoundError(f"There is no {path[:100]!r} here. See /docs.")
    if method == "OPTIONS":
        return Response(204, "", headers={"allow": ", ".join(allowed_methods(path))})
    name = "GET" if method == "HEAD" else method
    if method and name not in ROUTES[path]:
        raise MethodNotAllowedError(
            f"{path} answers {', '.join(allowed_methods(path))}. Received: {method[:20]!r}."
        )
    request = read_request(event)  # refuses an event without a method
    call.log.add(gateway_request_id=request.gateway_id or None)
    return ROUTES[path][name](request, call)


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
        known = call.known(error)
        call.log.add(status=known.status, code=known.code)
        body = problem(known) | {"request_id": call.request_id}
    return body


def _problem_response(error: ServiceError, call: Call, path: str) -> Response:
    call.log.add(code=error.code)
    response = json_response(error.status, problem(error) | {"request_id": call.request_id})
    headers = dict(response.headers)
    if error.status == MethodNotAllowedError.status:
        headers["allow"] = ", ".join(allowed_methods(path))
    return Response(error.status, response.body, "application/problem+json", headers)


if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    # In Lambda, importing this module is the init phase: the model is loaded there, and what is
    # wrong with it or with a setting fails the init with its own message.
    predictor()
