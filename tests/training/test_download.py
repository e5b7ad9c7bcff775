"""A download is checked by its content and leaves nothing unfinished. The server is on loopback."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from training.data.clothing import DIGEST, digest, fetch_dataset
from training.data.dataset import DEFAULT_ROOT
from training.data.imagenet import fetch_weights
from training.errors import DatasetError, DownloadError

FILES = {"train/hat/a.jpg": b"one", "validation/hat/b.jpg": b"two", "test/hat/c.jpg": b"three"}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def pack(path: Path, files: dict[str, bytes], top: str = "clothing-1196151") -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{top}/{name}" if top else name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def expected_digest() -> str:
    total = hashlib.sha256()
    for name in sorted(FILES):
        total.update(f"{hashlib.sha256(FILES[name]).hexdigest()}  {name}\n".encode())
    return total.hexdigest()


def test_a_data_set_is_fetched_checked_and_unpacked(
    tmp_path: Path, served: tuple[Path, str]
) -> None:
    folder, address = served
    pack(folder / "data.tar.gz", FILES)
    to = tmp_path / "here" / "clothing"
    url = f"{address}/data.tar.gz"
    assert fetch_dataset(to, url=url, expected=expected_digest()) == to
    assert {p.relative_to(to).as_posix(): p.read_bytes() for p in to.rglob("*.jpg")} == FILES
    assert list(to.parent.iterdir()) == [to]
    (folder / "data.tar.gz").unlink()
    assert fetch_dataset(to, url=url, expected=expected_digest()) == to  # no second download


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train/hat/a.jpg": b"other"}, "holds other images"),
        ({"train/hat/extra.jpg": b"more"}, "holds other images"),
        ({"../../outside.jpg": b"escape"}, "cannot be unpacked"),
    ],
)
def test_other_content_is_refused_and_nothing_stays(
    tmp_path: Path, served: tuple[Path, str], change: dict[str, bytes], message: str
) -> None:
    folder, address = served
    pack(folder / "data.tar.gz", {**FILES, **change})
    to = tmp_path / "here" / "clothing"
    with pytest.raises(DownloadError, match=message):
        fetch_dataset(to, url=f"{address}/data.tar.gz", expected=expected_digest())
    assert list(to.parent.iterdir()) == []
    assert not list(tmp_path.rglob("outside.jpg"))


def test_a_folder_with_other_images_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train" / "hat").mkdir(parents=True)
    (tmp_path / "train" / "hat" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(DatasetError, match="holds other images than commit 1196151"):
        fetch_dataset(tmp_path)
    assert (tmp_path / "train" / "hat" / "mine.jpg").read_bytes() == b"mine"


def test_weights_are_checked_by_md5(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    (folder / "w.h5").write_bytes(b"weights")
    to = tmp_path / "here" / "w.h5"
    url = f"{address}/w.h5"
    with pytest.raises(DownloadError, match=r"has MD5 .*; Keras expects 000"):
        fetch_weights(to, url=url, expected="000")
    assert not list(to.parent.iterdir())
    # echo -n weights | md5sum
    assert fetch_weights(to, url=url, expected="63f4f1e9b725370f459720575cd5f953") == to


def test_an_address_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"cannot be fetched: .*Is there a network\?"):
        fetch_weights(tmp_path / "w.h5", url="http://127.0.0.1:9/w.h5")


@pytest.mark.data
@pytest.mark.skipif(not DEFAULT_ROOT.is_dir(), reason="no data set beside the checkout")
def test_the_pinned_digest_is_that_of_the_data_set_beside_the_checkout() -> None:
    assert digest(DEFAULT_ROOT) == DIGEST
