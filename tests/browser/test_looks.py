"""Phone and desktop, light and dark, still and moving. Also makes screenshots for the README.

``WRITE_SCREENSHOTS=1 make test-browser ARGS="-k screenshot"`` writes docs/images/demo*.png.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from lambda_function.metadata import read_metadata
from tests.browser.conftest import PANTS, REPOSITORY, SHIPPED_MODEL, Demo, box, serve

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.browser
RUN_PORT = 8080  # of `make run`, for the command in the screenshot
IMAGES = REPOSITORY / "docs" / "images"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
SMALLEST = PHONE | {"viewport": {"width": 320, "height": 568}}
ZOOMED = {"viewport": {"width": 600, "height": 430}}  # 1200 x 860 at 200 %
STATES = ["idle", "answer", "error", "locked", "map", "docs", "response"]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture
def bring_to(map_origin: str) -> Callable[[Demo, str], None]:
    """Return what brings a page into one of ``STATES``. The last three have a map."""

    def bring(demo: Demo, state: str) -> None:
        if state in ("map", "docs", "response"):
            demo.origin = map_origin
        _bring_to(demo, state)

    return bring


def _bring_to(demo: Demo, state: str) -> None:
    if state in ("docs", "response"):
        demo.page.goto(demo.origin + "/docs")
        demo.page.locator("#explain option[value=dark]").wait_for(state="attached")
        if state == "response":
            demo.page.locator("#explain").select_option("dark")
            demo.page.set_input_files("#file", PANTS)
            demo.page.get_by_role("button", name="Send").click()
            demo.page.locator("#status", has_text="HTTP 200").wait_for()
        return
    if state == "locked":
        demo.page.route("**/model", lambda route: route.fulfill(status=401, json={}))
        demo.page.goto(demo.origin)
        demo.page.locator("#locked").wait_for()
        return
    demo.open()
    if state in ("answer", "map"):
        demo.page.set_input_files("#file", PANTS)
        demo.answer()
        demo.page.wait_for_timeout(900)  # the bars' growth
    if state == "error":
        name = "long" * 40 + ".txt"
        demo.page.set_input_files("#file", {"name": name, "mimeType": "text/plain", "buffer": b""})
        demo.problem()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("device", "viewports"),
    [({}, [ZOOMED]), (PHONE, [PHONE, SMALLEST])],
    ids=["desktop", "phone"],
)
def test_axe_finds_nothing_and_small_screens_never_scroll_sideways(
    new_demo: Callable[..., Demo],
    bring_to: Callable[[Demo, str], None],
    state: str,
    device: dict[str, Any],
    viewports: list[dict[str, Any]],
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    demo = new_demo(reduced_motion="reduce", **device)
    bring_to(demo, state)
    options = {"runOnly": {"type": "tag", "values": RULES}}
    for scheme in ("light", "dark"):
        demo.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found = axe.run(demo.page, options=options).response
        assert len(found["passes"]) > 15  # it did look
        assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []
    for viewport in (each["viewport"] for each in viewports):
        demo.page.set_viewport_size(viewport)
        wide = demo.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1] == viewport["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_on_the_stage_has_contrast(new_demo: Callable[..., Demo], scheme: str) -> None:
    """Axe leaves out what stands on a gradient: WCAG's formula against both of its ends."""
    demo = new_demo(color_scheme=scheme)
    demo.open()
    names = ["--stage", "--stage-deep", "--stage-ink", "--stage-soft"]
    top, bottom, *inks = demo.page.evaluate(
        "(names) => names.map((n) => getComputedStyle(document.body).getPropertyValue(n))", names
    )
    for ink in inks:
        for ground in (top, bottom):
            assert contrast(ink, ground) >= 4.5


