"""What is asked -> the body of the answer: one prediction, a batch, or a bulk run's batch."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

from lambda_function.batch import run_batch
from lambda_function.bulk import classify_batch, read_event
from lambda_function.context import problem
from lambda_function.logs import redact_url

if TYPE_CHECKING:
    from lambda_function.context import Call
    from lambda_function.http.request_body import Asked
    from lambda_function.predictor import Prediction


def answer(asked: Asked, call: Call) -> dict[str, Any]:
    """Return an answer's body: one prediction, or one result per address.

    Raises:
        ServiceError: for a single image; a batch carries its errors per item.
    """
    if asked.urls is not None:
        return _answer_batch(asked.urls, asked.top_k, call)
    if asked.url is not None:
        call.log.add(image_url=redact_url(asked.url))
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
        score=round(prediction.scores[0][1], 4),
    )
    call.log.add_own_time(call.watch.total_ms() - prediction.timings_ms["fetch"])
    return _whole(_item(prediction, asked.top_k, call), call)


def answer_bulk(event: dict[str, Any], call: Call) -> dict[str, Any]:
    """Return the results of a batch of S3 objects, for Step Functions; see ``bulk``.

    Raises:
        BatchError: of the batch as a whole.
    """
    call.log.add(route="bulk")
    batch = read_event(event)
    results = classify_batch(
        batch,
        load=lambda uri: call.predictor.load(uri, deadline=call.deadline, allow_s3=True),
        classify=lambda data, fetch_ms: _bulk_item(call, data, fetch_ms),
        refuse=lambda error: {"error": problem(call.known(error))},
        deadline=call.deadline,
    )
    _log_items(results, call)
    return {"results": results}


def _answer_batch(urls: tuple[str, ...], top_k: int, call: Call) -> dict[str, Any]:
    sizes: list[int] = []
    codes: set[str] = set()

    def classify(data: bytes, fetch_ms: float) -> dict[str, Any]:
        prediction = call.predictor.classify(data, fetch_ms=fetch_ms)
        sizes.append(prediction.image_bytes)
        return _item(prediction, top_k, call)

    def refuse(error: Exception) -> dict[str, Any]:
        known = call.known(error)
        codes.add(known.code)
        return {"error": problem(known)}

    different = list(dict.fromkeys(urls))  # nobody's server is asked twice for one picture
    found = run_batch(
        different,
        load=lambda url, admit: call.predictor.load(
            url, deadline=call.deadline, allow_s3=call.allow_s3, admit=admit
        ),
        classify=classify,
        refuse=refuse,
        deadline=call.deadline,
    )
    by_url = dict(zip(different, found, strict=True))
    results = [by_url[url] for url in urls]
    _log_items(results, call)
    call.log.add(item_codes=sorted(codes), image_bytes=sum(sizes))
    return _whole({"results": results}, call)


def _log_items(results: list[dict[str, Any]], call: Call) -> None:
    done = [result for result in results if "error" not in result]
    labels = collections.Counter(result["predictions"][0]["label"] for result in done)
    call.log.add(items=len(results), items_done=len(done), labels=dict(labels))


def _whole(part: dict[str, Any], call: Call) -> dict[str, Any]:
    """Complete an answer with what it says about the request as a whole."""
    timings_ms = part.pop("timings_ms", {})
    return {
        **part,
        "model": call.model,
        "timings_ms": {**timings_ms, "total": call.watch.total_ms()},
        "request_id": call.request_id,
    }


def _bulk_item(call: Call, data: bytes, fetch_ms: float) -> dict[str, Any]:
    item = _item(call.predictor.classify(data, fetch_ms=fetch_ms), call.classes, call)
    del item["timings_ms"]  # a million of them help nobody
    return item | {"model": call.model}


def _item(prediction: Prediction, top_k: int, call: Call) -> dict[str, Any]:
    return prediction.to_json(top_k=top_k, min_score=call.predictor.settings.min_score)
