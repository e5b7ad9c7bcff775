"""From a picture, or its address, to class probabilities: one request's work, timed.

Everything with a lifetime of many requests is here in one object, ``Predictor``, built once
per cold start and handed to the handler; tests build their own.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lambda_function import SHIPPED_MODEL
from lambda_function.classifier import ArtifactError, Classifier
from lambda_function.errors import BadRequestError, TooLargeError
from lambda_function.fetching.client import FetchLimits, fetch_image
from lambda_function.images.decode import decode_image, preprocess

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_function.settings import Settings

_S3 = "s3://"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        scores: (label, probability) of every class, best first; they sum to 1.
        timings_ms: of fetch, decode, preprocess and inference.
        image_bytes: of the encoded image.
        image_size: (height, width) of the upright image as it was encoded, in pixels.
    """

    scores: tuple[tuple[str, float], ...]
    timings_ms: dict[str, float]
    image_bytes: int
    image_size: tuple[int, int]

    def to_json(self, *, top_k: int, min_score: float | None = None) -> dict[str, Any]:
        """Return the part of an answer that is about this image.

        Args:
            top_k: how many classes to show.
            min_score: a best score below it is called uncertain; None is off.
        """
        shown = [{"label": label, "score": score} for label, score in self.scores[:top_k]]
        answer: dict[str, Any] = {"predictions": shown}
        if min_score is not None and self.scores[0][1] < min_score:
            answer["uncertain"] = True
        return answer | {"timings_ms": self.timings_ms}


class Predictor:
    """A loaded model, and how pictures get to it.

    Attributes:
        settings: of this function.
        classifier: the loaded model.
    """

    def __init__(
        self,
        settings: Settings,
        classifier: Classifier,
        *,
        fetch: Callable[..., bytes] = fetch_image,
        read_object: Callable[..., bytes] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            settings: of this function.
            classifier: the loaded model.
            fetch: ``fetch.fetch_image``, or a test's.
            read_object: ``s3.read_object``, or a test's; None imports the real one when needed.
        """
        self.settings = settings
        self.classifier = classifier
        self._fetch = fetch
        self._read_object = read_object
        self._limits = FetchLimits(
            max_bytes=settings.max_image_bytes,
            timeout_s=settings.fetch_timeout_s,
            trusted_hosts=settings.trusted_image_hosts,
        )

    def predict_url(self, url: str, *, deadline: float | None, allow_s3: bool) -> Prediction:
        """Fetch and classify an image; arguments and errors are those of the two."""
        watch = Stopwatch()
        data = self.load(url, deadline=deadline, allow_s3=allow_s3)
        return self.classify(data, fetch_ms=watch.lap_ms())

    def load(
        self,
        url: str,
        *,
        deadline: float | None,
        allow_s3: bool,
        admit: Callable[[], None] | None = None,
    ) -> bytes:
        """Return the bytes behind an address.

        Args:
            url: http, https, or s3 where allowed.
            deadline: a ``time.monotonic()`` moment.
            allow_s3: whether this caller may name S3 objects.
            admit: called before the bytes are read; may wait, for memory to hold them.

        Raises:
            ServiceError: refused, or not to be had; says why.
        """
        if not url.lower().startswith(_S3):
            return self._fetch(url, self._limits, deadline=deadline, admit=admit)
        if not allow_s3:
            raise BadRequestError(
                "s3:// addresses are accepted from direct invokes, and over HTTP only where "
                "the API authorises its callers."
            )
        if admit:
            admit()
        latest = time.monotonic() + self.settings.fetch_timeout_s
        return self._s3_reader()(
            url,
            buckets=self.settings.image_buckets,
            max_bytes=self.settings.max_image_bytes,
            deadline=latest if deadline is None else min(latest, deadline),
        )

    def classify(self, data: bytes, *, fetch_ms: float = 0.0) -> Prediction:
        """Classify an encoded image.

        Args:
            data: as fetched or uploaded.
            fetch_ms: what it took to have it, for the timings.

        Raises:
            ServiceError: too large, not an image, or damaged.
        """
        if len(data) > self.settings.max_image_bytes:
            raise TooLargeError(
                f"The image has {len(data):,} bytes; "
                f"at most {self.settings.max_image_bytes:,} are accepted."
            )
        spec = self.classifier.metadata.input
        watch = Stopwatch()
        image = decode_image(data, max_pixels=self.settings.max_image_pixels, target=spec)
        decode_ms = watch.lap_ms()
        tensor = preprocess(image, spec)
        preprocess_ms = watch.lap_ms()
        probabilities = self.classifier.predict(tensor)
        inference_ms = watch.lap_ms()
        return Prediction(
            scores=_ranked(self.classifier.metadata.labels, probabilities),
            timings_ms={
                "fetch": fetch_ms,
                "decode": decode_ms,
                "preprocess": preprocess_ms,
                "inference": inference_ms,
            },
            image_bytes=len(data),
            image_size=image.info["encoded_size"],
        )

    def self_test_ms(self) -> float:
        """Run the model once on grey and return how long it took.

        Raises:
            ValueError: it answered with something other than probabilities.
        """
        spec = self.classifier.metadata.input
        watch = Stopwatch()
        grey = np.zeros((1, spec.height, spec.width, 3), np.float32)
        _ranked(self.classifier.metadata.labels, self.classifier.predict(grey))
        return watch.lap_ms()

    def _s3_reader(self) -> Callable[..., bytes]:
        if self._read_object is None:
            from lambda_function.fetching.s3 import read_object  # imported here: it brings boto3

            self._read_object = read_object
        return self._read_object


class Stopwatch:
    """Milliseconds, to a tenth of one."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()

    def lap_ms(self) -> float:
        """Return the time since the last call, or since the start."""
        now = time.perf_counter()
        lap, self._last = now - self._last, now
        return round(lap * 1e3, 1)

    def total_ms(self) -> float:
        """Return the time since the start."""
        return round((time.perf_counter() - self._start) * 1e3, 1)


def load_predictor(settings: Settings) -> Predictor:
    """Load the model that the settings name.

    Raises:
        ArtifactError: it cannot be read, or contradicts its metadata.
        MetadataError: it does not say what it is.
        ModelDownloadError: it cannot be had from S3, or is not what its name says.
    """
    artifact: bytes | Path
    if settings.model_uri.startswith(_S3):
        from lambda_function.fetching.s3 import download_model  # imported here: it brings boto3

        artifact = download_model(settings.model_uri)
    else:
        artifact = Path(settings.model_uri or SHIPPED_MODEL)
    try:
        classifier = Classifier(artifact, num_threads=settings.interpreter_threads)
    except OSError as error:
        name = settings.model_uri or SHIPPED_MODEL.name
        raise ArtifactError(
            f"the model {name} cannot be read ({error.strerror}). MODEL_URI names another."
        ) from error
    return Predictor(settings, classifier)


def _ranked(
    labels: tuple[str, ...], probabilities: np.ndarray[Any, Any]
) -> tuple[tuple[str, float], ...]:
    """Pair labels and scores, best first.

    A quantised softmax sums to 1 only nearly, and float32 is not JSON: the sum is made 1 in
    float64, and seven decimals kept, which is what float32 holds.
    """
    values = probabilities.astype(np.float64)
    total = float(values.sum())
    if not np.isfinite(values).all() or (values < 0).any() or not 0.9 < total < 1.1:
        raise ValueError(f"the model's answer is no set of probabilities: {values.tolist()}")
    scores = [round(float(value), 7) for value in values / total]
    return tuple(sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1]))
