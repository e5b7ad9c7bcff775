"""The map of what speaks for a class lies where it belongs, and each class has a switch.

The served model sees a class in the cells of its colour (tests/support/make_tiny_model.py).
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import TINY_MODEL, Demo, box, serve
from tests.browser.test_errors import gateway_says
from tests.support.images import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Locator, Route

    from tools.image_server import ImageServer

pytestmark = pytest.mark.browser
RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)
ORIENTATION_TAG = 0x0112  # EXIF
# What a camera stores for each orientation: the upright image turned back.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,  # counter-clockwise. The viewer turns clockwise
    8: Image.Transpose.ROTATE_270,
}


def draw(size: tuple[int, int], *spots: tuple[tuple[int, int, int], float, float]) -> Image.Image:
    """Draw (height, width) in white, with spots of a colour at shares of (height, width)."""
    height, width = size
    pixels = np.full((height, width, 3), WHITE, np.uint8)
    for colour, y, x in spots:
        top, left = int((y - 0.12) * height), int((x - 0.12) * width)
        pixels[max(0, top) : int((y + 0.12) * height), max(0, left) : int((x + 0.12) * width)] = (
            colour
        )
    return Image.fromarray(pixels)


def upload(image: Image.Image, orientation: int = 1) -> dict[str, Any]:
    """Return an upright image as a JPEG file that is stored in an orientation."""
    turned = STORED[orientation]
    stored = image if turned is None else image.transpose(turned)
    exif = stored.getexif()
    exif[ORIENTATION_TAG] = orientation
    data = encode(stored, "JPEG", quality=95, exif=exif)
    return {"name": "spots.jpg", "mimeType": "image/jpeg", "buffer": data}


TWO_SPOTS = upload(draw((300, 400), (RED, 0.2, 0.2), (GREEN, 0.8, 0.8)))


@pytest.fixture
def demo(new_demo: Callable[..., Demo], map_origin: str) -> Iterator[Demo]:
    """Open the page of a model with a map."""
    found = new_demo()
    found.origin = map_origin
    found.open()
    yield found
    assert found.violations() == []


def classify(demo: Demo, file: dict[str, Any] = TWO_SPOTS) -> list[tuple[str, str]]:
    demo.page.set_input_files("#file", file)
    return demo.answer()


def switch(demo: Demo, label: str) -> Locator:
    return demo.page.get_by_role("switch", name=f"Show what speaks for {label}", exact=True)


def words(demo: Demo) -> str:
    return demo.page.locator("#why-text").inner_text()


def set_opacity(demo: Demo, percent: int) -> None:
    demo.page.locator("#opacity").fill(str(percent))


def pixels_of(demo: Demo) -> np.ndarray[Any, Any]:
    """Return what is seen of the image and its map, float, (height, width, 3), 0..255."""
    shot = demo.page.locator(".image").screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), float)


def centre(weights: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return the centre of mass, as shares of (height, width)."""
    rows, columns = np.indices(weights.shape) + 0.5
    height, width = weights.shape
    total = weights.sum()
    return (rows * weights).sum() / total / height, (columns * weights).sum() / total / width


@pytest.mark.parametrize(
    ("size", "orientation"),
    [((300, 400), 1), ((400, 300), 1), *(((300, 420), n) for n in STORED if n > 1)],
)
def test_map_lies_over_what_speaks_for_the_class(
    demo: Demo, size: tuple[int, int], orientation: int
) -> None:
    y, x = 0.14, 0.8
    assert classify(demo, upload(draw(size, (RED, y, x)), orientation))
    switch(demo, "red").check()
    demo.page.locator("#why-text", has_text="“red”").wait_for()
    assert "“red” is at the top right of the image." in words(demo)
    assert box(demo, "#map") == pytest.approx(box(demo, "#preview"), abs=0.1)

    set_opacity(demo, 0)
    plain = pixels_of(demo)
    set_opacity(demo, 100)
    changed = np.abs(pixels_of(demo) - plain).sum(axis=2)

    height, width = plain.shape[:2]
    assert width / height == pytest.approx(size[1] / size[0], rel=0.02)  # upright
    red = (plain[..., 0] > 200) & (plain[..., 1] < 80)
    assert centre(red) == pytest.approx((y, x), abs=0.02)
    # a cell has a sixth of the width, a fourth of the height
    assert centre(changed > 60) == pytest.approx((y, x), abs=0.08)


