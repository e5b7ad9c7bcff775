"""What the pages say of the model comes from the artifact."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from lambda_function.http import pages
from lambda_function.metadata import read_metadata
from tests.support.paths import TESTS

METADATA = dataclasses.replace(
    read_metadata(TESTS / "data" / "tiny.tflite"),
    name="screws",
    version="7",
    title="Which screw is it?",
    subject="screw",
    licence="not stated",
    labels=("M3 & M4", 'the "long" one'),
)
PATHS = ("/", "/docs", "/openapi.json")


def test_title_and_subject_are_the_artifacts():
    page = pages.serve("/", METADATA).body

    assert "<title>Which screw is it?</title>" in page
    assert "<h1>Which screw is it?</h1>" in page
    assert "an image of one screw." in page


def test_an_artifact_without_a_subject_asks_for_an_image():
    page = pages.serve("/", dataclasses.replace(METADATA, subject="image")).body

    assert "Give an image. A small neural network" in page


@pytest.mark.parametrize("path", PATHS)
def test_no_page_speaks_of_another_model(path):
    text = pages.serve(path, METADATA).body

    assert "{{" not in text
    words = re.sub(r"// examples/.*\nconst EXAMPLE_WEBP = .*", "", text).lower()
    shop = ("garment", "cloth", "pants", "jeans", "denim", "pocket")
    assert not [word for word in shop if word in words]


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize(("model", "shown"), [("tiny", "no"), ("tiny_map", "yes")])
def test_pages_know_whether_the_model_has_a_map(path, model, shown):
    metadata = read_metadata(TESTS / "data" / f"{model}.tflite")

    assert f'data-map="{shown}"' in pages.serve(path, metadata).body


def test_words_of_an_artifact_are_escaped():
    evil = dataclasses.replace(METADATA, title="<script>alert(1)</script>", subject='x" onload="')

    page = pages.serve("/", evil).body

    assert "<script>alert" not in page
    assert 'onload="' not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    before = pages.serve("/", METADATA).headers["content-security-policy"]
    assert pages.serve("/", evil).headers["content-security-policy"] == before


def test_the_api_description_stays_json():
    document = json.loads(pages.serve("/openapi.json", METADATA).body)

    assert document["info"]["title"] == "screws"
    assert document["info"]["description"].startswith("Which screw is it? ")
    assert document["info"]["license"]["name"] == "not stated"
    assert 'the "long" one' not in json.dumps(document["paths"])
    assert "M3 & M4" in json.dumps(document)
    assert "M3 &amp; M4" in pages.serve("/docs", METADATA).body
