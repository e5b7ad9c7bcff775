"""Environment variables become one frozen ``Settings``. Errors name a wrong variable and value.

``VARIABLES`` is the whole list. ``docs/settings.md`` shows it, and a test keeps them equal. An
empty value means the default, since deployment templates cannot leave a variable out.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from lambda_function.errors import BadRequestError
from lambda_function.fetching.identity import user_agent
from lambda_function.fetching.urls import normal_host_and_port
from lambda_function.images.stripped import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MEMORY_PER_VCPU_MB = 1769  # AWS: "at 1,769 MB, a function has the equivalent of one vCPU"
# Decoding takes up to 18 bytes a pixel (16-bit PNG with transparency, WebP, November 2026). The
# process, four downloads and copies of one take 260 MB. With more, Lambda ends the environment.
PIXELS_PER_MB = 50_000
MEMORY_BESIDE_PIXELS_MB = 260
# Images of a batch that are downloaded or wait for inference. 16 keep an inference of 20 ms busy
# with servers that take 200 ms. Peak of 32 files of 20 MB and of all allowed pixels (VmHWM,
# tests/serving/test_memory.py, November 2026): 482 MB of 512 with 4 (lossless WebP with alpha),
# 1,501 MB of 1,769 with 16. So 16 would be too close to the limit from 1,536 MB on.
PARALLEL_DOWNLOADS = 16
PARALLEL_DOWNLOADS_SMALL = 4
MAX_THREADS = 6  # Lambda's largest function, 10,240 MB, has six vCPUs
API_AUTHS = ("none", "iam", "jwt")


class SettingsError(ValueError):
    """An environment variable has a wrong value. The message names it and what is allowed."""


class Variable(NamedTuple):
    """One environment variable that an operator may set.

    Attributes:
        name: of the variable.
        default: what an unset or empty variable means, as text.
        allowed: the values, in words.
        meaning: its effect, in one sentence.
        read: turns the text into the value. It raises ValueError or BadRequestError.
    """

    name: str
    default: str
    allowed: str
    meaning: str
    read: Callable[[str], Any]

    def parse(self, text: str) -> Any:
        """Return the value of a text.

        Raises:
            SettingsError: it is not allowed.
        """
        try:
            return self.read(text)
        except (BadRequestError, ValueError) as error:
            raise SettingsError(
                f"{self.name} must be {self.allowed.replace('`', '')}. Received: {text!r}"
            ) from error


def _matching(pattern: str, text: str) -> str:
    if not re.fullmatch(pattern, text):
        raise ValueError(text)
    return text


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(_matching(r"[0-9]{1,12}", text))
        if not low <= number <= high:
            raise ValueError(text)
        return number

    return read


def _timeout(text: str) -> float:
    seconds = float(_matching(r"[0-9]{1,3}(\.[0-9]{1,6})?", text))
    if not 0 < seconds <= 60:
        raise ValueError(text)
    return seconds


def _score(text: str) -> float | None:
    if text == "off":
        return None
    score = float(_matching(r"[0-9]?\.?[0-9]{1,9}", text))
    if not 0 <= score <= 1:
        raise ValueError(text)
    return score


def _list(read_one: Callable[[str], str]) -> Callable[[str], frozenset[str]]:
    def read(text: str) -> frozenset[str]:
        parts = [] if text == "none" else text.split(",")
        return frozenset(read_one(part.strip()) for part in parts)

    return read


def _contact(text: str) -> str:
    user_agent(text)  # raises ValueError
    return "" if text == "none" else _matching(".{1,200}", text)


def _bucket(text: str) -> str:
    return _matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", text)


def _api_auth(text: str) -> str:
    return _matching("|".join(API_AUTHS), text.lower())


def _model_uri(text: str) -> str:
    return _matching("s3://[^/]+/.+", text) if "://" in text else text


def _namespace(text: str) -> str | None:
    return None if text == "off" else _matching(r"[A-Za-z0-9.\-_/#:]{1,255}", text)


VARIABLES = (
    Variable(
        "MODEL_URI",
        "the shipped `lambda_function/model.tflite`",
        "`s3://bucket/key` with the file's SHA-256 in the key, or a path",
        "The model to load at cold start.",
        _model_uri,
    ),
    Variable(
        "INTERPRETER_THREADS",
        "one per vCPU (1,769 MB) of `AWS_LAMBDA_FUNCTION_MEMORY_SIZE`; 1 outside Lambda",
        f"integer, 1 to {MAX_THREADS}",
        "Threads of one inference.",
        _integer(1, MAX_THREADS),
    ),
    Variable(
        "MAX_IMAGE_BYTES",
        "20971520",
        "integer, 1 to 104857600",
        "Largest image, encoded; 20 MiB by default.",
        _integer(1, 100 * 1024**2),
    ),
    Variable(
        "MAX_IMAGE_PIXELS",
        "50000000; with less memory than 1,260 MB, 50,000 for each MB above 260",
        "integer, 1 to 200000000",
        "Largest image in pixels, checked before any is decoded.",
        _integer(1, 200_000_000),
    ),
    Variable(
        "FETCH_TIMEOUT_S",
        "10",
        "number above 0, at most 60",
        "Longest time for one image's download, redirects and name lookup included, in seconds.",
        _timeout,
    ),
    Variable(
        "FETCH_CONTACT",
        "none",
        "1 to 200 printable ASCII characters, no parentheses",
        "A mail address or web page for the User-Agent of downloads. Wikimedia asks for one.",
        _contact,
    ),
    Variable(
        "TRUSTED_IMAGE_HOSTS",
        "none",
        "`host:port`, separated by commas",
        "Image servers exempt from the rule that addresses must be public: your own, private ones.",
        _list(normal_host_and_port),
    ),
    Variable(
        "IMAGE_BUCKETS",
        "none",
        "bucket names, separated by commas",
        "S3 buckets that `s3://` images may come from.",
        _list(_bucket),
    ),
    Variable(
        "API_AUTH",
        "none",
        "`none`, `iam` or `jwt`",
        "How the HTTP API in front authorises callers; `s3://` images over HTTP need `iam` or "
        "`jwt`. The function does not check callers itself.",
        _api_auth,
    ),
    Variable(
        "MIN_SCORE",
        "off",
        "number, 0 to 1",
        'A best score below it adds `"uncertain": true` to the prediction. If set, it decides '
        "alone. Otherwise the model's feature distance decides, if it measures one.",
        _score,
    ),
    Variable(
        "METRICS_NAMESPACE",
        "ImageClassifier",
        "1 to 255 of `A-Z a-z 0-9 . - _ / # :`, or `off`",
        "CloudWatch namespace of the metrics in the log lines.",
        _namespace,
    ),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How this function is configured.

    Attributes:
        model_uri: ``s3://bucket/key``, a path, or ``""`` for the shipped model.
        interpreter_threads: of one inference.
        max_image_bytes: of an encoded image.
        max_image_pixels: of an image, before decoding.
        fetch_timeout_s: for one download.
        fetch_contact: named in the User-Agent of downloads, or ``""``.
        trusted_image_hosts: ``host:port`` exempt from the public-address rule.
        image_buckets: that ``s3://`` images may come from.
        api_auth: one of ``API_AUTHS``.
        min_score: best scores below it are marked as uncertain. None is off.
        metrics_namespace: of the embedded metrics. None is off.
        parallel_downloads: of a batch, images that wait for inference included.
        function_name: the metrics' dimension ``service``.
        function_version: the second dimension of the metrics that roll a deployment back.
        started_in_advance: AWS keeps this environment warm, so nobody waited for its start.
    """

    model_uri: str = ""
    interpreter_threads: int = 1
    max_image_bytes: int = 20 * 1024**2  # 20 MiB: above any phone's JPEG. 4 fit in memory
    max_image_pixels: int = MAX_PIXELS
    fetch_timeout_s: float = 10.0
    fetch_contact: str = ""
    trusted_image_hosts: frozenset[str] = frozenset()
    image_buckets: frozenset[str] = frozenset()
    api_auth: str = "none"
    min_score: float | None = None
    metrics_namespace: str | None = "ImageClassifier"
    parallel_downloads: int = PARALLEL_DOWNLOADS
    function_name: str = "local"
    function_version: str = "local"
    started_in_advance: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read and check all settings.

        Args:
            environ: ``os.environ``, or a test's dict.

        Raises:
            SettingsError: a value is not allowed. The message names variable, value and rule.
        """
        chosen = {
            variable.name.lower(): variable.parse(text)
            for variable in VARIABLES
            if (text := environ.get(variable.name, "").strip())
        }
        memory_mb = environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
        return cls(
            **{
                "interpreter_threads": _threads_for(memory_mb),
                "max_image_pixels": _pixels_for(memory_mb),
                "parallel_downloads": _downloads_for(memory_mb),
                "function_name": environ.get("AWS_LAMBDA_FUNCTION_NAME", "local"),
                "started_in_advance": environ.get("AWS_LAMBDA_INITIALIZATION_TYPE")
                == "provisioned-concurrency",
                "function_version": environ.get("AWS_LAMBDA_FUNCTION_VERSION", "local"),
                **chosen,
            }
        )


def _threads_for(memory_mb: str) -> int:
    """Return the vCPUs of a function of that memory, to the nearest whole one."""
    if not memory_mb.isdecimal():
        return 1
    return max(1, min(MAX_THREADS, round(int(memory_mb) / MEMORY_PER_VCPU_MB)))


def _downloads_for(memory_mb: str) -> int:
    """Return how many images of a batch a function of that memory can hold at once."""
    is_small = memory_mb.isdecimal() and int(memory_mb) < MEMORY_PER_VCPU_MB
    return PARALLEL_DOWNLOADS_SMALL if is_small else PARALLEL_DOWNLOADS


def _pixels_for(memory_mb: str) -> int:
    """Return how many pixels a function of that memory can decode, for every kind of image."""
    if not memory_mb.isdecimal():
        return MAX_PIXELS
    spare_mb = int(memory_mb) - MEMORY_BESIDE_PIXELS_MB
    return max(1_000_000, min(MAX_PIXELS, spare_mb * PIXELS_PER_MB))