def test_each_class_has_a_switch_and_is_asked_for_once(demo: Demo) -> None:
    asked: list[str] = []
    demo.page.on("request", lambda request: asked.append(request.url + (request.post_data or "")))
    best = classify(demo)[0][0]
    assert switch(demo, best).is_checked()
    assert asked[-1].startswith(demo.origin + "/predict?explain=1")
    assert f"“{best}”" in words(demo)

    other = "green" if best == "red" else "red"
    switch(demo, other).click()
    demo.page.locator("#why-text", has_text=f"most for “{other}”").wait_for()
    assert switch(demo, other).is_checked()
    assert not switch(demo, best).is_checked()
    assert asked[-1].startswith(demo.origin + "/predict{")
    assert json.loads(asked[-1].removeprefix(demo.origin + "/predict"))["explain"] == other

    count = len(asked)
    switch(demo, best).click()
    assert f"most for “{best}”" in words(demo)
    switch(demo, best).click()
    assert demo.page.locator("#map").is_hidden()
    assert demo.page.locator("#mix").is_hidden()
    assert "Switch a class on" in words(demo)
    assert demo.page.get_by_role("switch", checked=True).count() == 0
    assert len(asked) == count


def test_a_map_of_an_image_on_the_web_is_asked_for_by_its_address(
    demo: Demo, images: ImageServer
) -> None:
    demo.page.fill("#url", images.url("/pants.jpg"))
    with demo.page.expect_request("**/predict") as first:
        demo.page.press("#url", "Enter")
    best = demo.answer()[0][0]
    assert first.value.post_data_json == {"url": images.url("/pants.jpg"), "explain": True}
    other = "green" if best != "green" else "red"
    with demo.page.expect_request("**/predict") as second:
        switch(demo, other).click()
    assert second.value.post_data_json == {"url": images.url("/pants.jpg"), "explain": other}
    assert '"explain":true' in demo.page.locator("#curl").inner_text()


def test_what_was_switched_off_stays_off(demo: Demo) -> None:
    best = classify(demo)[0][0]
    switch(demo, best).click()
    with demo.page.expect_request("**/predict*") as request:
        demo.page.set_input_files("#file", TWO_SPOTS)
    demo.answer()
    assert request.value.url == demo.origin + "/predict"
    assert demo.page.locator("#map").is_hidden()
    assert "explain" not in demo.page.locator("#curl").inner_text()
    switch(demo, best).click()
    demo.page.locator("#map").wait_for()
    assert f"most for “{best}”" in words(demo)


def test_a_whole_row_switches(demo: Demo) -> None:
    classify(demo)
    demo.page.locator("#bars li", has_text="dark").locator(".share").click()
    demo.page.locator("#why-text", has_text="“dark”").wait_for()
    assert switch(demo, "dark").is_checked()


def test_the_keyboard_moves_switches_and_slider(demo: Demo) -> None:
    best = classify(demo)[0][0]
    switch(demo, best).focus()
    demo.page.keyboard.press("Space")
    assert not switch(demo, best).is_checked()
    demo.page.keyboard.press("Enter")
    assert switch(demo, best).is_checked()
    slider = demo.page.get_by_role("slider", name="Opacity")
    slider.focus()
    demo.page.keyboard.press("Home")
    assert opacity(demo) == ("0%", "0")
    demo.page.keyboard.press("ArrowRight")
    assert opacity(demo) == ("5%", "0.05")
    demo.page.keyboard.press("End")
    assert opacity(demo) == ("100%", "1")


def opacity(demo: Demo) -> tuple[str, str]:
    """Return the opacity as it is said and as it is."""
    said = demo.page.locator("#opacity-shown").inner_text()
    return said, demo.page.evaluate("getComputedStyle(document.getElementById('map')).opacity")


def test_a_screen_reader_hears_where_the_map_is_strongest(demo: Demo) -> None:
    best = classify(demo)[0][0]
    place = {"red": "top left", "green": "bottom right"}
    said = f"What speaks most for “{best}” is at the {place[best]} of the image."
    assert said in demo.page.get_by_role("status").inner_text()
    assert demo.page.get_by_role("img", name=said).is_visible()
    other = "green" if best == "red" else "red"
    switch(demo, other).click()
    said = f"What speaks most for “{other}” is at the {place[other]} of the image."
    demo.page.get_by_role("status").filter(has_text=said).wait_for()


