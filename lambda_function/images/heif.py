"""AVIF and HEIC: keep the primary image of a HEIF file, ISO/IEC 14496-12 and 23008-12.

Both are the same container around another codec. It can hold many images, sequences, thumbnails
and images made of other images. Each says how large it is, and the codec's own header may say
something else: a file of 1 kB that claims 16x16 pixels can decode to 200 MB. So the boxes are read
here, the coded sizes are compared with the claimed ones, and a new file is written that holds the
primary image, its tiles and its transparency.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING

from lambda_function.errors import TooLargeError, UndecodableImageError
from lambda_function.images.codecs import MAX_UNITS, CodedSize, coded_size
from lambda_function.images.profiles import coded_profile
from lambda_function.images.stripped import (
    MAX_PARTS,
    StrippedImage,
    check_size,
    too_many_parts,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TILES = 1_024  # a 48-megapixel image of a phone has 192
MAX_PROPERTY_BYTES = 64 * 1024  # of all but a colour profile. A codec's configuration has 100
MAX_PADDING = 127  # rows or columns that a codec may add to fill its blocks
# What decoding takes, in decodings of a 12-megapixel JPEG, for each million pixels and for each
# million bytes of data. Measured with libde265 1.0.16 and dav1d 1.5 in November 2026, at 0.2 to 40
# bits a pixel. AV1's profiles 1 and 2 have full chroma and up to 12 bits.
_COSTS = {"HEIC": (0.35, 1.8), "AVIF": (0.22, 0.75), "AVIF with full chroma": (0.42, 0.75)}
_TURN_COST = 0.09  # for each million pixels that libheif turns
MAX_COST = 18.0  # of the budget's 20
_TRANSFORMS = frozenset((b"irot", b"imir", b"clap"))  # at most one of each, ISO/IEC 23000-22 7.3.6
_CODECS = {b"av01": "AVIF", b"hvc1": "HEIC"}
_BRANDS = {"AVIF": b"avif", "HEIC": b"heic"}
_ALPHA = (
    b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0",
    b"urn:mpeg:hevc:2015:auxid:1\0",
)
# Other properties do not change a pixel. A colour profile is read here and left out.
_KEPT_PROPERTIES = frozenset(
    (
        b"ispe",
        b"pixi",
        b"av1C",
        b"hvcC",
        b"colr",
        b"irot",
        b"imir",
        b"clap",
        b"auxC",
        b"a1op",
        b"lsel",
    )
)


@dataclasses.dataclass
class _Item:
    """One item: an image, a grid of images, or metadata.

    Attributes:
        kind: its four letters.
        extents: (start, end) of its data in the file.
        properties: (name, whole box, whether it is essential).
    """

    kind: bytes = b""
    extents: tuple[tuple[int, int], ...] = ()
    properties: list[tuple[bytes, bytes, bool]] = dataclasses.field(default_factory=list)

    def find(self, name: bytes) -> bytes | None:
        """Return the content of the first property of that name."""
        return next((box[8:] for found, box, _ in self.properties if found == name), None)

    def byte_count(self) -> int:
        """Return how many bytes its data has."""
        return sum(end - start for start, end in self.extents)

    def size(self) -> tuple[int, int]:
        """Return the claimed (height, width)."""
        content = self.find(b"ispe")
        if content is None:
            raise ValueError("an image without a size")
        width, height = struct.unpack_from(">II", content, 4)
        return height, width


@dataclasses.dataclass
class _File:
    """The items of a file, by number, and the (kind, from, to) references between them."""

    primary: int = 0
    items: dict[int, _Item] = dataclasses.field(default_factory=dict)
    references: list[tuple[bytes, int, tuple[int, ...]]] = dataclasses.field(default_factory=list)

    def item(self, number: int) -> _Item:
        return self.items.setdefault(number, _Item())

    def parts_of(self, number: int) -> tuple[int, ...]:
        """Return the numbers of the images that an item is made of."""
        return next(
            (to for kind, at, to in self.references if kind == b"dimg" and at == number), ()
        )


def strip_heif(data: bytes, kind: str, max_pixels: int) -> StrippedImage:
    """Keep the primary image with its tiles and its transparency.

    Args:
        data: the file.
        kind: AVIF or HEIC.
        max_pixels: larger images are refused, and images whose parts have more pixels in all.

    Raises:
        UndecodableImageError: of a kind that is not read.
        ValueError: damaged. ``IndexError``, ``KeyError`` and ``struct.error`` mean the same.
        TooLargeError: more than ``max_pixels`` pixels.
    """
    file = _read_file(data, kind)
    height, width = file.item(file.primary).size()
    check_size(width, height, max_pixels)
    kept = _kept_items(file, kind)
    profile, coded = _colours(file.items[file.primary])
    pixels = _check_work(data, [file.items[number] for number in kept], kind)
    stripped = _write_file(data, file, kept, kind)
    if pixels > 2 * max_pixels:  # transparency is an image of its own
        raise TooLargeError(
            f"The {kind} decodes to {pixels:,} pixels with all its parts; "
            f"at most {2 * max_pixels:,} are accepted. Send a smaller one."
        )
    return StrippedImage(kind, stripped, profile=profile, coded_profile=coded)


def _kept_items(file: _File, kind: str) -> list[int]:
    """Return the numbers of the primary image, its tiles, its alpha image and that one's tiles."""
    alpha = next(
        (
            origin
            for name, origin, to in file.references
            if name == b"auxl" and file.primary in to and _is_alpha(file.item(origin))
        ),
        None,
    )
    kept = []
    for number in [file.primary] + ([alpha] if alpha is not None else []):
        item = file.item(number)
        if not item.extents:
            raise ValueError("no data")
        tiles = file.parts_of(number) if item.kind == b"grid" else ()
        if len(tiles) > MAX_TILES:
            raise too_many_parts(kind)
        for part in (file.item(tile) for tile in tiles):
            _check_kind(part, kind, is_tile=True)
        _check_kind(item, kind)
        kept += [number, *tiles]
    return list(dict.fromkeys(kept))


