"""Colour spaces as small ICC profiles, ICC.1:2022.

LittleCMS runs every program that a profile holds. A profile of 600 bytes can name one matrix
100,000 times and keeps it busy for minutes. So an embedded profile is read here first, and a new
one is written with the few tags that a conversion to sRGB needs. What a PNG or AVIF says about its
colours in numbers becomes such a profile too.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MAX_PROFILE_BYTES = 4 * 1024**2  # 4 MiB. The profiles of printing presses reach 2.5
MAX_TAGS = 200  # profiles have 10 to 60
MAX_CURVE_ENTRIES = 16_384  # profiles have 1 to 4,096
CHANNELS = {b"RGB ": 3, b"GRAY": 1, b"CMYK": 4}  # ICC.1:2022 7.2.6
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")  # input, display, output, colour space
_HEADER_BYTES = 128
_XYZ_TAGS = (b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ")
_CURVE_TAGS = (b"rTRC", b"gTRC", b"bTRC", b"kTRC")
_PARAMETERS = (1, 3, 4, 5, 7)  # of parametric curves, by function type, ICC.1:2022 10.18

# x and y of white, red, green and blue, by the number that ITU-T H.273 table 2 gives them.
_PRIMARIES = {
    1: (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06),  # BT.709, sRGB
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),  # BT.470 M
    5: (0.3127, 0.3290, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),  # BT.601, 625 lines
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),  # BT.601, 525 lines
    7: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),  # SMPTE 240M
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # DCI P3
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
}
_SRGB_LIKE = (1, 2, 6, 13, 14, 15)  # transfers that displays show like sRGB's, as browsers do
_SDR_WHITE_NITS = 203.0  # ITU-R BT.2408-7 2.1: the HDR level that SDR white corresponds to


def clean_profile(profile: bytes) -> bytes | None:
    """Write a profile anew, with the tags that lead to sRGB and no others.

    Args:
        profile: an ICC profile from a stranger.

    Returns:
        The new profile, or None if the old one is damaged, too large or of a kind that is not
        read: it then has to be ignored.
    """
    if not 132 <= len(profile) <= MAX_PROFILE_BYTES or profile[36:40] != b"acsp":
        return None
    channels = CHANNELS.get(profile[16:20])
    if channels is None or profile[12:16] not in _CLASSES:
        return None
    if profile[20:24] not in (b"XYZ ", b"Lab "):
        return None
    tags: dict[bytes, bytes] = {}
    (count,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
    if count > MAX_TAGS or len(profile) < 132 + 12 * count:
        return None
    for name, start, size in struct.iter_unpack(">4sII", profile[132 : 132 + 12 * count]):
        if name in _READERS:
            content = _READERS[name](profile[start : start + size], channels)
            if content is None:
                return None
            tags[name] = content
    return _write(profile[:_HEADER_BYTES], tags) if tags else None


def coded_profile(primaries: int, transfer: int) -> bytes | None:
    """Describe a colour space that is given as code points, ITU-T H.273.

    Light above SDR white is clipped. Below it the colours are exact.

    Args:
        primaries: colour primaries, such as 9 for Rec. 2020.
        transfer: transfer characteristics, such as 16 for PQ and 18 for HLG.

    Returns:
        An ICC profile, or None if the space is sRGB or not known.
    """
    known = primaries in _PRIMARIES and (transfer in _SRGB_LIKE or transfer in _TRANSFERS)
    if not known or (primaries == 1 and transfer in _SRGB_LIKE):
        return None
    return _matrix_profile(_PRIMARIES[primaries], _TRANSFERS.get(transfer, _srgb_to_light))


def gamma_profile(gamma: float | None, chromaticities: tuple[float, ...] | None) -> bytes | None:
    """Describe the colour space of a PNG's gAMA and cHRM chunks.

    Args:
        gamma: the exponent from light to samples, 1 / 2.2 for most images. None is sRGB's curve.
        chromaticities: x and y of white, red, green and blue. None are sRGB's.

    Returns:
        An ICC profile, or None if the space is sRGB or makes no sense.
    """
    # Programs write 1 / 2.2 and mean sRGB.
    is_srgb = gamma is None or abs(gamma * 2.2 - 1) < 0.05
    if (is_srgb and chromaticities is None) or (gamma is not None and not 0.1 <= gamma <= 10):
        return None
    to_light = _srgb_to_light if is_srgb or gamma is None else _power(1 / gamma)
    return _matrix_profile(chromaticities or _PRIMARIES[1], to_light)


# --- reading --------------------------------------------------------------------------------


def _read_xyz(tag: bytes, _channels: int) -> bytes | None:
    return tag[:20] if tag[:4] == b"XYZ " and len(tag) >= 20 else None


def _read_matrix(tag: bytes, _channels: int) -> bytes | None:
    return tag[:44] if tag[:4] == b"sf32" and len(tag) >= 44 else None


def _read_curve(tag: bytes, _channels: int) -> bytes | None:
    size = _curve_bytes(tag, 0)
    return tag[:size] if size else None


def _read_table(tag: bytes, channels: int) -> bytes | None:
    """Return a table from the device's colours to XYZ or L*a*b* if its sizes fit."""
    if len(tag) < 32 or tag[8] != channels or tag[9] != 3:
        return None
    kind = tag[:4]
    if kind == b"mAB ":
        return tag if _has_good_parts(tag, channels) else None
    if kind == b"mft1":
        needed = 48 + 256 * channels + tag[10] ** channels * 3 + 256 * 3
    elif kind == b"mft2" and len(tag) >= 52:
        entries, out_entries = struct.unpack_from(">HH", tag, 48)
        needed = 52 + 2 * (entries * channels + tag[10] ** channels * 3 + out_entries * 3)
    else:
        return None
    return tag[:needed] if len(tag) >= needed else None


