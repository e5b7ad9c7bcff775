"""`make predict`: one image or many, with the real handler and without a server."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from lambda_function import REPOSITORY, app, example_image
from tests.conftest import TINY_MAP_MODEL, TINY_MODEL, encode_image
from tests.support.processes import run_python
from tools import predict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.image_server import ImageServer


@pytest.fixture
def _tiny_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process serve the tiny model, which tells colours apart."""
    monkeypatch.setenv("MODEL_URI", str(TINY_MODEL))
    app.process_service.cache_clear()
    yield
    app.process_service.cache_clear()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with images, a text, a hidden file and a damaged image."""
    folder = tmp_path / "my photos"
    (folder / "more").mkdir(parents=True)
    (folder / "a red.png").write_bytes(encode_image("red"))
    (folder / "more" / "blue without an ending").write_bytes(encode_image("blue"))
    (folder / "cut.png").write_bytes(encode_image("lime")[:60])
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(encode_image("red"))
    return folder


def names(files: list[Path]) -> list[str]:
    return [path.name for path in files]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "MODEL_URI": str(TINY_MODEL)}
    return run_python("-m", "tools.predict", *arguments, env=clean | environment)


def test_a_folder_stands_for_the_images_in_it_and_below_it(photos: Path) -> None:
    files, left_out = predict.find_files([str(photos)])

    assert names(files) == ["a red.png", "cut.png", "blue without an ending"]
    assert left_out == 1  # notes.txt


def test_a_pattern_stands_for_the_files_that_match_it(photos: Path) -> None:
    assert names(predict.find_files([f"{photos}/*.png"])[0]) == ["a red.png", "cut.png"]
    assert len(predict.find_files([f"{photos}/**/*blue*"])[0]) == 1


def test_several_names_may_stand_in_one_string(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"'{photos}/a red.png' '{photos}/cut.png'"

    assert names(predict.find_files([text])[0]) == ["a red.png", "cut.png"]
    monkeypatch.chdir(photos)
    longer_than_a_file_name = "cut.png " * 40
    assert names(predict.find_files([longer_than_a_file_name])[0]) == ["cut.png"]


def test_a_file_is_classified_once(photos: Path) -> None:
    path = str(photos / "cut.png")

    assert names(predict.find_files([path, path, f"{photos}/c*"])[0]) == ["cut.png"]


def test_a_tilde_is_the_home_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(photos))

    assert names(predict.find_files(["~/cut.png"])[0]) == ["cut.png"]
    assert names(predict.find_files(["~/*red*"])[0]) == ["a red.png"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/nowhere/a.png", "There is no file /nowhere/a.png."),
        ("it's", "There is no file it's."),
        ("~nobody-of-this-name/a.png", "There is no file ~nobody-of-this-name/a.png."),
        ("a" * 300, f"There is no file {'a' * 300}."),
        ("/nowhere/*.png", "No file matches /nowhere/*.png."),
    ],
)
def test_a_name_of_nothing_is_refused(name: str, said: str) -> None:
    with pytest.raises(predict.InputError) as refused:
        predict.find_files([name])

    assert str(refused.value) == said


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")

    with pytest.raises(predict.InputError, match=f"There is no image in the folder {tmp_path}"):
        predict.find_files([str(tmp_path)])


@pytest.mark.usefixtures("_tiny_model")
def test_several_images_give_one_line_each(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([str(photos)]) == 1  # one is damaged

    printed = capsys.readouterr()
    red, cut, blue = printed.out.splitlines()
    assert red == f"{photos}/a red.png  red  99.99%"
    assert cut.startswith(f"{photos}/cut.png  ") and cut.endswith("(undecodable_image)")
    assert blue.startswith(f"{photos}/more/blue without an ending  blue  ")
    assert printed.err == "Files left out because they are no images: 1.\n"


@pytest.mark.parametrize("output", ["text", "json", "csv"])
def test_a_file_name_that_is_no_text_is_printed(tmp_path: Path, output: str) -> None:
    (tmp_path / os.fsdecode(b"f\xff.png")).write_bytes(encode_image("red"))

    done = command(str(tmp_path), "--format", output, PYTHONIOENCODING="utf-8")

    assert done.returncode == 0, done.stderr
    assert r"f\udcff.png" in done.stdout


@pytest.mark.usefixtures("_tiny_model")
def test_csv_has_a_row_per_image(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict.main([str(photos), "--format", "csv"])

    red, cut, _ = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (red["image"], red["label"], red["error"]) == (f"{photos}/a red.png", "red", "")
    assert 0.99 < float(red["score"]) < 1
    assert (cut["label"], cut["score"]) == ("", "")
    assert "undecodable_image" in cut["error"]


@pytest.mark.usefixtures("_tiny_model")
def test_json_has_the_response_of_each_image_on_a_line(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict.main([str(photos), "--format", "json"])

    red, cut, _ = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert red["predictions"][0]["label"] == "red"
    assert red["model"] == {"name": "tiny", "version": "1.2.3"}
    assert (cut["image"], cut["code"]) == (f"{photos}/cut.png", "undecodable_image")


@pytest.mark.usefixtures("_tiny_model")
def test_a_file_that_cannot_be_read_does_not_stop_the_others(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken link.png").symlink_to("/nowhere.png")

    assert predict.main([f"{photos}/b*", str(photos / "a red.png")]) == 1

    broken, red = capsys.readouterr().out.splitlines()
    assert "Cannot read" in broken and "No such file" in broken
    assert " red " in red


def test_one_image_gives_bars_timings_and_the_model(photos: Path) -> None:
    path = str(photos / "a red.png")

    ended = command(path)

    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0] == path
    assert lines[2].split() == ["red", "99.99%", "#" * 30]
    assert [line.split()[0] for line in lines[2:6]] == ["red", "dark", "green", "blue"]
    assert "  model tiny 1.2.3" in lines
    assert lines[-1].split()[0] == "ms" and "inference" in lines[-1]


def test_a_url_is_fetched_and_classified(server: ImageServer) -> None:
    ended = command("--url", server.url("/blue.png"), TRUSTED_IMAGE_HOSTS=server.host)

    assert ended.returncode == 0
    assert ended.stdout.splitlines()[2].split()[0] == "blue"


def test_without_arguments_the_example_is_classified() -> None:
    assert command().stdout.splitlines()[0] == f"examples/{example_image().name}"


def test_a_reader_that_has_enough_ends_the_command_quietly(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(encode_image("red"))
    code = f"{sys.executable} -m tools.predict {tmp_path} --format json | head -n 1"
    # Without a buffer each line is written at once, so the pipe is closed early.
    environment = {
        **{"PATH": os.environ["PATH"], "MODEL_URI": str(TINY_MODEL)},
        "PYTHONUNBUFFERED": "1",
    }

    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", code],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert json.loads(ended.stdout)["predictions"][0]["label"] == "red"
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--url", "http://127.0.0.1:1/a.png"], {}, "address_not_allowed"),
        (["--url", "nonsense"], {}, "bad_request"),
        (["/nowhere.png"], {}, "There is no file /nowhere.png."),
        ([__file__], {}, "unsupported_image"),
        ([], {"MIN_SCORE": "high"}, "Cannot start: MIN_SCORE must be number, 0 to 1. Received"),
        ([], {"MODEL_URI": "/nowhere.tflite"}, "the model /nowhere.tflite cannot be read (No such"),
        ([], {"MODEL_URI": __file__}, f"Cannot start: {__file__}: the file holds no labels"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_status_1(
    arguments: list[str], environment: dict[str, str], said: str
) -> None:
    ended = command(*arguments, **environment)

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_an_explanation_is_drawn_over_one_image(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.png"
    done = command(
        str(photos / "a red.png"), "--explain", str(output), MODEL_URI=str(TINY_MAP_MODEL)
    )

    assert done.returncode == 0, done.stderr
    assert "red" in done.stdout
    assert f"Wrote {output}." in done.stderr
    with Image.open(output) as overlay, Image.open(photos / "a red.png") as original:
        assert overlay.size == original.size


@pytest.mark.parametrize(
    ("images", "output", "model", "said"),
    [
        (["a red.png"], "out.png", TINY_MODEL, "The model has no activation map"),
        (["a red.png", "cut.png"], "out.png", TINY_MAP_MODEL, "one image file"),
        ([""], "out.png", TINY_MAP_MODEL, "one image file"),  # the folder
        (["cut.png"], "out.png", TINY_MAP_MODEL, "cannot be decoded"),
        (["a red.png"], "out.txt", TINY_MAP_MODEL, "must end in .png or .jpg"),
        (["a red.png"], "a red.png", TINY_MAP_MODEL, "another file than the image"),
        (["a red.png"], "missing/out.png", TINY_MAP_MODEL, "Cannot write"),
    ],
)
def test_an_explanation_that_cannot_be_drawn_says_why(
    photos: Path, images: list[str], output: str, model: Path, said: str
) -> None:
    before = (photos / "a red.png").read_bytes()
    paths = [str(photos / name) for name in images]

    done = command(*paths, "--explain", str(photos / output), MODEL_URI=str(model))

    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert (photos / "a red.png").read_bytes() == before
