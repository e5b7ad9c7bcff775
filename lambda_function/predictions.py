"""A request becomes the response's body: one prediction, a batch, or a bulk run's batch."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

from lambda_function.batches.bulk import classify_objects, read_bulk_event
from lambda_function.errors import to_service_error
from lambda_function.fetching.urls import loggable_url
from lambda_function.stopwatch import Stopwatch

if TYPE_CHECKING:
    from lambda_function.http.request_body import PredictionRequest
    from lambda_function.service import RequestContext


def predict(request: PredictionRequest, context: RequestContext) -> dict[str, Any]:
    """Return the response's body: one prediction, or one result per image of a batch.

    Raises:
        ServiceError: for a single image. In a batch each result carries its own error.
    """
    if request.is_batch:
        return _predict_batch(request, context)
    (source,) = request.sources
    return _predict_one(source, request, context)


def predict_bulk(event: dict[str, Any], context: RequestContext) -> dict[str, Any]:
    """Return the results of a batch of S3 objects, for Step Functions. See ``bulk``.

    Raises:
        BatchError: the batch as a whole has failed.
    """
    service = context.service
    context.log.fields.update(route="bulk")

    def classify(data: bytes, fetch_ms: float) -> dict[str, Any]:
        prediction = service.predict(data, fetch_ms=fetch_ms)
        part = prediction.to_dict(top_k=None, min_score=service.settings.min_score)
        del part["timings_ms"]  # nobody reads a million of them
        return part | {"model": service.model}

    results = classify_objects(
        read_bulk_event(event),
        fetch=context.fetch,
        classify=classify,
        on_error=lambda error: _error_part(error, context),
        deadline=context.deadline,
        parallel=service.settings.parallel_downloads,
    )
    _log_results(results, context)
    return {"results": results}


def _predict_one(
    source: str | bytes, request: PredictionRequest, context: RequestContext
) -> dict[str, Any]:
    service, log = context.service, context.log
    image, fetch_ms = source, 0.0
    if isinstance(image, str):
        log.fields.update(image_url=loggable_url(image))
        stopwatch = Stopwatch()
        image = context.fetch(image)
        fetch_ms = stopwatch.lap_ms()
    prediction = service.predict(image, fetch_ms=fetch_ms, explain=request.explain)
    log.fields.update(
        image_bytes=prediction.image_bytes,
        image_size=list(prediction.image_size),
        profile_ignored=prediction.profile_ignored or None,
        timings_ms=prediction.timings_ms,
        label=prediction.scores[0][0],
        score=round(prediction.scores[0][1], 4),
        OwnTime=round(context.stopwatch.total_ms() - fetch_ms, 1),  # a metric by version
    )
    part = prediction.to_dict(top_k=request.top_k, min_score=service.settings.min_score)
    return _build_body(part, context)


def _predict_batch(request: PredictionRequest, context: RequestContext) -> dict[str, Any]:
    from lambda_function.batches.batch import run_batch  # a cold start of one image needs none

    service = context.service
    sizes: list[int] = []

    def classify(data: bytes, fetch_ms: float) -> dict[str, Any]:
        prediction = service.predict(data, fetch_ms=fetch_ms, explain=request.explain)
        sizes.append(prediction.image_bytes)
        return prediction.to_dict(top_k=request.top_k, min_score=service.settings.min_score)

    different = list(dict.fromkeys(request.sources))  # no server is asked twice for one image
    parts = run_batch(
        different,
        fetch=context.fetch,
        classify=classify,
        on_error=lambda error: _error_part(error, context),
        deadline=context.deadline,
        parallel=service.settings.parallel_downloads,
    )
    part_of = dict(zip(different, parts, strict=True))
    results = [part_of[source] for source in request.sources]
    codes = {part["error"]["code"] for part in parts if "error" in part}
    context.log.fields.update(item_codes=sorted(codes), image_bytes=sum(sizes))
    _log_results(results, context)
    return _build_body({"results": results}, context)


def _error_part(error: Exception, context: RequestContext) -> dict[str, Any]:
    """Log an item's error and return it as the item's part of the response."""
    context.log.add_error(error)
    return {"error": to_service_error(error).to_dict()}


def _log_results(results: list[dict[str, Any]], context: RequestContext) -> None:
    done = [result for result in results if "error" not in result]
    labels = collections.Counter(result["predictions"][0]["label"] for result in done)
    context.log.fields.update(items=len(results), items_done=len(done), labels=dict(labels))


def _build_body(part: dict[str, Any], context: RequestContext) -> dict[str, Any]:
    """Add what a response says about the request as a whole."""
    timings_ms = part.pop("timings_ms", {})
    return {
        **part,
        "model": context.service.model,
        "timings_ms": {**timings_ms, "total": context.stopwatch.total_ms()},
        "request_id": context.request_id,
    }