def test_a_class_for_which_nothing_speaks_has_a_clear_map(demo: Demo) -> None:
    classify(demo, upload(draw((60, 60))))
    switch(demo, "blue").click()
    demo.page.locator("#why-text", has_text="Nothing in the image speaks for “blue”.").wait_for()
    set_opacity(demo, 100)
    assert pixels_of(demo)[10:-10, 10:-10].min() > 250  # the image's own white


def test_a_map_that_cannot_be_had_leaves_the_prediction(demo: Demo) -> None:
    rows = classify(demo)
    label = rows[-1][0]
    demo.page.route("**/predict", gateway_says(503, "Service Unavailable"), times=1)
    switch(demo, label).click()
    demo.page.locator("#why-text", has_text="could not be shown").wait_for()
    assert f"What speaks for “{label}” could not be shown. Service unavailable" in words(demo)
    assert not switch(demo, label).is_checked()
    assert demo.answer() == rows
    switch(demo, label).click()  # works the second time
    demo.page.locator("#map").wait_for()
    assert switch(demo, label).is_checked()


def test_the_newest_choice_wins(demo: Demo) -> None:
    classify(demo)
    demo.page.route("**/predict", lambda _: None, times=1)  # the first choice gets no response
    switch(demo, "blue").click()
    demo.page.locator("#why-text", has_text="Asking what speaks for “blue”").wait_for()
    with demo.page.expect_event("requestfailed") as given_up:
        switch(demo, "dark").click()
    assert given_up.value.failure == "net::ERR_ABORTED"
    demo.page.locator("#map").wait_for()
    assert "“dark”" in words(demo)
    assert [s.is_checked() for s in (switch(demo, "blue"), switch(demo, "dark"))] == [False, True]


def test_an_image_that_the_browser_cannot_show_has_its_map_in_words(
    demo: Demo, images: ImageServer
) -> None:
    demo.page.route(images.url("/pants.jpg"), lambda route: route.abort())
    demo.page.fill("#url", images.url("/pants.jpg"))
    demo.page.press("#url", "Enter")
    best = demo.answer()[0][0]
    demo.page.locator("#blank").wait_for()
    assert f"most for “{best}”" in words(demo)
    assert demo.page.locator("#mix").is_hidden()
    assert demo.page.locator("#map").is_hidden()


def test_an_error_takes_the_map_away(demo: Demo) -> None:
    classify(demo)
    demo.page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"a"})
    demo.problem()
    for name in ("#why", "#map", "#times", "#verdict", ".switch", "#bars li"):
        assert not demo.page.locator(name).locator("visible=true").count(), name


@pytest.mark.parametrize("size", [(4000, 1), (1, 4000), (1, 1)])
def test_a_line_of_pixels_can_be_seen(demo: Demo, size: tuple[int, int]) -> None:
    classify(demo, upload(draw(size)))
    shown, stage = box(demo, "#preview"), box(demo, "#stage")
    for side in ("width", "height"):
        assert 16 <= shown[side] < stage[side]
    assert box(demo, "#map") == pytest.approx(shown, abs=0.1)


def test_a_label_like_the_word_for_the_best_class_is_explained(
    new_demo: Callable[..., Demo], map_origin: str
) -> None:
    """In a query "1" means the best class. The page asks for a class called "1" in JSON."""
    demo = new_demo()
    demo.origin = map_origin

    def rename(route: Route) -> None:
        response = route.fetch()
        found = response.json()
        for item in found["predictions"]:
            item["label"] = {"dark": "1"}.get(item["label"], item["label"])
        route.fulfill(response=response, json=found)

    demo.page.route("**/predict?explain=1", rename)
    demo.open()
    classify(demo)
    with demo.page.expect_request("**/predict") as request:
        switch(demo, "1").click()
    assert request.value.post_data_json["explain"] == "1"


def test_a_model_without_a_map_offers_none(new_demo: Callable[..., Demo]) -> None:
    demo = new_demo()
    with serve(TINY_MODEL) as demo.origin:
        demo.open()
        with demo.page.expect_request("**/predict*") as request:
            demo.page.set_input_files("#file", TWO_SPOTS)
        demo.answer()
        assert request.value.url == demo.origin + "/predict"
        assert demo.page.get_by_role("switch").count() == 0
        assert demo.page.locator("#why").is_hidden()
        assert demo.page.locator("#map").is_hidden()
        assert "explain" not in demo.page.locator("#curl").inner_text()
        demo.page.goto(demo.origin + "/docs")
        assert demo.page.locator("#explain").is_hidden()
        assert "explain" not in demo.page.locator("main").inner_text()