def contrast(one: str, other: str) -> float:
    """Return WCAG 2's contrast ratio of two colours, ``#rrggbb``."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour.strip()[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_it_follows_the_systems_scheme(
    new_demo: Callable[..., Demo], scheme: str, dark: bool
) -> None:
    demo = new_demo(color_scheme=scheme)
    demo.open()
    colours = demo.page.evaluate(
        "[document.body, document.querySelector('.card')].map("
        "(e) => getComputedStyle(e).backgroundColor)"
    )
    for colour in colours:
        red = int(colour.removeprefix("rgb(").split(",")[0])
        assert (red < 60) if dark else (red > 200)


def test_a_phone_is_taken_to_the_answer(new_demo: Callable[..., Demo]) -> None:
    demo = new_demo(**PHONE)
    demo.open()
    demo.page.set_input_files("#file", PANTS)
    demo.answer()
    demo.wait(
        "(() => { const { top } = document.getElementById('verdict').getBoundingClientRect();"
        " return top > 0 && top < innerHeight / 2; })()"
    )


@pytest.mark.parametrize("device", [PHONE, SMALLEST, ZOOMED], ids=["390px", "320px", "zoomed"])
def test_the_image_stays_in_sight_and_covers_no_focus(
    new_demo: Callable[..., Demo], bring_to: Callable[[Demo, str], None], device: dict[str, Any]
) -> None:
    demo = new_demo(reduced_motion="reduce", **device)
    bring_to(demo, "map")
    demo.page.locator("#ids").scroll_into_view_if_needed()
    assert box(demo, "#stage")["y"] == 0
    demo.page.locator("#opacity").focus()
    for _ in range(4):  # upwards, from the slider to the first class
        demo.page.keyboard.press("Shift+Tab")
        stage, switch = box(demo, "#stage"), box(demo, ".switch:focus")
        assert stage["y"] + stage["height"] <= switch["y"] < device["viewport"]["height"]
    assert demo.page.locator(".switch").first.evaluate("(e) => e === document.activeElement")


def test_a_phone_is_asked_for_a_photo(new_demo: Callable[..., Demo]) -> None:
    demo = new_demo(**PHONE)
    demo.open()
    subject = read_metadata(SHIPPED_MODEL).subject
    assert demo.page.locator("#invite").inner_text() == f"Photograph one {subject}"
    with demo.page.expect_file_chooser() as chooser:
        demo.page.tap("#choose")
    assert chooser.value.element.get_attribute("accept") == "image/*"


def test_nothing_moves_for_who_asked_for_stillness(new_demo: Callable[..., Demo]) -> None:
    styles = "getComputedStyle(document.querySelector(%r)).%s"
    for motion, duration, name in (
        ("reduce", "0s", "none"),
        ("no-preference", "0.7s", "sheen"),
    ):
        demo = new_demo(reduced_motion=motion)
        demo.open()
        demo.page.route("**/predict*", lambda _: None)
        demo.page.set_input_files("#file", PANTS)
        demo.page.locator(".busy").wait_for()
        assert demo.page.evaluate(styles % (".fill", "transitionDuration")) == duration
        assert demo.page.evaluate(styles % (".track", "animationName")) == name


@pytest.mark.release
@pytest.mark.parametrize(("scheme", "name"), [("light", "demo.png"), ("dark", "demo-dark.png")])
def test_screenshot_for_the_readme(new_demo: Callable[..., Demo], scheme: str, name: str) -> None:
    if os.environ.get("WRITE_SCREENSHOTS") != "1":
        pytest.skip("screenshots are written when asked for: WRITE_SCREENSHOTS=1")
    viewport = {"width": 1120, "height": 1000}
    demo = new_demo(color_scheme=scheme, viewport=viewport, device_scale_factor=1.5)
    with serve(SHIPPED_MODEL, port=RUN_PORT) as demo.origin:
        demo.open()
        for _ in range(3):  # the first inference is the slowest
            demo.page.set_input_files("#file", PANTS)
            assert demo.answer()[0][0] == "pants"
        demo.page.wait_for_timeout(900)  # the bars' growth
        shot = Image.open(io.BytesIO(demo.page.screenshot(full_page=True))).convert("RGB")
    IMAGES.mkdir(parents=True, exist_ok=True)
    shot.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)
    assert (IMAGES / name).stat().st_size < 300_000
