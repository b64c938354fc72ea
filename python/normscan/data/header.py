"""What an image file declares before it is decoded: size, kind, orientation, and whether all of it is there.

Short parsers for PNG, JPEG, TIFF, BMP and WebP. A small file may declare a picture of gigabytes, hold several pictures,
or end too early; OpenCV says none of that, so it is asked only after these.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

EXPORT = "export it again as 8- or 16-bit grey or RGB PNG"


class Header(NamedTuple):
    """What a file declares: height and width as stored, and the EXIF orientation (1..8) that is to be applied."""

    height: int
    width: int
    orientation: int = 1
    alpha: bool = True  # False: a fourth channel is padding, not transparency


class RefusedError(Exception):
    """Why a file is not decoded: (what was found, what to do). `read_image` adds the file's name."""


def inspect_header(data: bytes) -> Header:
    """Find the format by its first bytes (names lie) and ask its parser."""
    for magic, parser in _PARSERS.items():
        if re.match(magic, data, re.DOTALL):
            try:
                header = parser(data)
            except struct.error:
                raise RefusedError(f"the file ends early, after {len(data)} bytes", "copy it again") from None
            except (IndexError, OverflowError, ValueError):
                raise RefusedError("the file's header is damaged", "copy it again or " + EXPORT) from None
            if header.height < 1 or header.width < 1:
                raise RefusedError(f"found {header.width} x {header.height} pixels", "copy the file again or " + EXPORT)
            return header
    kind = "a text file" if data[:64].isascii() and b"\0" not in data[:64] else f"first bytes {data[:8].hex(' ')}"
    kind = "a DICOM file" if data[128:132] == b"DICM" else kind
    raise RefusedError(f"found {kind}; expected PNG, JPEG, TIFF, BMP or WebP", "remove it or " + EXPORT)


def _truncated(what: str) -> RefusedError:
    return RefusedError(f"the file ends early, {what}", "copy it again")


def _png(data: bytes) -> Header:
    """PNG (ISO 15948): chunks of length, kind, body, CRC; complete when IEND is reached."""
    at, size, orientation = 8, (0, 0), 1
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise _truncated(f"inside chunk {kind.decode('latin-1')}")
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise RefusedError(f"chunk {kind.decode('latin-1')} at byte {at} is damaged (CRC)", "copy the file again")
        if kind == b"IHDR":
            size = struct.unpack_from(">II", data, at + 8)
        elif kind == b"eXIf":
            orientation = _exif_orientation(data[at + 8 : end - 4])
        elif kind == b"acTL" and struct.unpack_from(">I", data, at + 8)[0] > 1:
            raise RefusedError("found an animation; expected one picture", "export its pictures one by one")
        elif kind == b"IEND":
            return Header(size[1], size[0], orientation)
        at = end
    raise _truncated("before chunk IEND")


# A marker is FF and a code; FF 00 is a data byte, FF D0..D7 are restarts inside a scan, FF FF is padding.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")


def _jpeg(data: bytes) -> Header:
    """JPEG (ITU T.81): segments up to the end-of-image marker. A thumbnail's own end lies inside a segment, skipped."""
    at, size, orientation = 2, None, 1
    while match := _MARKER.search(data, at):
        code, at = match[1][0], match.end()
        if code == 0xD9:
            if size is None:
                break
            return Header(size[0], size[1], orientation)
        (length,) = struct.unpack_from(">H", data, at)
        if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            depth, *size = struct.unpack_from(">BHH", data, at + 2)
            if depth != 8 or code not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
                raise RefusedError(
                    f"found a {depth}-bit or lossless JPEG; expected 8-bit baseline or progressive", EXPORT
                )
        elif code == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0":
            orientation = _exif_orientation(data[at + 8 : at + length])
        at += length
    raise _truncated("before the JPEG's end-of-image marker")


def _bmp(data: bytes) -> Header:
    """BMP: core (12 bytes) or information header. Its fourth byte is padding in most files, so never transparency."""
    start, header = struct.unpack_from("<II", data, 10)
    core = header == 12
    width, height, _, bits, *rest = struct.unpack_from("<HHHH" if core else "<iiHHI", data, 18)
    stored = (width * bits + 31) // 32 * 4 * abs(height)
    if (core or rest[0] in (0, 3)) and start + stored > len(data):  # 1 and 2 are run-length codes
        raise _truncated(f"after {len(data)} of {start + stored} bytes")
    return Header(abs(height), width, alpha=False)  # a negative height: rows from the top