def _has_good_parts(tag: bytes, channels: int) -> bool:
    """Whether the curves and the table of an mAB tag are all there, ICC.1:2022 10.12."""
    b_curves, matrix, m_curves, table, a_curves = struct.unpack_from(">5I", tag, 12)
    curves = ((b_curves, 3), (m_curves, 3), (a_curves, channels))
    if any(start and not _are_curves(tag, start, count) for start, count in curves):
        return False
    if matrix and len(tag) < matrix + 48:
        return False
    if not table:
        return True
    if len(tag) < table + 20:
        return False
    values = 3 * int(tag[table + 16])  # bytes of one entry
    for points in tag[table : table + channels]:
        values *= points
    return bool(0 < values <= len(tag) - table - 20)


def _are_curves(tag: bytes, start: int, count: int) -> bool:
    for _ in range(count):
        size = _curve_bytes(tag, start)
        if not size:
            return False
        start += size + -size % 4
    return True


def _curve_bytes(tag: bytes, start: int) -> int:
    """Return the length of a curve, 0 if it is damaged or too long."""
    if len(tag) < start + 12:
        return 0
    kind = tag[start : start + 4]
    size = 0
    if kind == b"curv":
        (entries,) = struct.unpack_from(">I", tag, start + 8)
        size = 12 + 2 * entries if entries <= MAX_CURVE_ENTRIES else 0
    elif kind == b"para":
        (function,) = struct.unpack_from(">H", tag, start + 8)
        size = 12 + 4 * _PARAMETERS[function] if function < len(_PARAMETERS) else 0
    return size if start + size <= len(tag) else 0


_READERS: dict[bytes, Callable[[bytes, int], bytes | None]] = {
    **dict.fromkeys(_XYZ_TAGS, _read_xyz),
    **dict.fromkeys(_CURVE_TAGS, _read_curve),
    b"chad": _read_matrix,
    b"A2B0": _read_table,
}


# --- writing --------------------------------------------------------------------------------


def _write(header: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body = [struct.pack(">I", len(tags))], []
    start = _HEADER_BYTES + 4 + 12 * len(tags)
    for name, content in tags.items():
        table.append(struct.pack(">4sII", name, start, len(content)))
        padded = content + bytes(-len(content) % 4)
        body.append(padded)
        start += len(padded)
    return b"".join((struct.pack(">I", start), header[4:], *table, *body))


@functools.lru_cache(maxsize=8)
def _matrix_profile(
    chromaticities: tuple[float, ...],
    to_light: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> bytes | None:
    """Return a profile of three primaries and one curve from samples to light, both 0..1."""
    xy = np.array(chromaticities).reshape(4, 2)
    if (xy[:, 1] <= 0).any() or np.linalg.matrix_rank(_to_xyz(xy[1:])) < 3:
        return None
    white, primaries = _to_xyz(xy[:1])[:, 0], _to_xyz(xy[1:])
    to_d50 = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white)) @ _BRADFORD
    colours = to_d50 @ (primaries * np.linalg.solve(primaries, white))
    if not np.isfinite(colours).all() or np.abs(colours).max() > 100:
        return None
    levels = np.clip(to_light(np.linspace(0, 1, 4096)), 0, 1) * 65535
    curve = b"curv\0\0\0\0" + struct.pack(">I", 4096) + np.rint(levels).astype(">u2").tobytes()
    tags = {b"wtpt": _xyz(_D50)}
    tags |= {name: _xyz(colours[:, n]) for n, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    header = struct.pack(">I4sI4s4s4s", 0, bytes(4), 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + _xyz(_D50)[8:]
    return _write(header.ljust(_HEADER_BYTES, b"\0"), tags)


_D50 = np.array((0.9642, 1.0, 0.8249))  # ICC.1:2022 6.3.1
# Cones' responses, ICC.1:2022 annex E.3.
_BRADFORD = np.array(
    ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
)


def _to_xyz(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return columns X, Y = 1, Z."""
    return np.array((xy[:, 0] / xy[:, 1], np.ones(len(xy)), (1 - xy.sum(axis=1)) / xy[:, 1]))


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *np.rint(values * 65536).astype(int))


# --- from samples to light, both 0..1 -------------------------------------------------------


def _srgb_to_light(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


@functools.lru_cache(maxsize=64)  # the exponent comes from a stranger
def _power(exponent: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda samples: samples**exponent


def _pq_to_light(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """SMPTE ST 2084, as in ITU-R BT.2100 table 4. 1 is SDR white."""
    root = samples ** (1 / 78.84375)
    light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (
        1 / 0.1593017578125
    )
    return light * 10_000 / _SDR_WHITE_NITS


def _hlg_to_light(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """ITU-R BT.2100 table 5 on a display of 1,000 nits, whose gamma is 1.2. 1 is SDR white."""
    scene = np.where(
        samples <= 0.5,
        samples**2 / 3,
        (np.exp((samples - 0.55991073) / 0.17883277) + 0.28466892) / 12,
    )
    return scene**1.2 * 1_000 / _SDR_WHITE_NITS


_TRANSFERS = {
    4: _power(2.2),
    5: _power(2.8),
    8: _power(1.0),
    16: _pq_to_light,
    18: _hlg_to_light,
}
