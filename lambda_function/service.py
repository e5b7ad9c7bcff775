"""What lives as long as the process (``Service``), and what lives as long as one request.

``Service`` is built once per cold start: settings, model, and the two ways to an image's bytes.
``RequestContext`` belongs to one request: its id, its deadline and its log line.
Tests build their own of both.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lambda_function import SHIPPED_MODEL
from lambda_function.classifier import ArtifactError, Classifier, are_probabilities
from lambda_function.errors import BadRequestError, TooLargeError
from lambda_function.fetching.client import FetchLimits, fetch_image
from lambda_function.fetching.urls import S3_SCHEME
from lambda_function.images.decode import decode_image, preprocess
from lambda_function.logs import RequestLog
from lambda_function.processor import instruction_sets
from lambda_function.stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_function.classifier import Outputs
    from lambda_function.explanation import Explanation
    from lambda_function.metadata import ModelMetadata
    from lambda_function.settings import Settings

DEADLINE_MARGIN_S = 1.0  # of the function's remaining time, kept to send the response
DEFAULT_REMAINING_S = 30.0  # without a Lambda context: the longest that an HTTP API waits
_cold_start = iter([True])  # has one item, for the process's first request


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        scores: (label, probability) of every class, best first. They sum to 1.
        timings_ms: of fetch, decode, preprocess and inference.
        image_bytes: of the encoded image.
        image_size: (height, width) of the upright image as it was encoded, in pixels.
        profile_ignored: whether the image has a colour profile that could not be used.
        explanation: where the model sees a class, if the request asked for it.
        unlike_known: whether the image's features are farther than the artifact allows.
    """

    scores: tuple[tuple[str, float], ...]
    timings_ms: dict[str, float]
    image_bytes: int
    image_size: tuple[int, int]
    profile_ignored: bool = False
    explanation: Explanation | None = None
    unlike_known: bool = False

    def to_dict(self, *, top_k: int | None, min_score: float | None = None) -> dict[str, Any]:
        """Return the part of a response that is about this image.

        Args:
            top_k: how many classes to show. None is all.
            min_score: a best score below it is marked as uncertain, and no other. None lets the
                artifact's feature distance decide.
        """
        shown = [{"label": label, "score": score} for label, score in self.scores[:top_k]]
        part: dict[str, Any] = {"predictions": shown}
        if self.unlike_known if min_score is None else self.scores[0][1] < min_score:
            part["uncertain"] = True
        if self.explanation:
            part["explanation"] = self.explanation.to_dict()
        return part | {"timings_ms": self.timings_ms}


def _read_object(uri: str, **options: Any) -> bytes:
    from lambda_function.fetching.s3 import read_object  # imported here: it brings boto3

    return read_object(uri, **options)


class Service:
    """A loaded model, its settings, and the ways to an image.

    Attributes:
        settings: of this function.
        classifier: the loaded model.
        model: its name and version, as every response carries them.
        fetch_image: reads a URL of http or https.
        read_object: reads an S3 object.
        limits: of what ``fetch_image`` reads.
    """

    def __init__(
        self,
        settings: Settings,
        classifier: Classifier,
        *,
        fetch: Callable[..., bytes] = fetch_image,
        read_object: Callable[..., bytes] = _read_object,
    ) -> None:
        """Put the parts together.

        Args:
            settings: of this function.
            classifier: the loaded model.
            fetch: ``client.fetch_image``, or a test's.
            read_object: ``s3.read_object``, or a test's.
        """
        self.settings = settings
        self.classifier = classifier
        self.model = {"name": classifier.metadata.name, "version": classifier.metadata.version}
        self.fetch_image = fetch
        self.read_object = read_object
        self.limits = FetchLimits(
            max_bytes=settings.max_image_bytes,
            timeout_s=settings.fetch_timeout_s,
            trusted_hosts=settings.trusted_image_hosts,
            contact=settings.fetch_contact,
        )

    def predict(
        self, data: bytes, *, fetch_ms: float = 0.0, explain: bool | str = False
    ) -> Prediction:
        """Classify an encoded image: decode, preprocess, infer.

        Args:
            data: as fetched or uploaded.
            fetch_ms: how long the download took, for the timings.
            explain: a label, or True for the best class: show where the model sees it. The
                artifact must have an activation map.

        Raises:
            ServiceError: too large, not an image, or damaged.
        """
        if len(data) > self.settings.max_image_bytes:
            raise TooLargeError(
                f"The image has {len(data):,} bytes. "
                f"At most {self.settings.max_image_bytes:,} are accepted."
            )
        metadata = self.classifier.metadata
        stopwatch = Stopwatch()
        image = decode_image(data, max_pixels=self.settings.max_image_pixels, target=metadata.input)
        decode_ms = stopwatch.lap_ms()
        tensor = preprocess(image, metadata.input)
        preprocess_ms = stopwatch.lap_ms()
        outputs = self.classifier.predict_all(tensor)
        inference_ms = stopwatch.lap_ms()
        scores = _rank(metadata.labels, outputs.probabilities)
        explanation = None
        if explain and outputs.activation_map is not None:
            from lambda_function.explanation import explain_class  # few requests need it

            label = scores[0][0] if explain is True else explain
            class_map = outputs.activation_map[..., metadata.labels.index(label)]
            explanation = explain_class(class_map, label, image.info["encoded_size"])
        return Prediction(
            scores=scores,
            timings_ms={
                "fetch": fetch_ms,
                "decode": decode_ms,
                "preprocess": preprocess_ms,
                "inference": inference_ms,
            },
            image_bytes=len(data),
            image_size=image.info["encoded_size"],
            profile_ignored=image.info.get("profile_ignored", False),
            explanation=explanation,
            unlike_known=_is_unlike_known(outputs, metadata),
        )

    def self_test_ms(self) -> float:
        """Run the model once on a grey image and return how long it took.

        Raises:
            ValueError: the output is not a set of probabilities.
        """
        metadata = self.classifier.metadata
        stopwatch = Stopwatch()
        grey = np.zeros((1, metadata.input.height, metadata.input.width, 3), np.float32)
        _rank(metadata.labels, self.classifier.predict(grey))
        return stopwatch.lap_ms()


