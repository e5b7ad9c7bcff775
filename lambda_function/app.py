"""``lambda_handler``: the routes, and the one place where an error becomes a response.

An event is either HTTP (API Gateway payload 2.0 or 1.0, Function URL) or a direct invoke::

    {"url": "https://example.com/image.jpg"}  ->  the body that HTTP would carry, no envelope

A prediction is made in five steps: decode the request (``http.request_body``), fetch the image
(``fetching.client``), decode the image (``images.decode``), predict (``classifier``), build the
response (``predictions``).

Errors are RFC 9457 problems. HTTP carries them with their status and ``application/problem+json``.
A direct invoke returns the problem object. Its ``status`` tells it from a prediction. This module
raises into the runtime for a bulk run's batch (``bulk``), whose caller reads the error's name. It
also raises for the event of a queue, which would delete its messages otherwise.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from lambda_function import logs
from lambda_function.batches.bulk import ITEMS, BatchError
from lambda_function.errors import (
    BadRequestError,
    MethodNotAllowedError,
    NotFoundError,
    to_service_error,
)
from lambda_function.fetching.identity import is_own_request
from lambda_function.http.events import (
    VERSION_HEADER,
    QueueEventError,
    Request,
    Response,
    Route,
    is_gateway_event,
    is_queue_event,
    json_response,
    read_request,
    read_route,
)
from lambda_function.http.request_body import read_fields, read_prediction_request
from lambda_function.predictions import predict, predict_bulk
from lambda_function.service import RequestContext, Service, load_service
from lambda_function.settings import Settings


def lambda_handler(event: Any, context: Any) -> dict[str, Any]:
    """Respond to one event.

    Args:
        event: any JSON value. See the module.
        context: Lambda's, or anything with ``aws_request_id`` and
            ``get_remaining_time_in_millis``.

    Returns:
        The gateway's response object for HTTP events, otherwise the body itself.
    """
    return handle(event, context, process_service())


@functools.cache
def process_service() -> Service:
    """Return the one service of this process, configured by its environment.

    Raises:
        SettingsError: a wrong value in the environment.
        ArtifactError, MetadataError, ModelDownloadError: the model cannot be served.
    """
    return load_service(Settings.from_environment(os.environ))


def handle(
    event: Any,
    context: Any,
    service: Service,
    *,
    write: Callable[[str], None] = logs.write_line,
) -> dict[str, Any]:
    """Respond to one event, with everything that ``lambda_handler`` uses as arguments.

    Args:
        event: any JSON value.
        context: as for ``lambda_handler``.
        service: the loaded model and the ways to an image.
        write: takes the request's log line.

    Raises:
        BatchError: a bulk run's batch that has failed as a whole.
        QueueEventError: an event of a queue, which must not be confirmed.
    """
    is_http = is_gateway_event(event)
    request_context = RequestContext(service, context, is_http=is_http)
    try:
        if is_http:
            return _respond_http(event, request_context)
        return _respond_direct(event, request_context)
    finally:
        write(request_context.log.line(request_context.stopwatch.total_ms()))


def classify(request: Request, context: RequestContext) -> Response:
    """Classify the images that the request names or carries."""
    prediction_request = read_prediction_request(request, context.service.classifier.metadata)
    return json_response(200, predict(prediction_request, context))


def health(_: Request, context: RequestContext) -> Response:
    """Run the model once."""
    inference_ms = context.service.self_test_ms()
    body = {
        "status": "ok",
        "model": context.service.model,
        "timings_ms": {"inference": inference_ms, "total": context.stopwatch.total_ms()},
        "request_id": context.request_id,
    }
    return json_response(200, body)


def model(_: Request, context: RequestContext) -> Response:
    """Show the artifact's metadata."""
    return json_response(200, context.service.classifier.metadata.to_dict())


def static(request: Request, context: RequestContext) -> Response:
    """Serve one of the pages."""
    from lambda_function.http import pages  # imported here: predictions do not need it

    return pages.serve(request.path, context.service.classifier.metadata)