def _is_alpha(item: _Item) -> bool:
    return (item.find(b"auxC") or b"")[4:].startswith(_ALPHA)


def _check_kind(item: _Item, kind: str, *, is_tile: bool = False) -> None:
    if _CODECS.get(item.kind) == kind or (item.kind == b"grid" and not is_tile):
        return
    name = item.kind.decode("ascii", "replace").strip("\0 ") or "no image"
    raise UndecodableImageError(
        f"The {kind} file's main image is of the kind {name!r}, which is not read. "
        "Send JPEG or PNG."
    )


def _check_work(data: bytes, items: list[_Item], kind: str) -> int:
    """Return how many pixels the codec makes of the items, and refuse too much work.

    Data that many tiles share counts for each of them.
    """
    pixels = size = 0
    cost = 0.0
    units = iter(range(MAX_UNITS))
    for item in items:
        names = [name for name, _, _ in item.properties if name in _TRANSFORMS]
        if len(set(names)) < len(names):  # libheif runs them all, 255 turns in 30 s
            raise ValueError("a repeated transformation")
        turn_cost = _TURN_COST if b"irot" in names else 0.0
        size += item.byte_count()
        cost += item.byte_count() * _COSTS[kind][1] / 1e6
        if item.kind == b"grid":  # its tiles count
            height, width = (item if item.find(b"ispe") else items[0]).size()
            cost += height * width * turn_cost / 1e6
        else:
            coded = _coded_size(data, item, kind, units)
            name = "AVIF with full chroma" if coded.has_full_chroma else kind
            area = coded.height * coded.width * coded.frames
            cost += area * (_COSTS[name][0] + turn_cost) / 1e6
            pixels += area
        if cost > MAX_COST:  # before the next item is read, which may be the whole file again
            raise TooLargeError(
                f"The {kind} holds {pixels:,} pixels or more in {size:,} bytes, which take too "
                "long to decode. Send it as JPEG, or send a smaller one."
            )
    return pixels


def _coded_size(data: bytes, item: _Item, kind: str, units: Iterator[int]) -> CodedSize:
    """Return what the codec makes of an item. It must fit the size that the item claims."""
    payload = b"".join(data[start:end] for start, end in item.extents)
    coded = coded_size(kind, item.find(b"hvcC") or b"", payload, units)
    if item.find(b"ispe") is not None:  # older encoders leave it out for transparency
        height, width = item.size()
        if coded.height > height + MAX_PADDING or coded.width > width + MAX_PADDING:
            raise ValueError("larger than it says")
    return coded


