"""A file is whole or not there, whatever happens while it is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.processes import run_python
from training.files import file_name, markdown_table, replacing, write_csv, write_json


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    with pytest.raises(type(error)), replacing(path) as unfinished:
        unfinished.write_text("half")
        raise error

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_each_publish_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"

    with replacing(path) as first:
        first.write_text("first, half")
        with replacing(path) as second:
            assert second != first
            second.write_text("second")
        assert path.read_text() == "second"
        first.write_text("first, whole")

    assert path.read_text() == "first, whole"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_name_keeps_the_ending(tmp_path: Path) -> None:
    with replacing(tmp_path / "model.keras") as unfinished:
        assert unfinished.suffix == ".keras"
        unfinished.touch()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("my photo", "my-photo"),
        ("screws_1.0", "screws_1.0"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "model"),
        ("帽子", "model"),
        ("", "model"),
    ],
)
def test_any_text_gives_a_file_name(text: str, name: str) -> None:
    assert file_name(text, "model") == name


def test_labels_are_read_right_whatever_the_encoding_of_the_system_is(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", ["Stöckelschuh"])
    code = "import sys, pathlib; from training.files import read_json; "
    code += "print(ascii(read_json(pathlib.Path(sys.argv[1]))[0]))"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    done = run_python("-c", code, tmp_path / "config.json", env={**os.environ, **ascii_only})

    assert done.stdout == "'St\\xf6ckelschuh'\n", done.stderr


def test_a_bar_in_a_class_name_makes_no_column_of_a_table() -> None:
    table = markdown_table(["class", "images:"], [["nut|bolt", 3]])

    assert table == "| class | images |\n| --- | ---: |\n| nut\\|bolt | 3 |\n"


def test_a_table_is_written_with_its_columns_in_order(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", ["b", "a"], [{"a": 1, "b": "x, y"}, {"a": 2, "b": "é"}])

    assert (tmp_path / "rows.csv").read_text(encoding="utf-8") == 'b,a\n"x, y",1\né,2\n'