Handler = Callable[[Request, RequestContext], Response]
ROUTES: dict[str, dict[str, Handler]] = {
    "/": {"GET": static},
    "/docs": {"GET": static},
    "/openapi.json": {"GET": static},
    "/health": {"GET": health},
    "/model": {"GET": model},
    "/predict": {"GET": classify, "POST": classify},
}


def allowed_methods(path: str) -> list[str]:
    """Return the methods that a path of ``ROUTES`` accepts."""
    return sorted({*ROUTES[path], "HEAD", "OPTIONS"})


def predict_direct(event: dict[str, Any], context: RequestContext) -> dict[str, Any]:
    """Classify the images of ``{"url": ...}``, ``{"urls": [...]}`` or ``{"image": ...}``."""
    return predict(read_fields(event, context.service.classifier.metadata), context)


def _respond_http(event: dict[str, Any], context: RequestContext) -> dict[str, Any]:
    route = read_route(event)
    shown = f"{route.method[:20]} {route.path}" if route.path in ROUTES else "unknown"
    context.log.fields.update(route=shown)
    try:
        response = _respond_to_route(event, route, context)
    except Exception as error:
        response = _problem_response(error, route, context)
    context.log.fields.update(status=response.status)
    sent = response.to_event(with_body=route.method != "HEAD")
    sent["headers"][VERSION_HEADER] = context.service.settings.function_version
    return sent


def _respond_to_route(event: dict[str, Any], route: Route, context: RequestContext) -> Response:
    method, path = route
    if path not in ROUTES:
        raise NotFoundError(f"There is no {path[:100]!r} here. See /docs.")
    if method == "OPTIONS":
        return Response(204, "", headers={"allow": ", ".join(allowed_methods(path))})
    name = "GET" if method == "HEAD" else method
    if method and name not in ROUTES[path]:
        raise MethodNotAllowedError(
            f"{path} accepts {', '.join(allowed_methods(path))}. Received: {method[:20]!r}."
        )
    request = read_request(event, route)  # refuses an event without a method
    context.log.fields.update(gateway_request_id=request.gateway_id or None)
    if is_own_request(request.headers):
        raise BadRequestError(
            "This request was sent by an image classifier that was given the URL of a classifier. "
            "Give it the URL of an image."
        )
    context.own_host = request.host
    return ROUTES[path][name](request, context)


def _respond_direct(event: Any, context: RequestContext) -> dict[str, Any]:
    context.log.fields.update(route="direct")
    try:
        if is_queue_event(event):
            raise QueueEventError
        if not isinstance(event, dict):
            rule = 'The event must be a JSON object such as {"url": "https://..."}.'
            raise BadRequestError(rule, received=event)
        body = (predict_bulk if ITEMS in event else predict_direct)(event, context)
        context.log.fields.update(status=200)
    except (BatchError, QueueEventError) as error:
        context.log.fields.update(code=type(error).__name__, detail=str(error))
        raise
    except Exception as error:
        body = _problem(error, context)
        context.log.fields.update(status=body["status"])
    return body


def _problem_response(error: Exception, route: Route, context: RequestContext) -> Response:
    body = _problem(error, context)
    headers: dict[str, str] = {}
    if body["status"] == MethodNotAllowedError.status:
        headers["allow"] = ", ".join(allowed_methods(route.path))
    return json_response(
        body["status"], body, content_type="application/problem+json", headers=headers
    )


def _problem(error: Exception, context: RequestContext) -> dict[str, Any]:
    """Log an error and return it as the body of a response."""
    context.log.add_error(error)
    shown = to_service_error(error)
    context.log.fields.update(code=shown.code)
    return shown.to_dict() | {"request_id": context.request_id}


if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    # In Lambda, importing this module is the init phase. The model is loaded here, so a wrong
    # setting or model ends the init with its own message.
    process_service()
