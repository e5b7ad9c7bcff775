"""Classify images at the command line with the real handler: `make predict`, or::

    python -m tools.predict                                  # the example image
    python -m tools.predict photo.jpg                        # bars for every class
    python -m tools.predict photos/ 'more/*.png'             # one line per image
    python -m tools.predict photos/ --format csv > all.csv   # or json: one object per line
    python -m tools.predict --url https://example.com/pants.jpg
    python -m tools.predict photo.jpg --explain out.png      # draws where the model looked

A folder stands for the images in it and below it. Hidden files and files that are no images are
left out. The last line on standard error counts the latter. An image that cannot be classified gets
a line with its error, and the exit status is 1 at the end.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import csv
import dataclasses
import glob
import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from lambda_function import app, example_image
from lambda_function.images.formats import FORMATS, SNIFF_BYTES, sniff
from tools.overlay import draw_overlay
from tools.serve import START_ERRORS, LocalContext

EXAMPLE_IMAGE = example_image()
# Those that the handler does not read get a line that says so.
IMAGE_TYPES = {*FORMATS, "HEIC", "JPEG 2000", "JPEG XL", "SVG", "TIFF"}
BAR_WIDTH = 30
INTERRUPTED = 130
OVERLAY_TYPES = (".png", ".jpg")


class InputError(Exception):
    """A name on the command line stands for no file. Carries one sentence."""


@dataclasses.dataclass(frozen=True)
class Result:
    """The response to one image.

    Attributes:
        source: path or URL, as the output shows it.
        body: the handler's body, a prediction or a problem.
    """

    source: str
    body: dict[str, Any]

    @property
    def error(self) -> str:
        """One sentence that says why there is no prediction, or ``""``."""
        if "predictions" in self.body:
            return ""
        return f"{self.body['title']}: {self.body['detail']} ({self.body['code']})"


def find_files(names: Iterable[str]) -> tuple[list[Path], int]:
    """Return the files that names stand for.

    Args:
        names: paths of files and folders, patterns such as ``photos/*.jpg``, or several of these in
            one string. A name that exists is one path, spaces included. ``~`` is expanded.

    Returns:
        The files without repetition, and how many files of folders are no images.

    Raises:
        InputError: a name stands for nothing.
    """
    files: dict[Path, None] = {}
    left_out = 0
    for name in names:
        for path in _paths(name):
            if not path.is_dir():
                files[path] = None
                continue
            inside = [p for p in sorted(path.rglob("*")) if p.is_file() and not _is_hidden(p, path)]
            images = [p for p in inside if is_image(p)]
            if not images:
                raise InputError(f"There is no image in the folder {path}.")
            left_out += len(inside) - len(images)
            files.update(dict.fromkeys(images))
    return list(files), left_out


def is_image(path: Path) -> bool:
    """Return whether a file's first bytes are those of an image. The ending does not matter."""
    try:
        with path.open("rb") as file:
            return sniff(file.read(SNIFF_BYTES)) in IMAGE_TYPES
    except OSError:
        return True  # its own line will say why it cannot be read


def _paths(name: str) -> list[Path]:
    path = Path(name)
    with contextlib.suppress(RuntimeError):  # of a user that does not exist
        path = path.expanduser()
    if os.path.lexists(path):  # also of names that are too long for one file
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - the pattern may be absolute
    if matches:
        return [Path(match) for match in matches]
    with contextlib.suppress(ValueError):  # of a lone quote
        words = shlex.split(name)
        if len(words) > 1:
            return [path for word in words for path in _paths(word)]
    if glob.has_magic(name):
        raise InputError(f"No file matches {name}.")
    raise InputError(f"There is no file {name}.")


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


# --- output ---------------------------------------------------------------------------------------


def render(result: Result) -> str:
    """Return a prediction as several lines of text with a bar for each class."""
    body = result.body
    width = max(len(item["label"]) for item in body["predictions"])
    lines = [result.source, ""]
    for item in body["predictions"]:
        bar = "#" * round(item["score"] * BAR_WIDTH)
        lines.append(f"  {item['label']:<{width}}  {item['score']:7.2%}  {bar}".rstrip())
    timings = "  ".join(f"{name} {ms:g}" for name, ms in body["timings_ms"].items())
    unsure = ["", "  uncertain: it may show something else"] if "uncertain" in body else []
    model = f"  model {body['model']['name']} {body['model']['version']}"
    return "\n".join([*lines, *unsure, "", model, f"  ms    {timings}"])


def write_text(results: Iterable[Result], out: TextIO) -> Iterator[Result]:
    """Write one line per image: path, label and score, or path and error."""
    for result in results:
        if result.error:
            print(f"{result.source}  {result.error}", file=out)
        else:
            best = result.body["predictions"][0]
            print(f"{result.source}  {best['label']}  {best['score']:.2%}", file=out)
        yield result


def write_json(results: Iterable[Result], out: TextIO) -> Iterator[Result]:
    """Write one JSON object per image and line: ``{"image": path}`` and the response body."""
    for result in results:
        print(json.dumps({"image": result.source, **result.body}, ensure_ascii=False), file=out)
        yield result


def write_csv(results: Iterable[Result], out: TextIO) -> Iterator[Result]:
    """Write a table with the columns image, label, score and error."""
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["image", "label", "score", "error"])
    for result in results:
        if result.error:
            table.writerow([result.source, "", "", result.error])
        else:
            best = result.body["predictions"][0]
            table.writerow([result.source, best["label"], best["score"], ""])
        yield result


Writer = Callable[[Iterable[Result], TextIO], Iterator[Result]]
WRITERS: dict[str, Writer] = {"text": write_text, "json": write_json, "csv": write_csv}


# --- prediction -----------------------------------------------------------------------------------


def classify(event: dict[str, Any]) -> dict[str, Any]:
    """Return the handler's body for a direct invoke, without its log line."""
    return app.handle(event, LocalContext(), app.process_service(), write=lambda _: None)


def classify_file(path: Path, *, explain: bool = False) -> Result:
    """Classify one image file. A file that cannot be read gives a problem too.

    Args:
        path: of the image.
        explain: whether the best class is explained.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = f"Cannot read {path}: {error.strerror}."
        problem = {"title": "Unreadable file", "detail": reason, "code": "unreadable_file"}
        return Result(str(path), problem)
    image = base64.b64encode(data).decode()
    return Result(str(path), classify({"image": image, "explain": explain}))


def explain_file(path: Path, output: Path) -> Result:
    """Classify one image file and draw where the model looked.

    Raises:
        InputError: there is no explanation, or it cannot be written.
    """
    if output.suffix.lower() not in OVERLAY_TYPES:
        raise InputError(f"EXPLAIN must end in {' or '.join(OVERLAY_TYPES)}. Received: {output}")
    if output.exists() and output.samefile(path):
        raise InputError(f"EXPLAIN must be another file than the image {path}.")
    result = classify_file(path, explain=True)
    if result.error:
        raise InputError(result.error)
    overlay = draw_overlay(path.read_bytes(), result.body["explanation"])
    try:
        overlay.save(output)
    except OSError as error:
        raise InputError(f"Cannot write {output}: {error.strerror}.") from error
    return result


def classify_files(files: list[Path]) -> Iterator[Result]:
    """Classify files one after another. A terminal shows a progress bar meanwhile."""
    shown: Iterable[Path] = files
    if len(files) > 1 and not sys.stdout.isatty():
        from tqdm import tqdm

        shown = tqdm(files, unit="image", disable=None)
    for path in shown:
        yield classify_file(path)


def run(options: argparse.Namespace) -> int:
    """Classify what the command line names and print it.

    Returns:
        An exit status: 1 if an image could not be classified.

    Raises:
        InputError: a name stands for no file.
        SettingsError, ArtifactError, MetadataError, ModelDownloadError: no model can be served.
    """
    names = [name for name in options.images if name]
    files, left_out = find_files(names or [os.path.relpath(EXAMPLE_IMAGE)])
    with _native_messages_hidden():
        app.process_service()
    if options.explain:
        if options.url or len(files) != 1:
            raise InputError("EXPLAIN draws over one image file. Name it as IMAGE.")
        results = iter([explain_file(files[0], options.explain)])
        print(f"Wrote {options.explain}.", file=sys.stderr)
    elif options.url:
        results = iter([Result(options.url, classify({"url": options.url}))])
    else:
        results = classify_files(files)
    if options.format is None and (options.url or len(files) == 1):
        result = next(results)
        if result.error:
            raise InputError(result.error)
        print(render(result))
        return 0
    failed = sum(
        bool(result.error) for result in WRITERS[options.format or "text"](results, sys.stdout)
    )
    if left_out:
        print(f"Files left out because they are no images: {left_out}.", file=sys.stderr)
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    """Classify what the command line names. Returns an exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="file, folder or pattern")
    parser.add_argument("--url", help="of one image")
    parser.add_argument(
        "--explain", type=Path, metavar="FILE", help="draw where the model looked, one image only"
    )
    parser.add_argument("--format", choices=WRITERS, help="default: text")
    options = parser.parse_args(arguments)
    if options.url and any(options.images):
        parser.error("name either --url or images, not both")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may be no text
            stream.reconfigure(errors="backslashreplace")
    try:
        status = run(options)
        sys.stdout.flush()
        return status
    except InputError as error:
        print(error, file=sys.stderr)
    except START_ERRORS as error:
        print(f"Cannot start: {error}", file=sys.stderr)
    except BrokenPipeError:
        # The reader, such as `head`, has what it wanted. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    return 1


@contextlib.contextmanager
def _native_messages_hidden() -> Iterator[None]:
    """Hide the interpreter's INFO line, which C++ writes to file descriptor 2."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