def _colours(item: _Item) -> tuple[bytes | None, bytes | None]:
    """Return the embedded ICC profile, and the profile of the space given in numbers."""
    profile = coded = None
    for name, box, _ in item.properties:
        if name != b"colr":
            continue
        if box[8:12] in (b"prof", b"rICC"):
            profile = box[12:]
        elif box[8:12] == b"nclx":
            coded = coded_profile(*struct.unpack_from(">HH", box, 12))
    return profile, coded


# --- reading --------------------------------------------------------------------------------


def _boxes(data: bytes, start: int, end: int, kind: str) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield (name, start of the box, start of its content, end)."""
    for _ in range(MAX_PARTS):
        if start + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = start + size if size else end
        if stop < content or stop > end:
            raise ValueError("a box that does not fit")
        yield name, start, content, stop
        start = stop
    raise too_many_parts(kind)


class _Reader:
    """Reads big-endian numbers one after another."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data, self._at, self._end = data, start, end

    def number(self, size: int) -> int:
        """Return an unsigned number of that many bytes."""
        start = self._at
        self._at += size
        if self._at > self._end:
            raise ValueError("cut short")
        return int.from_bytes(self._data[start : self._at])

    def version(self) -> tuple[int, int]:
        """Return version and flags of a full box."""
        return self.number(1), self.number(3)


def _read_file(data: bytes, kind: str) -> _File:
    whole = _boxes(data, 0, len(data), kind)
    start, end = next(((at, to) for name, _, at, to in whole if name == b"meta"), (0, 0))
    if not end:
        raise UndecodableImageError(f"The {kind} file holds no still image. Send JPEG or PNG.")
    file = _File()
    boxes = {name: (at, to) for name, _, at, to in _boxes(data, start + 4, end, kind)}
    reader = _Reader(data, *boxes.get(b"pitm", (0, 0)))
    file.primary = reader.number(4 if reader.version()[0] else 2)
    _read_kinds(data, file, *boxes[b"iinf"], kind)
    _read_places(data, file, boxes, kind)
    _read_properties(data, file, *boxes[b"iprp"], kind)
    if b"iref" in boxes:
        _read_references(data, file, *boxes[b"iref"], kind)
    return file


def _read_kinds(data: bytes, file: _File, start: int, end: int, kind: str) -> None:
    content = start + (8 if data[start] else 6)
    for name, _, at, to in _boxes(data, content, end, kind):
        reader = _Reader(data, at, to)
        version, _flags = reader.version()
        if name == b"infe" and version >= 2:
            item = file.item(reader.number(4 if version == 3 else 2))
            reader.number(2)
            item.kind = reader.number(4).to_bytes(4)


