"""Where the model sees a class: grid and box worked out by hand, and every way to ask for them.

The map of tests/data/tiny_map.tflite has 4x6 cells. A red cell has 12 for "red", a black cell 4, a
green or blue cell -4.
"""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from lambda_function.classifier import Classifier
from lambda_function.explanation import explain_class
from lambda_function.service import Service
from lambda_function.settings import Settings
from tests.conftest import Api, encode_image
from tests.support.images import encode
from tests.support.requests import check_problem, post_form

ALLOWED = "one of the labels red, green, blue, dark"


@pytest.fixture
def explaining(tiny_map: Classifier) -> Api:
    """The handler with a model that has a map. Every URL is a red image."""
    return Api(Service(Settings(), tiny_map, fetch=lambda *_, **__: encode_image("red")))


def one_red_block(orientation: int = 1) -> bytes:
    """Return a black portrait of 120x240 pixels with red at 40..80 from left, 60..120 from top."""
    image = Image.new("RGB", (120, 240), "black")
    image.paste("red", (40, 60, 80, 120))
    exif = Image.Exif()
    exif[0x0112] = orientation
    if orientation == 6:  # a viewer rotates it clockwise, so it is stored rotated the other way
        image = image.transpose(Image.Transpose.ROTATE_90)
    return encode(image, exif=exif)


# --- grid and box -----------------------------------------------------------------------------


def test_negative_cells_become_zero_and_the_largest_one() -> None:
    found = explain_class(np.array([[-3, 2], [4, 1]], np.float32), "hat", (20, 30))

    assert found.to_dict() == {
        "label": "hat",
        "grid": [[0.0, 0.5], [1.0, 0.25]],
        "box": [0, 0, 30, 20],  # cells of exactly half the maximum are inside
    }


@pytest.mark.parametrize(
    ("rows", "size", "box"),
    [
        # Cells of 10x10 pixels.
        ([[0, 0, 0], [0, 0, 8]], (20, 30), [20, 10, 30, 20]),
        ([[8, 0, 0], [0, 3.9, 0]], (20, 30), [0, 0, 10, 10]),
        ([[8, 0, 0], [0, 0, 4]], (20, 30), [0, 0, 30, 20]),
        # Cells of 33.3 x 12.5 pixels: the box grows to whole pixels.
        ([[0, 0, 0], [0, 8, 0], [0, 0, 0], [0, 0, 0]], (50, 100), [33, 12, 67, 25]),
        # An image of fewer pixels than cells.
        ([[0, 0, 0], [0, 8, 0], [0, 0, 0]], (1, 2), [0, 0, 2, 1]),
        ([[0, 0], [0, -5]], (20, 30), None),
        ([[-1, -2], [-3, -5]], (20, 30), None),
    ],
)
def test_the_box_surrounds_cells_of_at_least_half_the_maximum(
    rows: list[list[float]], size: tuple[int, int], box: list[int] | None
) -> None:
    assert explain_class(np.array(rows, np.float32), "hat", size).to_dict()["box"] == box


