"""Files that are either whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to. Rename it to ``path`` at the end, or remove it on any error.

    A full disk, an error or an interrupt leaves the file at ``path`` as it was. The temporary name
    is unique, so two writers of one file each publish a whole file. It ends as ``path`` does,
    because Keras and Pillow choose the format by the ending.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished-{secrets.token_hex(8)}-{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write plain JSON types, indented, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds. It is UTF-8, whatever the system's encoding is.

    Raises:
        ValueError: it is not JSON.
        OSError: it cannot be read.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table, whole or not at all.

    Args:
        path: of the file.
        columns: the names of the columns, in order.
        rows: one mapping from every column to its value per line.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as Markdown, with a line break at its end.

    Args:
        columns: their titles. A title that ends with a colon is aligned to the right.
        rows: one sequence of cells per line. A bar in a cell, as of a class name, is escaped.
    """
    titles = [title.removesuffix(":") for title in columns]
    marks = ["---:" if title.endswith(":") else "---" for title in columns]
    lines = [titles, marks, *rows]
    cells = ([str(cell).replace("|", r"\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def file_name(text: str, otherwise: str) -> str:
    """Return a text with each run of other characters than letters, digits, ._- as one hyphen.

    Args:
        text: any.
        otherwise: what to return if nothing is left, as with a name in another script.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or otherwise


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_marked(text: str, marks: tuple[str, str], block: str) -> str:
    """Return the text with what is between two marks replaced.

    Args:
        text: holds the marks, each once.
        marks: where the block begins and ends, such as two Markdown comments.
        block: to stand between them, without a last line break.

    Raises:
        ValueError: the marks are not there, or not in order.
    """
    begin, end = marks
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"no {begin} ... {end}")
    return f"{before}{begin}\n{block}\n{end}{after}"