class RequestContext:
    """One request: who asks, until when, and what is logged.

    Attributes:
        service: the model, the settings and the ways to an image.
        request_id: Lambda's.
        deadline: the ``time.monotonic()`` moment to be done by.
        allow_s3: whether this caller may name S3 objects.
        own_host: the host name that the caller used, or ``""``.
        log: the log line of this request.
        stopwatch: started with the request.
    """

    def __init__(self, service: Service, lambda_context: Any, *, is_http: bool) -> None:
        """Start a request.

        Args:
            service: the model, the settings and the ways to an image.
            lambda_context: has ``aws_request_id`` and ``get_remaining_time_in_millis``, or not.
            is_http: False for a direct invoke.
        """
        self.stopwatch = Stopwatch()
        self.service = service
        self.request_id = str(
            getattr(lambda_context, "aws_request_id", None) or os.urandom(16).hex()
        )
        remaining_ms = getattr(lambda_context, "get_remaining_time_in_millis", None)
        remaining_s = remaining_ms() / 1000 if callable(remaining_ms) else DEFAULT_REMAINING_S
        self.deadline = time.monotonic() + remaining_s - DEADLINE_MARGIN_S
        self.own_host = ""
        self.allow_s3 = not is_http or service.settings.api_auth != "none"
        is_first = next(_cold_start, False)
        self.log = RequestLog(
            service.settings,
            request_id=self.request_id,
            model_version=service.model["version"],
            cold_start=is_first and not service.settings.started_in_advance,
        )
        if is_first:
            self.log.fields["instruction_sets"] = instruction_sets()

    def fetch(self, url: str) -> bytes:
        """Return the bytes that a URL names, within this request's deadline and rights.

        Args:
            url: http, https, or s3 where allowed.

        Raises:
            ServiceError: refused, or could not be fetched. The message says why.
        """
        service = self.service
        if url[: len(S3_SCHEME)].lower() != S3_SCHEME:
            return service.fetch_image(
                url, service.limits, deadline=self.deadline, own_host=self.own_host
            )
        if not self.allow_s3:
            raise BadRequestError(
                "s3:// addresses are accepted from direct invokes, and over HTTP only where "
                "the API authorises its callers."
            )
        latest = time.monotonic() + service.settings.fetch_timeout_s
        return service.read_object(
            url,
            buckets=service.settings.image_buckets,
            max_bytes=service.settings.max_image_bytes,
            deadline=min(latest, self.deadline),
        )


def load_service(settings: Settings) -> Service:
    """Load the model that the settings name.

    Raises:
        ArtifactError: the model cannot be read, or contradicts its metadata.
        MetadataError: the artifact has no usable metadata.
        ModelDownloadError: the model cannot be read from S3, or is not what its name says.
    """
    artifact: bytes | Path
    if settings.model_uri.startswith(S3_SCHEME):
        from lambda_function.fetching.s3 import download_model  # imported here: it brings boto3

        artifact = download_model(settings.model_uri)
    else:
        artifact = Path(settings.model_uri or SHIPPED_MODEL)
    try:
        # The image's own model was run when it was converted and tested. A cold start does not wait
        # for one more inference.
        classifier = Classifier(
            artifact,
            num_threads=settings.interpreter_threads,
            run_once=bool(settings.model_uri),
        )
    except OSError as error:
        name = settings.model_uri or SHIPPED_MODEL.name
        raise ArtifactError(
            f"the model {name} cannot be read ({error.strerror}). MODEL or MODEL_URI names another."
        ) from error
    return Service(settings, classifier)


def _is_unlike_known(outputs: Outputs, metadata: ModelMetadata) -> bool:
    """Return whether the features are farther than the metadata allows. NaN is."""
    distance, spec = outputs.feature_distance, metadata.feature_distance
    return distance is not None and spec is not None and not distance <= spec.farthest


def _rank(
    labels: tuple[str, ...], probabilities: np.ndarray[Any, Any]
) -> tuple[tuple[str, float], ...]:
    """Pair labels and scores, best first.

    The sum of a quantised softmax is only close to 1, and JSON has no float32. So the scores are
    divided by their sum in float64 and rounded to seven decimals, the precision of float32.
    """
    if not are_probabilities(probabilities):
        raise ValueError(
            f"the model's output is not a set of probabilities: {probabilities.tolist()}"
        )
    values = np.maximum(probabilities.astype(np.float64), 0)
    total = float(values.sum())
    best_first = np.argsort(-values, kind="stable")
    return tuple([(labels[i], round(float(values[i]) / total, 7)) for i in best_first])
