"""The service: honest probabilities, and a model from a file or from S3."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import numpy as np
import pytest

from lambda_function.classifier import ArtifactError, Classifier, Outputs, are_probabilities
from lambda_function.service import RequestContext, Service, load_service
from lambda_function.settings import Settings
from tests.conftest import TINY_ALL_MODEL, TINY_MODEL, Context, encode_image
from tests.support.aws import ACCOUNT, invent_account, moto_server
from tests.support.processes import run_python

if TYPE_CHECKING:
    from collections.abc import Iterator


class ConstantModel:
    """A model with the same output for every image."""

    def __init__(
        self, tiny: Classifier, *probabilities: float, distance: float | None = None
    ) -> None:
        self.metadata = tiny.metadata
        self._outputs = Outputs(np.array(probabilities, np.float32), feature_distance=distance)

    def predict_all(self, tensor: Any) -> Outputs:
        return self._outputs


def scores(tiny: Classifier, *probabilities: float) -> tuple[tuple[str, float], ...]:
    service = Service(Settings(), ConstantModel(tiny, *probabilities))  # type: ignore[arg-type]
    return service.predict(encode_image("red")).scores


def test_scores_are_paired_with_their_labels_best_first(tiny: Classifier) -> None:
    assert tiny.metadata.labels == ("red", "green", "blue", "dark")
    expected = (("blue", 0.5), ("dark", 0.25), ("red", 0.125), ("green", 0.125))
    assert scores(tiny, 0.125, 0.125, 0.5, 0.25) == expected


def test_a_quantised_softmax_is_made_to_sum_to_one(tiny: Classifier) -> None:
    normalised = dict(scores(tiny, 0.5, 0.25, 0.125, 0.0625))  # the sum is 0.9375
    assert normalised == {
        "red": 0.5333333,
        "green": 0.2666667,
        "blue": 0.1333333,
        "dark": 0.0666667,
    }
    assert sum(normalised.values()) == pytest.approx(1, abs=1e-6)


def test_the_steps_of_a_quantised_softmax_may_add_up_over_many_classes() -> None:
    assert are_probabilities(np.full(100, 3 / 256, np.float32))  # 100 times 0.01, rounded
    assert not are_probabilities(np.full(100, 4 / 256, np.float32))


def test_a_score_that_is_below_zero_by_a_rounding_error_is_zero(tiny: Classifier) -> None:
    ranked = scores(tiny, 1.0000001, -1.19e-7, 0, 0)
    assert [score for _, score in ranked] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    "output",
    [(np.nan, 0, 0, 1), (np.inf, 0, 0, 0), (-0.5, 0.5, 0.5, 0.5), (3, 1, 0, 0), (0, 0, 0, 0)],
)
def test_an_output_without_probabilities_is_an_error(
    tiny: Classifier, output: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="not a set of probabilities"):
        scores(tiny, *output)


def test_only_a_score_below_the_lowest_is_uncertain(tiny: Classifier) -> None:
    half = ConstantModel(tiny, 0.5, 0.5, 0, 0)
    prediction = Service(Settings(), half).predict(encode_image("red"))  # type: ignore[arg-type]
    assert "uncertain" not in prediction.to_dict(top_k=4, min_score=0.5)
    assert prediction.to_dict(top_k=4, min_score=0.5000001)["uncertain"] is True


@pytest.mark.parametrize(
    ("unlike_known", "min_score", "is_uncertain"),
    [(True, None, True), (False, None, False), (True, 0.4, False), (False, 0.6, True)],
)
def test_a_lowest_score_decides_alone_and_else_the_models_rule(
    tiny: Classifier, unlike_known: bool, min_score: float | None, is_uncertain: bool
) -> None:
    half = ConstantModel(tiny, 0.5, 0.5, 0, 0)
    prediction = Service(Settings(), half).predict(encode_image("red"))  # type: ignore[arg-type]
    found = dataclasses.replace(prediction, unlike_known=unlike_known)
    part = found.to_dict(top_k=4, min_score=min_score)
    assert part.get("uncertain", False) is is_uncertain


@pytest.mark.parametrize(
    ("distance", "is_unlike"),
    [(0.0, False), (2.5, False), (2.51, True), (np.inf, True), (np.nan, True)],
)
def test_an_image_is_unlike_the_known_ones_beyond_the_farthest_distance(
    distance: float, is_unlike: bool
) -> None:
    every = Classifier(TINY_ALL_MODEL)  # its metadata says 2.5
    model = ConstantModel(every, 1, 0, 0, 0, distance=distance)
    prediction = Service(Settings(), model).predict(encode_image("red"))  # type: ignore[arg-type]
    assert prediction.unlike_known is is_unlike


@pytest.mark.parametrize(("colour", "is_unlike"), [("red", True), ("grey", False)])
def test_the_artifact_itself_measures_the_distance(colour: str, is_unlike: bool) -> None:
    # The squared means sum to 3 for red, and to about 0 for grey.
    service = Service(Settings(), Classifier(TINY_ALL_MODEL))
    assert service.predict(encode_image(colour)).unlike_known is is_unlike


def test_size_is_height_and_width_of_the_image(tiny: Classifier) -> None:
    prediction = Service(Settings(), tiny).predict(encode_image("red", (30, 50)))
    assert prediction.image_size == (30, 50)


def test_size_is_that_of_the_encoded_image_even_if_decoding_reduces_it(
    tiny: Classifier,
) -> None:
    prediction = Service(Settings(), tiny).predict(encode_image("red", (2400, 2600)))
    assert prediction.image_size == (2400, 2600)


def test_the_settings_choose_model_and_threads() -> None:
    service = load_service(Settings(model_uri=str(TINY_MODEL), interpreter_threads=2))
    assert service.classifier.metadata.name == "tiny"


def test_a_damaged_model_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x00" * 100 + TINY_MODEL.read_bytes()[100:])
    with pytest.raises(ArtifactError, match="not a loadable TFLite model"):
        load_service(Settings(model_uri=str(path)))


def test_a_model_of_elsewhere_is_run_before_it_is_served(tmp_path: Path) -> None:
    artifact = bytearray(TINY_MODEL.read_bytes())
    artifact[172] = 0  # shows only at inference
    path = tmp_path / "model.tflite"
    path.write_bytes(artifact)
    with pytest.raises(ArtifactError, match="fails at inference"):
        load_service(Settings(model_uri=str(path)))


@pytest.mark.parametrize(("remaining_s", "expected_s"), [(30, 4), (3, 2)])
def test_an_object_of_s3_has_the_time_that_any_download_has(
    tiny: Classifier, remaining_s: float, expected_s: float
) -> None:
    given: list[float] = []

    def read_object(uri: str, *, deadline: float, **_: Any) -> bytes:
        given.append(deadline - time.monotonic())
        return b""

    settings = Settings(fetch_timeout_s=4)
    service = Service(settings, tiny, read_object=read_object)
    RequestContext(service, Context(remaining_s), is_http=False).fetch("s3://bucket/key")
    assert given == [pytest.approx(expected_s, abs=0.5)]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """moto's S3 server on loopback, with a bucket of models. Gives its address."""
    model = TINY_MODEL.read_bytes()
    with moto_server() as address, pytest.MonkeyPatch.context() as monkeypatch:
        invent_account(monkeypatch, AWS_ENDPOINT_URL_S3=address)
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        client.put_object(Bucket="models", Key=f"good-{digest(model)}.tflite", Body=model)
        client.put_object(Bucket="models", Key=f"cut-{digest(b'other')}.tflite", Body=model[:-1])
        yield address
        client.close()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def init(address: str, key: str) -> subprocess.CompletedProcess[str]:
    """Import the handler as Lambda's init phase does, with a model from the bucket."""
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9",
        "AWS_ENDPOINT_URL_S3": address,
        **ACCOUNT,
        "MODEL_URI": f"s3://models/{key}",
    }
    code = "from lambda_function import app; print(app.process_service().classifier.metadata.name)"
    return run_python("-c", code, env=environment)


def test_model_uri_replaces_the_shipped_model_at_cold_start(s3: str) -> None:
    ended = init(s3, f"good-{digest(TINY_MODEL.read_bytes())}.tflite")
    assert (ended.returncode, ended.stdout) == (0, "tiny\n"), ended.stderr


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (f"missing-{digest(b'x')}.tflite", "cannot be read"),
        (f"cut-{digest(b'other')}.tflite", "is not what its name says"),
        ("latest.tflite", "must hold the model's SHA-256"),
    ],
)
def test_a_model_that_cannot_be_read_ends_the_init_with_the_reason(
    s3: str, key: str, said: str
) -> None:
    ended = init(s3, key)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(
        f"lambda_function.fetching.s3.ModelDownloadError: MODEL_URI=s3://models/{key}"
    )
    assert said in last
