"""Settings: every variable read, checked, named when wrong, and documented."""

from __future__ import annotations

import pytest

from lambda_function import REPOSITORY
from lambda_function.settings import VARIABLES, Settings, SettingsError

TABLE = REPOSITORY / "docs" / "settings.md"
GOOD = [
    ("MODEL_URI", "s3://models/clothing-abc.tflite", "s3://models/clothing-abc.tflite"),
    ("MODEL_URI", "/opt/model.tflite", "/opt/model.tflite"),
    ("INTERPRETER_THREADS", "2", 2),
    ("MAX_IMAGE_BYTES", "1000", 1000),
    ("MAX_IMAGE_PIXELS", "200000000", 200_000_000),
    ("FETCH_TIMEOUT_S", "2.5", 2.5),
    ("FETCH_CONTACT", "mail@shop.example", "mail@shop.example"),
    ("FETCH_CONTACT", "none", ""),
    ("TRUSTED_IMAGE_HOSTS", "127.0.0.1:80", frozenset({"127.0.0.1:80"})),
    (
        "TRUSTED_IMAGE_HOSTS",
        " Images.Local:8080 , [0::1]:65535",
        frozenset({"images.local:8080", "[::1]:65535"}),
    ),
    ("TRUSTED_IMAGE_HOSTS", "none", frozenset()),
    ("IMAGE_BUCKETS", "my-bucket,other.bucket", frozenset({"my-bucket", "other.bucket"})),
    ("API_AUTH", "iam", "iam"),
    ("API_AUTH", "JWT", "jwt"),
    ("MIN_SCORE", "0.5", 0.5),
    ("MIN_SCORE", "0", 0.0),
    ("MIN_SCORE", "1", 1.0),
    ("MIN_SCORE", "off", None),
    ("METRICS_NAMESPACE", "Team/Clothing", "Team/Clothing"),
    ("METRICS_NAMESPACE", "off", None),
]
BAD = [
    ("MODEL_URI", "s3://bucket"),
    ("MODEL_URI", "https://example.com/model.tflite"),
    ("INTERPRETER_THREADS", "0"),
    ("INTERPRETER_THREADS", "7"),
    ("INTERPRETER_THREADS", "two"),
    ("MAX_IMAGE_BYTES", "-1"),
    ("MAX_IMAGE_BYTES", "20MB"),
    ("MAX_IMAGE_BYTES", "104857601"),
    ("MAX_IMAGE_PIXELS", "1e6"),
    ("FETCH_TIMEOUT_S", "0"),
    ("FETCH_CONTACT", "mail (at) shop.example"),
    ("FETCH_CONTACT", "é@shop.example"),
    ("FETCH_CONTACT", "a\r\nX: y"),
    ("FETCH_CONTACT", "m" * 201),
    ("FETCH_TIMEOUT_S", "61"),
    ("FETCH_TIMEOUT_S", "nan"),
    ("TRUSTED_IMAGE_HOSTS", "example.com"),
    ("TRUSTED_IMAGE_HOSTS", "example.com:0"),
    ("TRUSTED_IMAGE_HOSTS", "example.com:65536"),
    ("TRUSTED_IMAGE_HOSTS", "http://example.com:80"),
    ("TRUSTED_IMAGE_HOSTS", "[::zz]:80"),
    ("IMAGE_BUCKETS", "Bucket"),
    ("TRUSTED_IMAGE_HOSTS", "a:80,,b:80"),
    ("IMAGE_BUCKETS", "s3://bucket"),
    ("IMAGE_BUCKETS", "a b"),
    ("API_AUTH", "true"),
    ("MIN_SCORE", "1.1"),
    ("MIN_SCORE", "nan"),
    ("MIN_SCORE", "-0.1"),
    ("METRICS_NAMESPACE", "has space"),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_good_value_is_read(name: str, text: str, value: object) -> None:
    assert getattr(Settings.from_environment({name: text}), name.lower()) == value


@pytest.mark.parametrize(("name", "text"), BAD)
def test_bad_value_is_named_with_what_is_allowed(name: str, text: str) -> None:
    allowed = next(v.allowed for v in VARIABLES if v.name == name).replace("`", "")
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({name: text})
    assert str(caught.value) == f"{name} must be {allowed}. Received: {text!r}"


def test_every_variable_has_a_good_and_a_bad_example() -> None:
    names = {v.name for v in VARIABLES}
    assert {name for name, *_ in GOOD} == {name for name, _ in BAD} == names


def test_nothing_set_gives_the_defaults_and_so_does_empty() -> None:
    assert Settings.from_environment({}) == Settings()
    assert Settings.from_environment({v.name: " " for v in VARIABLES}) == Settings()


@pytest.mark.parametrize(
    ("memory_mb", "threads"),
    [("128", 1), ("1769", 1), ("2048", 1), ("2653", 1), ("3008", 2), ("3538", 2), ("10240", 6)],
)
def test_threads_follow_the_function_s_memory(memory_mb: str, threads: int) -> None:
    environment = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": memory_mb}
    assert Settings.from_environment(environment).interpreter_threads == threads
    override = environment | {"INTERPRETER_THREADS": "3"}
    assert Settings.from_environment(override).interpreter_threads == 3


@pytest.mark.parametrize(
    ("memory_mb", "pixels"),
    [
        ("", 50_000_000),
        ("128", 1_000_000),
        ("512", 12_600_000),  # 252 MB for pixels, 20 bytes each
        ("1259", 49_950_000),
        ("1769", 50_000_000),
        ("10240", 50_000_000),
    ],
)
def test_pixels_follow_the_function_s_memory_too(memory_mb: str, pixels: int) -> None:
    environment = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": memory_mb}
    assert Settings.from_environment(environment).max_image_pixels == pixels
    override = environment | {"MAX_IMAGE_PIXELS": "7"}
    assert Settings.from_environment(override).max_image_pixels == 7


@pytest.mark.parametrize(
    ("memory_mb", "parallel"), [("", 16), ("512", 4), ("1768", 4), ("1769", 16)]
)
def test_parallel_downloads_follow_the_function_s_memory(memory_mb: str, parallel: int) -> None:
    environment = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": memory_mb}
    assert Settings.from_environment(environment).parallel_downloads == parallel


def test_lambda_s_own_variables_are_read() -> None:
    settings = Settings.from_environment(
        {"AWS_LAMBDA_FUNCTION_NAME": "clothes", "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001"}
    )
    assert settings.function_name == "clothes"


def test_documentation_lists_exactly_these_variables() -> None:
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    expected = [f"| `{v.name}` | {v.default} | {v.allowed} | {v.meaning} |" for v in VARIABLES]
    assert rows == expected
