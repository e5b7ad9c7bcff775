"""The student's page: its Python clients run against Lambda's emulator, as they are printed."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator

import pytest

from lambda_function import REPOSITORY
from tools.emulator import EXAMPLE, HANDLER, Emulator
from tools.image_server import ImageServer, Resource

PAGE = (REPOSITORY / "docs" / "from-the-course.md").read_text()
CLIENTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PAGE_ADDRESS = "http://localhost:8080"
PAGE_IMAGE = "https://example.com/pants.jpg"


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """Start the emulator and an image server. Map the page's addresses to theirs."""
    with ImageServer({"/pants.jpg": Resource(EXAMPLE.read_bytes())}) as images:
        settings = {"TRUSTED_IMAGE_HOSTS": images.host}
        with Emulator(HANDLER, env=settings) as emulator:
            base = emulator.url.partition("/2015-03-31")[0]
            yield {PAGE_ADDRESS: base, PAGE_IMAGE: images.url("")}


def run(client: str, addresses: dict[str, str], image: str) -> str:
    """Run a client of the page with an image of the server, and return what it printed."""
    for printed, real in {**addresses, PAGE_IMAGE: addresses[PAGE_IMAGE] + image}.items():
        assert printed in client
        client = client.replace(printed, real)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(client, {})  # noqa: S102 (our own page)
    return shown.getvalue()


@pytest.mark.release
@pytest.mark.emulator
@pytest.mark.parametrize("client", CLIENTS, ids=["requests", "boto3"])
def test_a_client_prints_the_label_of_the_image(client: str, addresses: dict[str, str]) -> None:
    assert run(client, addresses, "/pants.jpg") == "pants\n"


@pytest.mark.emulator
@pytest.mark.parametrize("client", CLIENTS, ids=["requests", "boto3"])
def test_a_client_says_why_there_is_no_prediction(client: str, addresses: dict[str, str]) -> None:
    with pytest.raises(SystemExit, match="server answered 404"):
        run(client, addresses, "/missing.jpg")
