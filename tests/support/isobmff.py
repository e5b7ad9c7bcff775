"""AVIF and HEIC files put together by hand, ISO/IEC 14496-12 and 23008-12."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple


def box(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", 8 + len(payload)) + name + payload


def full_box(name: bytes, payload: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(name, struct.pack(">I", version << 24 | flags) + payload)


class Item(NamedTuple):
    """One item of a file.

    Attributes:
        kind: its four letters.
        data: its payload, or the index of the item whose payload it shares.
        properties: boxes.
        times: how often its payload is named.
    """

    kind: bytes
    data: bytes | int
    properties: tuple[bytes, ...] = ()
    times: int = 1


def heif(
    items: Sequence[Item],
    references: Sequence[tuple[bytes, int, Sequence[int]]] = (),
    *,
    brand: bytes = b"avif",
    primary: int = 1,
) -> bytes:
    """Put a file together. Items are numbered from 1.

    Args:
        items: of the file.
        references: (kind, from item, to items).
        brand: of the file.
        primary: number of the primary item.
    """
    boxes: list[bytes] = []
    associations = b""
    for number, item in enumerate(items, 1):
        places = b""
        for content in item.properties:
            if content not in boxes:
                boxes.append(content)
            places += struct.pack(">H", boxes.index(content) + 1 | 0x8000)
        associations += struct.pack(">HB", number, len(item.properties)) + places
    properties = box(b"ipco", b"".join(boxes)) + full_box(
        b"ipma", struct.pack(">I", len(items)) + associations, flags=1
    )
    infos = b"".join(
        full_box(b"infe", struct.pack(">HH4sB", number, 0, item.kind, 0), 2)
        for number, item in enumerate(items, 1)
    )
    links = b"".join(
        box(kind, struct.pack(f">HH{len(to)}H", origin, len(to), *to))
        for kind, origin, to in references
    )

    def meta(start: int) -> bytes:
        places, at = [], start
        for item in items:
            if isinstance(item.data, int):
                places.append(places[item.data - 1])
            else:
                places.append((at, len(item.data)))
                at += len(item.data)
        locations = b"".join(
            struct.pack(">HHH", number, 0, item.times) + struct.pack(">II", *place) * item.times
            for number, (item, place) in enumerate(zip(items, places, strict=True), 1)
        )
        return full_box(
            b"meta",
            full_box(b"hdlr", bytes(4) + b"pict" + bytes(13))
            + full_box(b"pitm", struct.pack(">H", primary))
            + full_box(b"iloc", struct.pack(">HH", 0x4400, len(items)) + locations)
            + full_box(b"iinf", struct.pack(">H", len(items)) + infos)
            + (full_box(b"iref", links) if links else b"")
            + box(b"iprp", properties),
        )

    head = box(b"ftyp", brand + bytes(4) + b"mif1" + brand)
    payload = b"".join(item.data for item in items if isinstance(item.data, bytes))
    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", payload)


def ispe(height: int, width: int) -> bytes:
    return full_box(b"ispe", struct.pack(">II", width, height))


def pixi(channels: int = 3, bits: int = 8) -> bytes:
    return full_box(b"pixi", bytes((channels, *[bits] * channels)))


def nclx(primaries: int, transfer: int, matrix: int, *, full_range: bool = True) -> bytes:
    return box(
        b"colr", b"nclx" + struct.pack(">HHHB", primaries, transfer, matrix, full_range << 7)
    )


def alpha_property() -> bytes:
    return full_box(b"auxC", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0")


def grid_payload(rows: int, columns: int, height: int, width: int) -> bytes:
    return struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, width, height)


def find_box(data: bytes, name: bytes, start: int = 0) -> bytes:
    """Return the payload of the first box of that name, wherever in the file."""
    at = data.index(name, start)
    return data[at + 4 : at - 4 + int.from_bytes(data[at - 4 : at])]


def av1_frames(data: bytes) -> list[bytes]:
    """Return the samples of a sequence, or the payload of a still image, as libavif writes it."""
    if b"stsz" not in data:
        return [find_box(data, b"mdat")]
    sizes = find_box(data, b"stsz")
    same, count = struct.unpack_from(">II", sizes, 4)
    lengths = [same] * count if same else struct.unpack_from(f">{count}I", sizes, 12)
    (at,) = struct.unpack_from(">I", find_box(data, b"stco"), 8)
    frames = []
    for length in lengths:
        frames.append(data[at : at + length])
        at += length
    return frames


def sequence_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", find_box(data, b"ispe"), 4)
    return height, width


def avif(obus: bytes, *, height: int, width: int, extra: tuple[bytes, ...] = (),
         av1c: bytes = b"\x81\0\x0c\0") -> bytes:  # fmt: skip
    """Return an AVIF of one item."""
    properties = (ispe(height, width), pixi(), box(b"av1C", av1c), *extra)
    return heif([Item(b"av01", obus, properties)])


def one_item(data: bytes, kind: bytes, *, extra: tuple[bytes, ...] = ()) -> Item:
    """Return the only coded image of a file, with its size and its codec's configuration."""
    configuration = {b"hvc1": b"hvcC", b"av01": b"av1C"}[kind]
    names = (b"ispe", configuration, b"pixi", b"clap")
    properties = tuple(box(name, find_box(data, name)) for name in names if name in data)
    return Item(kind, find_box(data, b"mdat"), properties + extra)


def tiled(tile: Item, rows: int, columns: int, *, height: int, width: int,
          alpha: Item | None = None, extra: tuple[bytes, ...] = ()) -> bytes:  # fmt: skip
    """Return an image whose every tile is the same one, stored once.

    Args:
        tile: of the image.
        rows: of tiles.
        columns: of tiles.
        height: of the image, in pixels.
        width: of the image, in pixels.
        alpha: tile of its transparency.
        extra: more properties of the image.
    """
    count = rows * columns
    grid = grid_payload(rows, columns, height, width)
    properties = (ispe(height, width), *tile.properties[2:3], *extra)
    items = [Item(b"grid", grid, properties), tile, *[tile._replace(data=2)] * (count - 1)]
    references: list[tuple[bytes, int, Sequence[int]]] = [(b"dimg", 1, range(2, count + 2))]
    if alpha:
        first = count + 3
        cover = Item(b"grid", grid, (ispe(height, width), alpha_property()))
        items += [cover, alpha, *[alpha._replace(data=first)] * (count - 1)]
        references.append((b"dimg", count + 2, range(first, first + count)))
        references.append((b"auxl", count + 2, [1]))
    brand = b"heic" if tile.kind == b"hvc1" else b"avif"
    return heif(items, references, brand=brand)