def _webp(data: bytes) -> Header:
    """WebP (RFC 9649): a RIFF of VP8 (lossy), VP8L (lossless) or VP8X (extended) first."""
    total = 8 + int(struct.unpack_from("<I", data, 4)[0])
    if total > len(data):
        raise _truncated(f"after {len(data)} of {total} bytes")
    kind = data[12:16]
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        return Header((packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1)
    if kind != b"VP8X":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        return Header(height, width)
    if data[20] & 0x02:
        raise RefusedError("found an animation; expected one picture", "export its pictures one by one")
    width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    at, orientation = 12, 1
    while at + 8 <= total:
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"EXIF":
            orientation = _exif_orientation(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    return Header(height, width, orientation)


_Tags = dict[int, tuple[int, ...]]
_TIFF_KINDS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # field types that hold unsigned whole numbers
_TIFF_TAGS = {254, 256, 257, 258, 259, 262, 273, 274, 277, 279, 284, 324, 325, 338, 339}  # TIFF 6.0, section 8
_TIFF_DIRECTORIES = 64  # pages and thumbnails that are looked at, so that a crafted file cannot keep us busy
_TIFF_VALUES = 1 << 20  # strips or tiles of a picture: a bound, as each becomes a Python number


def _tiff_pages(data: bytes) -> Iterator[_Tags]:
    """The tags in _TIFF_TAGS of each directory of a TIFF, BigTIFF or EXIF block."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    word, entry, counter = ("Q", 20, "Q") if big else ("I", 12, "H")
    pointer = 8 if big else 4
    (at,) = struct.unpack_from(order + word, data, pointer)
    seen: set[int] = set()
    while at and at not in seen and len(seen) < _TIFF_DIRECTORIES:
        seen.add(at)
        (count,) = struct.unpack_from(order + counter, data, at)
        at += struct.calcsize(counter)
        tags: _Tags = {}
        for field in range(at, at + count * entry, entry):
            tag, kind, values = struct.unpack_from(order + "HH" + word, data, field)
            if tag in _TIFF_TAGS and tag not in tags and kind in _TIFF_KINDS and 0 < values <= _TIFF_VALUES:
                form = f"{order}{values}{_TIFF_KINDS[kind]}"
                inside = field + entry - pointer
                outside = struct.calcsize(form) > pointer
                place = struct.unpack_from(order + word, data, inside)[0] if outside else inside
                tags[tag] = struct.unpack_from(form, data, place)
        yield tags
        (at,) = struct.unpack_from(order + word, data, at + count * entry)


def _exif_orientation(block: bytes) -> int:
    """Orientation 1..8; 1 where the block says nothing or is damaged, as it is not part of the picture."""
    try:
        found = next(_tiff_pages(block), {}).get(0x112, (1,))[0]
    except (struct.error, IndexError, OverflowError):
        return 1
    return found if 1 <= found <= 8 else 1


def _tiff(data: bytes) -> Header:
    """TIFF 6.0 and BigTIFF: one page of 1- or 8-bit, 16-bit or float32 grey, palette or RGB, all of its strips here."""
    pages = _tiff_pages(data)
    page = next(pages, {})
    if not {256, 257} <= page.keys():
        raise RefusedError("found no picture in the TIFF", "copy the file again or " + EXPORT)
    if any(not other.get(254, (0,))[0] & 0b101 for other in pages):  # neither a thumbnail nor a mask
        raise RefusedError("found more than one page; expected one picture", "export its pages one by one")
    _check_tiff_kind(page)
    width, height, bits, samples = page[256][0], page[257][0], page.get(258, (1,))[0], page.get(277, (1,))[0]
    offsets, counts = page.get(273, page.get(324, ())), page.get(279, page.get(325, ()))
    stored = height * width * samples * bits // 8 if page.get(259, (1,))[0] == 1 else 1  # 1: not compressed
    ends = [offset + count for offset, count in zip(offsets, counts, strict=False)]
    if len(offsets) != len(counts) or sum(counts) < stored or max(ends) > len(data):
        raise _truncated("before the last of its picture data")
    # Extra sample 2 is alpha that is still to be multiplied in; for 8-bit pictures libtiff has done so.
    return Header(height, width, alpha=bits != 8 and page.get(338, (0,))[0] == 2)


def _check_tiff_kind(page: _Tags) -> None:
    depths, formats = set(page.get(258, (1,))), set(page.get(339, (1,)))
    photometric, samples, planar = (page.get(tag, (1,))[0] for tag in (262, 277, 284))
    known = (depths, formats) in (({1}, {1}), ({8}, {1}), ({16}, {1}), ({32}, {3})) and samples in (1, 3, 4)
    shallow = max(depths) <= 8
    # 0 white is zero (OpenCV inverts it up to 8 bits only), 1 black is zero, 2 RGB, 3 palette, 6 YCbCr
    known &= photometric in (1, 2, 3, 6) or (photometric == 0 and shallow)
    known &= planar == 1 or samples == 1 or shallow  # of deep planes OpenCV fills one and leaves the others unwritten
    if not known:
        found = f"{sorted(depths)} bits, format {sorted(formats)}, photometric {photometric}, planar {planar}"
        raise RefusedError(f"found a TIFF with {samples} samples, {found}; expected grey, palette or RGB", EXPORT)


_PARSERS = {
    rb"\x89PNG\r\n\x1a\n": _png,
    rb"\xff\xd8\xff": _jpeg,
    rb"II[*+]\0|MM\0[*+]": _tiff,
    rb"RIFF....WEBP": _webp,
    rb"BM": _bmp,
}
