"""Downloads a file, whole or not at all, with a progress bar."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from training.errors import DownloadError
from training.files import replacing

TIMEOUT_S = 60
PIECE_BYTES = 1024 * 1024


def download(url: str, to: Path) -> None:
    """Fetch a URL into a file.

    Args:
        url: of the file.
        to: where the file is written, whole or not at all.

    Raises:
        DownloadError: the file cannot be fetched. The message says why.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response, replacing(to) as file:  # noqa: S310 (ours)
            length = int(response.headers.get("Content-Length") or 0)
            with (
                file.open("wb") as opened,
                tqdm(total=length, desc=to.name, unit="B", unit_scale=True, disable=None) as bar,
            ):
                while piece := response.read(PIECE_BYTES):
                    opened.write(piece)
                    bar.update(len(piece))
                received = opened.tell()
            if length and received != length:
                raise DownloadError(f"{url} broke off after {received} of {length} bytes")
    except (
        urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError,
    ) as error:  # fmt: skip
        raise DownloadError(f"{url} cannot be fetched: {error}. Is there a network?") from error