def _read_places(data: bytes, file: _File, boxes: dict[bytes, tuple[int, int]], kind: str) -> None:
    """Read iloc, ISO/IEC 14496-12 8.11.3."""
    reader = _Reader(data, *boxes[b"iloc"])
    version, _flags = reader.version()
    sizes = reader.number(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    budget = MAX_PARTS
    for _ in range(reader.number(2 if version < 2 else 4)):
        item = file.item(reader.number(2 if version < 2 else 4))
        method = reader.number(2) & 15 if version else 0
        reader.number(2)
        base = reader.number(base_size)
        extents = []
        first, last = boxes[b"idat"] if method == 1 else (0, len(data))
        count = reader.number(2)
        budget -= 1 + count
        if budget < 0:
            raise too_many_parts(kind)
        for _ in range(count):
            reader.number(index_size)
            start = first + base + reader.number(offset_size)
            length = reader.number(length_size)
            stop = start + length if length else last
            if method > 1 or stop > last:
                raise ValueError("data that is not there")
            extents.append((start, stop))
        item.extents = tuple(extents)
        if item.byte_count() > len(data):
            raise ValueError("data that is there more than once")


def _read_properties(data: bytes, file: _File, start: int, end: int, kind: str) -> None:
    parts = list(_boxes(data, start, end, kind))
    found: list[tuple[bytes, bytes]] = []
    for name, _, at, to in parts:
        if name == b"ipco":
            found += [(box, data[begin:stop]) for box, begin, _, stop in _boxes(data, at, to, kind)]
    for name, box in found:
        if name in _KEPT_PROPERTIES - {b"colr"} and len(box) > MAX_PROPERTY_BYTES:
            raise ValueError("a property that is too long")
    budget = MAX_PARTS
    for name, _, at, to in parts:
        if name != b"ipma":
            continue
        reader = _Reader(data, at, to)
        version, flags = reader.version()
        index_size = 2 if flags & 1 else 1
        for _ in range(reader.number(4)):
            item = file.item(reader.number(4 if version else 2))
            count = reader.number(1)
            budget -= 1 + count
            if budget < 0:
                raise too_many_parts(kind)
            for _ in range(count):
                entry = reader.number(index_size)
                essential = bool(entry >> (8 * index_size - 1))
                index = entry & (1 << (8 * index_size - 1)) - 1
                if 1 <= index <= len(found) and found[index - 1][0] in _KEPT_PROPERTIES:
                    item.properties.append((*found[index - 1], essential))


def _read_references(data: bytes, file: _File, start: int, end: int, kind: str) -> None:
    size = 4 if data[start] else 2
    budget = MAX_PARTS
    for name, _, at, to in _boxes(data, start + 4, end, kind):
        reader = _Reader(data, at, to)
        origin, count = reader.number(size), reader.number(2)
        budget -= 1 + count
        if budget < 0:
            raise too_many_parts(kind)
        file.references.append((name, origin, tuple(reader.number(size) for _ in range(count))))


# --- writing --------------------------------------------------------------------------------


def _write_file(data: bytes, file: _File, kept: list[int], kind: str) -> bytes:
    numbers = {number: new for new, number in enumerate(kept, 1)}
    items = [file.items[number] for number in kept]
    payloads: dict[tuple[tuple[int, int], ...], int] = {}  # extents -> where the new file has them
    length = 0
    for item in items:
        if item.extents not in payloads:
            payloads[item.extents] = length
            length += sum(end - start for start, end in item.extents)
    primary = file.items[file.primary]
    for item in items:
        if _is_alpha(item) and item.find(b"ispe") is None:  # older encoders leave it out
            size = next(box for name, box, _ in primary.properties if name == b"ispe")
            item.properties.insert(0, (b"ispe", size, False))
    infos = b"".join(
        _full_box(b"infe", struct.pack(">HH4sB", new, 0, item.kind, 0), version=2)
        for new, item in enumerate(items, 1)
    )
    links = b"".join(
        _box(name, struct.pack(f">HH{len(to)}H", numbers[at], len(to), *(numbers[n] for n in to)))
        for name, at, to in file.references
        if name in (b"dimg", b"auxl", b"prem") and at in numbers and set(to) <= numbers.keys()
    )
    fixed = b"".join(
        (
            _full_box(b"hdlr", bytes(4) + b"pict" + bytes(13)),
            _full_box(b"pitm", struct.pack(">H", numbers[file.primary])),
            _full_box(b"iinf", struct.pack(">H", len(items)) + infos),
            _full_box(b"iref", links) if links else b"",
            _properties(items),
        )
    )
    head = _box(b"ftyp", _BRANDS[kind] + bytes(4) + b"mif1miaf" + _BRANDS[kind])
    start = len(head) + 12 + len(fixed) + 16 + 14 * len(items) + 8
    places = b"".join(
        struct.pack(
            ">HHHII",
            new,
            0,
            1,
            start + payloads[item.extents],
            sum(end - begin for begin, end in item.extents),
        )
        for new, item in enumerate(items, 1)
    )
    places = _full_box(b"iloc", struct.pack(">HH", 0x4400, len(items)) + places)
    body = [data[begin:end] for extents in payloads for begin, end in extents]
    mdat = struct.pack(">I4s", 8 + length, b"mdat")
    return b"".join((head, _full_box(b"meta", fixed + places), mdat, *body))


def _properties(items: list[_Item]) -> bytes:
    indices: dict[bytes, int] = {}
    associations = []
    for new, item in enumerate(items, 1):
        entries = []
        for name, box, essential in item.properties:
            if name == b"colr" and box[8:12] != b"nclx":
                continue
            index = indices.setdefault(box, len(indices) + 1)
            entries.append(struct.pack(">H", index | essential << 15))
        associations.append(struct.pack(">HB", new, len(entries)) + b"".join(entries))
    links = _full_box(b"ipma", struct.pack(">I", len(items)) + b"".join(associations), flags=1)
    return _box(b"iprp", _box(b"ipco", b"".join(indices)) + links)


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def _full_box(name: bytes, content: bytes, *, version: int = 0, flags: int = 0) -> bytes:
    return _box(name, struct.pack(">I", version << 24 | flags) + content)