def test_a_map_of_zeros_has_a_grid_of_zeros() -> None:
    assert explain_class(np.zeros((1, 2), np.float32), "hat", (9, 9)).grid == ((0.0, 0.0),)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_an_error(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        explain_class(np.array([[0, value]], np.float32), "hat", (9, 9))


# --- responses --------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_box_is_in_pixels_of_the_upright_original(explaining: Api, orientation: int) -> None:
    body = {"image": base64.b64encode(one_red_block(orientation)).decode(), "explain": "red"}
    explanation = explaining.invoke(body)["explanation"]

    assert explanation["label"] == "red"
    assert explanation["box"] == [40, 60, 80, 120]
    grid = np.array(explanation["grid"])
    assert grid.shape == (4, 6)
    np.testing.assert_allclose(grid[1, 2:4], 1, atol=1e-3)
    assert (grid >= 0.5).sum() == 2


def test_a_class_that_nothing_speaks_for_has_no_box(explaining: Api) -> None:
    explanation = explaining.invoke({"url": "https://x", "explain": "green"})["explanation"]

    assert explanation == {"label": "green", "grid": [[0.0] * 6] * 4, "box": None}


def ask(api: Api, way: str, explain: str) -> Any:
    """Ask for an explanation in one of the ways. "1" means the best class."""
    value: bool | str = True if explain == "1" else explain
    image = encode_image("red")
    match way:
        case "json":
            return api.post_json({"url": "https://x", "explain": value}).json
        case "query":
            return api.get("/predict", url="https://x", explain=explain).json
        case "query of a raw body":
            query = urlencode({"explain": explain})
            return api.send(
                "POST", "/predict", query=query, body=image, content_type="image/png"
            ).json
        case "form":
            return post_form(api, ("image", image), ("explain", explain.encode())).json
        case _:
            return api.invoke({"url": "https://x", "explain": value})


@pytest.mark.parametrize(("explain", "label"), [("1", "red"), ("dark", "dark")])
@pytest.mark.parametrize("way", ["json", "query", "query of a raw body", "form", "direct"])
def test_every_way_in_can_ask_for_the_best_class_or_a_label(
    explaining: Api, way: str, explain: str, label: str
) -> None:
    body = ask(explaining, way, explain)

    assert body["explanation"]["label"] == label
    # A red cell has -2 + 2 + 2 for "dark". The model's bias is not in the map.
    assert body["explanation"]["grid"] == [[1.0] * 6] * 4
    assert body["predictions"][0]["label"] == "red"


@pytest.mark.parametrize("count", [1, 4])
def test_each_image_of_a_batch_is_explained(explaining: Api, count: int) -> None:
    urls = [f"https://x/{number}" for number in range(count)]
    by_url = explaining.post_json({"urls": urls, "explain": True}).json["results"]

    assert [item["explanation"]["label"] for item in by_url] == ["red"] * count


def test_images_of_a_form_have_explanations_of_their_own(explaining: Api) -> None:
    parts = [("image", encode_image("red")), ("image", b"none"), ("image", encode_image("blue"))]
    red, broken, blue = post_form(explaining, *parts, ("explain", b"1")).json["results"]

    assert [part["explanation"]["label"] for part in (red, blue)] == ["red", "blue"]
    assert set(broken) == {"error"}


@pytest.mark.parametrize("explain", [{}, {"explain": False}])
def test_nothing_is_explained_unless_asked(explaining: Api, explain: dict[str, bool]) -> None:
    urls = [f"https://x/{number}" for number in range(5)]

    body = explaining.invoke({"url": "https://x", **explain})
    batch = explaining.invoke({"urls": urls, **explain})

    assert list(body) == ["predictions", "model", "timings_ms", "request_id"]
    assert [set(item) for item in batch["results"]] == [{"predictions", "timings_ms"}] * 5


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["hat", "", "true", "0", 1, None, ["red"], {"red": 1}, "Red"])
def test_a_label_that_does_not_exist_is_400_with_the_labels(explaining: Api, value: Any) -> None:
    detail = check_problem(
        explaining.post_json({"url": "https://x", "explain": value}), 400, "bad_request"
    )

    assert ALLOWED in detail
    assert f"Received: {'null' if value is None else repr(value)}" in detail


@pytest.mark.parametrize("value", ["hat", "true", "0", "False", ""])
def test_a_query_and_a_form_take_1_or_a_label(explaining: Api, value: str) -> None:
    replies = [
        explaining.get("/predict", url="https://x", explain=value),
        post_form(explaining, ("image", encode_image("red")), ("explain", value.encode())),
    ]
    for reply in replies:
        detail = check_problem(reply, 400, "bad_request")
        assert "1 in a query or form" in detail
        assert ALLOWED in detail


@pytest.mark.parametrize("value", [True, "red", "hat"])
def test_a_model_without_a_map_is_400_and_says_so(api: Api, value: bool | str) -> None:
    reply = api.post_json({"url": "https://x", "explain": value})

    detail = check_problem(reply, 400, "bad_request")
    assert "The model has no activation map" in detail
    assert "set it to false" in detail


def test_a_model_without_a_map_takes_explain_false(api: Api, server: Any) -> None:
    assert "explanation" not in api.invoke({"url": server.url("/red.png"), "explain": False})


def test_a_larger_batch_is_400_with_the_limit(explaining: Api) -> None:
    urls = [f"https://x/{number}" for number in range(5)]
    images = [("image", encode_image("red"))] * 5
    replies = [
        explaining.post_json({"urls": urls, "explain": True}),
        post_form(explaining, *images, ("explain", b"red")),
    ]
    for reply in replies:
        detail = check_problem(reply, 400, "bad_request")
        assert "At most 4 images of one request are explained. Received: 5" in detail


def test_of_many_labels_the_message_shows_the_first(tiny_map: Classifier) -> None:
    import dataclasses

    from lambda_function.errors import BadRequestError
    from lambda_function.http.request_body import read_fields

    labels = tuple(f"class {number}" for number in range(1000))
    many = dataclasses.replace(tiny_map.metadata, labels=labels)
    with pytest.raises(BadRequestError, match=r"class 0, .*, class 99 and 900 more \(GET /model\)"):
        read_fields({"url": "https://x", "explain": "no"}, many)
