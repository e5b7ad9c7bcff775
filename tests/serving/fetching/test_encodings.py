"""Bodies with a Content-Encoding: read if a browser would show them, within limits."""

from __future__ import annotations

import gzip
import itertools
import random
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_function.errors import FetchError, ServiceError, TooLargeError
from lambda_function.fetching.encodings import MAX_UNPACKED_BYTES, unpack_gzip
from tests.serving.fetching.test_client import fetch
from tests.support.servers import answer, raw

if TYPE_CHECKING:
    from tests.support.servers import Play

RNG = random.Random(1)  # noqa: S311 (no secret)
IMAGE = RNG.randbytes(300_000)
PACKED = gzip.compress(IMAGE)
OK = b"HTTP/1.1 200 OK\r\n"


def encoded(body: bytes, encoding: str) -> Play:
    return answer(body, headers={"Content-Encoding": encoding})


@pytest.mark.parametrize(
    "encoding",
    [
        *("", "identity", "base64", "BASE64", "aws-chunked", "utf-8", "UTF8", "binary", "none"),
        *("8bit", "iso-8859-1", "image/jpeg", "aws-chunked,", "identity, none", "unknown"),
    ],
)
def test_a_word_that_is_no_coding_leaves_the_body_unchanged(encoding: str) -> None:
    assert fetch(encoded(IMAGE, encoding)) == IMAGE


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "gzip ", "aws-chunked,gzip"])
def test_one_layer_of_gzip_is_unpacked(encoding: str) -> None:
    assert fetch(encoded(PACKED, encoding)) == IMAGE


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\r\n" + PACKED, id="until the connection ends"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(PACKED), PACKED),
            id="in one chunk",
        ),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n"
            + b"".join(b"3\r\n%b\r\n" % PACKED[n : n + 3] for n in range(0, len(PACKED) - 3, 3))
            + b"%x\r\n%b\r\n0\r\n\r\n" % (len(PACKED) % 3 or 3, PACKED[-(len(PACKED) % 3 or 3) :]),
            id="in chunks of three bytes",
        ),
    ],
)
def test_gzip_is_unpacked_however_it_is_framed(data: bytes) -> None:
    assert fetch(raw(OK + b"Content-Encoding: gzip\r\n" + data)) == IMAGE


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        *((name, PACKED) for name in ("deflate", "br", "zstd", "compress", "dcb", "dcz")),
        pytest.param("gzip, gzip", gzip.compress(PACKED), id="two layers"),
        pytest.param("gzip, br", PACKED, id="gzip and another"),
        pytest.param("gzip", IMAGE, id="not packed"),
        pytest.param("gzip", zlib.compress(IMAGE), id="zlib format"),
        pytest.param("gzip", PACKED + b"\0", id="a byte behind"),
        pytest.param("gzip", PACKED + bytes(200_000), id="many bytes behind"),
        pytest.param("gzip", PACKED + PACKED, id="two members"),
        pytest.param("gzip", PACKED[:-1], id="cut in the checksum"),
        pytest.param("gzip", PACKED[:1000], id="cut in the data"),
        pytest.param("gzip", PACKED[:5], id="cut in the header"),
        pytest.param("gzip", PACKED[:-5] + b"\0" + PACKED[-4:], id="wrong checksum"),
        pytest.param("gzip", PACKED[:100] + b"\xff" * 9 + PACKED[109:], id="damaged data"),
        pytest.param("gzip", gzip.compress(b""), id="nothing inside"),
        pytest.param("gzip", gzip.compress(bytes(500_000)), id="more than 100 times its size"),
    ],
)
def test_other_codings_and_bad_gzip_are_the_server_s_failure(encoding: str, body: bytes) -> None:
    with pytest.raises(FetchError) as caught:
        fetch(encoded(body, encoding))
    assert (caught.value.status, caught.value.code) == (502, "fetch_failed")


@pytest.mark.parametrize("behind", [b"x", PACKED])
def test_bytes_behind_gzip_are_refused_in_another_piece_too(behind: bytes) -> None:
    with pytest.raises(FetchError, match="bytes after the gzip data"):
        list(unpack_gzip([PACKED, behind], 10**6))


@pytest.mark.parametrize("second", ["gzip", "identity", "utf-8"])
def test_a_second_line_of_content_encoding_is_refused(second: str) -> None:
    head = OK + f"Content-Encoding: gzip\r\nContent-Encoding: {second}\r\n\r\n".encode()
    with pytest.raises(FetchError, match="several lines of Content-Encoding"):
        fetch(raw(head + PACKED))


def test_the_limit_of_bytes_holds_for_the_unpacked_image() -> None:
    assert fetch(encoded(PACKED, "gzip"), max_bytes=len(PACKED)) == IMAGE
    text = b"0123456789" * 500 + RNG.randbytes(1000)
    packed = gzip.compress(text)
    assert fetch(encoded(packed, "gzip"), max_bytes=6000) == text
    with pytest.raises(TooLargeError, match="more than 5,999 bytes"):
        fetch(encoded(packed, "gzip"), max_bytes=5999)


def test_more_than_20_mib_are_refused_where_larger_images_are_allowed() -> None:
    pieces = [gzip.compress(RNG.randbytes(10**6) * 21, 1)]
    with pytest.raises(TooLargeError, match="more than 20,971,520 bytes"):
        for _ in unpack_gzip(pieces, 10**9):
            pass


@pytest.mark.parametrize("level", [1, 9])
def test_a_bomb_is_refused_before_it_is_unpacked(level: int) -> None:
    bomb = gzip.compress(bytes(200 * 10**6), level)
    assert len(bomb) < 10**6
    sizes: list[int] = []
    tracemalloc.start()
    with pytest.raises((FetchError, TooLargeError)):
        sizes.extend(len(piece) for piece in unpack_gzip([bomb], 10**9))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) <= MAX_UNPACKED_BYTES
    assert peak < 2 * 10**6


@given(st.binary(max_size=2000), st.lists(st.integers(0, 3000), max_size=5), st.binary(max_size=20))
def test_gzip_is_unpacked_or_refused_wherever_it_is_split(
    content: bytes, splits: list[int], behind: bytes
) -> None:
    data = gzip.compress(content) + behind
    edges = [0, *sorted({min(split, len(data)) for split in splits} - {0, len(data)}), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    try:
        unpacked = b"".join(unpack_gzip(pieces, 10**6))
    except ServiceError as error:
        assert error.status == 502
        assert behind or len(content) > 100 * len(pieces[0]) // 2
        return
    assert unpacked == content and not behind
