"""How large the images inside AV1 and HEVC data are, read from the data's own headers.

A decoder allocates what these headers say, whatever the file around them claims.
AV1: https://aomediacodec.github.io/av1-spec/. HEVC: ITU-T H.265.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6  # AV1 6.2.2
_SPS = 33  # HEVC table 7-1
_MAX_HEADER_BYTES = 1_024  # of an SPS: its size stands in the first hundred
MAX_UNITS = 10_000  # OBUs or NAL units of a file. A 48-megapixel image of a phone has 1,000


class CodedSize(NamedTuple):
    """What a decoder makes of the data.

    Attributes:
        height: in pixels.
        width: in pixels.
        frames: how often that many pixels are decoded: AV1's frames, HEVC's slices.
        has_full_chroma: whether AV1's profile allows more than 4:2:0.
    """

    height: int
    width: int
    frames: int
    has_full_chroma: bool = False


class _Bits:
    """Reads bits, the highest first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("cut short")
        return self._value >> self._left & (1 << count) - 1

    def exp_golomb(self) -> int:
        """Return ue(v), HEVC 9.2."""
        for zeros in range(32):
            if self.read(1):
                return self.read(zeros) + (1 << zeros) - 1
        raise ValueError("a number of more than 32 bits")


def coded_size(kind: str, configuration: bytes, data: bytes, units: Iterator[int]) -> CodedSize:
    """Read how large the image is that a decoder would make.

    Args:
        kind: AVIF or HEIC.
        configuration: the content of a HEIC's hvcC box, ISO/IEC 14496-15 8.3.3.
        data: one image: the OBUs of an AVIF, the length-prefixed NAL units of a HEIC.
        units: has an item for each unit that may still be read, in all images of the file.

    Raises:
        ValueError: damaged, or in too many units.
        IndexError: cut short.
    """
    return _av1(data, units) if kind == "AVIF" else _hevc(configuration, data, units)


def _av1(data: bytes, units: Iterator[int]) -> CodedSize:
    """Read the largest size that any sequence header allows, and the number of frames."""
    profile = 0
    height = width = frames = 0
    for kind, start, end in _obus(data, units):
        if kind == _SEQUENCE_HEADER:
            profile = max(profile, data[start] >> 5)
            size = _av1_size(_Bits(data[start : min(end, start + _MAX_HEADER_BYTES)]))
            height, width = max(height, size[0]), max(width, size[1])
        elif kind in (_FRAME_HEADER, _FRAME):
            frames += 1
    if not frames or not height:
        raise ValueError("no frame")
    return CodedSize(height, width, frames, profile > 0)


def _obus(data: bytes, units: Iterator[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (type, start, end) of each OBU's content, AV1 5.3."""
    at = 0
    for _ in units:
        header = data[at]
        at += 2 if header & 4 else 1
        size = len(data) - at
        if header & 2:
            size, at = _leb128(data, at)
        if at + size > len(data):
            raise ValueError("cut short")
        yield header >> 3 & 15, at, at + size
        at += size
        if at == len(data):
            return
    raise ValueError("too many OBUs")


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """Return the number, and where it ends, AV1 4.10.5."""
    value = 0
    for shift in range(0, 56, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number that does not end")


def _av1_size(bits: _Bits) -> tuple[int, int]:
    """Return max_frame_height and max_frame_width, AV1 5.5.1."""
    bits.read(4)  # profile, still picture
    if bits.read(1):  # reduced header
        bits.read(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    width = bits.read(width_bits) + 1
    return bits.read(height_bits) + 1, width


def _skip_operating_points(bits: _Bits) -> None:
    has_model = delay_bits = 0
    if bits.read(1):  # timing info
        bits.read(64)
        if bits.read(1):
            bits.exp_golomb()
        has_model = bits.read(1)
        if has_model:
            delay_bits = bits.read(5) + 1
            bits.read(32 + 5 + 5)
    has_display_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if has_model and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if has_display_delay and bits.read(1):
            bits.read(4)


def _hevc(configuration: bytes, data: bytes, units: Iterator[int]) -> CodedSize:
    """Read the largest size that any parameter set gives, and the number of slices.

    A slice may claim to be the whole image, however short it is.
    """
    length_size = (configuration[21] & 3) + 1
    height = width = slices = 0
    for unit in itertools.chain(
        _configured_units(configuration, units), _units(data, length_size, units)
    ):
        kind = unit[0] >> 1 & 63
        if kind == _SPS:
            size = _hevc_size(unit)
            height, width = max(height, size[0]), max(width, size[1])
        elif kind < 32:
            slices += 1
    if not slices or not height:
        raise ValueError("no slice")
    return CodedSize(height, width, slices)


def _configured_units(configuration: bytes, units: Iterator[int]) -> Iterator[bytes]:
    at = 23
    for _ in range(configuration[22]):
        count = int.from_bytes(configuration[at + 1 : at + 3])
        at += 3
        for _ in itertools.islice(units, count):
            size = int.from_bytes(configuration[at : at + 2])
            unit = configuration[at + 2 : at + 2 + min(size, _MAX_HEADER_BYTES)]
            if len(unit) < 2:
                raise ValueError("cut short")
            yield unit
            at += 2 + size


def _units(data: bytes, length_size: int, units: Iterator[int]) -> Iterator[bytes]:
    """Yield the start of each NAL unit."""
    at = 0
    for _ in units:
        size = int.from_bytes(data[at : at + length_size])
        at += length_size
        unit = data[at : at + min(size, _MAX_HEADER_BYTES)]
        if size < 2 or at + size > len(data):
            raise ValueError("cut short")
        yield unit
        at += size
        if at == len(data):
            return
    raise ValueError("too many NAL units")


def _hevc_size(unit: bytes) -> tuple[int, int]:
    """Return the size that an SPS gives, H.265 7.3.2.2."""
    bits = _Bits(unit.replace(b"\0\0\3", b"\0\0"))  # 7.3.1.1
    bits.read(16 + 4)
    sub_layers = bits.read(3)
    bits.read(1 + 96)  # profile, tier and level
    if sub_layers:
        flags = [bits.read(2) for _ in range(8)][:sub_layers]
        for flag in flags:
            bits.read(88 * (flag >> 1) + 8 * (flag & 1))
    bits.exp_golomb()
    if bits.exp_golomb() == 3:
        bits.read(1)
    width = bits.exp_golomb()
    return bits.exp_golomb(), width
