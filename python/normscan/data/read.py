"""Image files to pixels, and back: PNG, JPEG, TIFF, BMP and WebP through OpenCV.

Every file is looked at before it is decoded: a short parser for each format finds the height and width (a small file
may declare a picture of gigabytes), the depth, the EXIF orientation, more than one picture, and a file that ends too
early. OpenCV is asked only then, because it returns a half-grey picture for a truncated JPEG (4.x), ignores the
strips that a TIFF lacks, and shows the first of several pages without a word. What cannot be represented is refused
rather than truncated.

Not seen from outside, and so not refused: bytes altered in the middle of a JPEG or of a compressed TIFF strip, which
carry no checksum. Colour profiles (ICC) are ignored.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normscan.data.sample import Record, Sample
from normscan.errors import ArgumentError, ImageError
from normscan.files import write_bytes

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
MAX_PIXELS = 100_000_000
_MAX_BYTES = 2**31 - 1  # OpenCV counts an encoded buffer in an int
_EXPORT = "export it again as 8- or 16-bit grey or RGB PNG"

PathLike = str | os.PathLike[str]


class _Header(NamedTuple):
    """What a file declares: height and width as stored, and the EXIF orientation (1..8) that is to be applied."""

    height: int
    width: int
    orientation: int = 1
    alpha: bool = True  # False: a fourth channel is padding, not transparency


class _RefusedError(Exception):
    """Why a file is not decoded: (what was found, what to do). `read_image` adds the file's name."""


def read_image(path: PathLike, *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Decode one image -> [H,W] or [H,W,3] (RGB), uint8, uint16 or float32 (finite, 0..1), upright.

    EXIF orientation is applied. Opaque alpha is dropped; where there is real transparency the colours are composited
    over black. CMYK JPEGs become RGB. Raises ImageError for everything else, `max_pixels` included.
    """
    data = _load(path)
    try:
        header = _inspect(data)
        if header.height * header.width > max_pixels:
            size = f"{header.width} x {header.height} = {header.height * header.width}"
            raise _RefusedError(f"found {size} pixels; expected at most {max_pixels}", "crop it or raise max_pixels")
        return _upright(_colour(_in_range(_decode(data, header)), header), header.orientation)
    except _RefusedError as reason:
        found, remedy = reason.args
        raise ImageError(f"{path}: {found}; {remedy}") from None


def read_mask(path: PathLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Decode a mask -> bool [H,W], True where any channel is non-zero; `shape` is the picture's (H, W) or (H, W, C)."""
    pixels = read_image(path)
    if pixels.shape[:2] != tuple(shape[:2]):
        found, wanted = (f"{size[1]} x {size[0]}" for size in (pixels.shape, shape))
        raise ImageError(f"{path}: the mask is {found} pixels, its picture {wanted}; make the mask the picture's size")
    return np.asarray(pixels.reshape(*pixels.shape[:2], -1).any(axis=2))


def read(record: Record) -> Sample:
    """Decode a record's picture and, where it names one, its mask."""
    pixels = read_image(record.path)
    return Sample(record, pixels, None if record.mask is None else read_mask(record.mask, pixels.shape))


def write_image(path: PathLike, pixels: NDArray[Any]) -> None:
    """Write [H,W] or [H,W,3] (RGB) uint8, uint16 or bool (as 0 and 255) pixels as PNG, whole or not at all.

    Raises ArgumentError for other pixels or another suffix, OutputError where the disk refuses.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ArgumentError(f"{target}: found suffix {target.suffix!r}; expected '.png', the only format written")
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    shape_ok = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype not in (np.uint8, np.uint16) or not shape_ok or pixels.size == 0:
        raise ArgumentError(
            f"{target}: found {pixels.dtype} pixels of shape {list(pixels.shape)}; "
            "expected uint8, uint16 or bool [H,W] or [H,W,3], convert first"
        )
    ordered = pixels if pixels.ndim == 2 else pixels[:, :, ::-1]
    _, encoded = _opencv().imencode(".png", np.ascontiguousarray(ordered))
    write_bytes(target, encoded.tobytes())


@contextmanager
def _opened(path: PathLike) -> Iterator[BinaryIO]:
    """Open a regular file; O_NONBLOCK so that a FIFO without a writer is an error rather than a wait."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; it was moved or deleted, or the name is misspelt") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be opened ({error}); expected a readable image file") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "no regular file"
        raise ImageError(f"{path}: found {kind}; expected an image file, name one")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _load(path: PathLike) -> bytes:
    try:
        with _opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MAX_BYTES:
                raise ImageError(f"{path}: found {size} bytes; expected at most {_MAX_BYTES}, crop the picture")
            data = file.read(size)
    except OSError as error:  # a disk or network share that fails while reading; opening has its own message
        raise ImageError(f"{path}: cannot be read ({error}); copy the file again") from error
    if not data:
        raise ImageError(f"{path}: the file is empty (0 bytes); expected an image, copy it again or remove it")
    return data


def _opencv() -> Any:
    """OpenCV at its first use. What it would log to stderr comes back as our errors, which name the file."""
    import cv2

    if "OPENCV_LOG_LEVEL" not in os.environ:
        quiet = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel  # 4.x, 5.x
        quiet(0)
    return cv2


def _decode(data: bytes, header: _Header) -> NDArray[Any]:
    cv2 = _opencv()
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _RefusedError(f"OpenCV cannot decode it ({error.err})", "copy the file again or " + _EXPORT) from None
    # OpenCV turns TIFFs upright by itself, so that their sides may have changed places.
    if pixels is None or sorted(pixels.shape[:2]) != sorted((header.height, header.width)):
        raise _RefusedError(
            "the picture's data are damaged or of an unsupported kind", "copy the file again or " + _EXPORT
        )
    return np.asarray(pixels)


def in_range(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels that came as an array, checked as those of a file are: uint8, uint16, or float32 finite and in 0..1."""
    try:
        return _in_range(pixels)
    except _RefusedError as reason:
        found, remedy = reason.args
        raise ImageError(f"pixels: {found}; {remedy}") from None


def _in_range(pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.size == 0:
        raise _RefusedError(
            f"found an empty array of shape {list(pixels.shape)}; expected [H,W] or [H,W,3]", "check it"
        )
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if pixels.dtype != np.float32:
        raise _RefusedError(f"found {pixels.dtype} pixels; expected uint8, uint16 or float32", _EXPORT)
    low, high = float(pixels.min()), float(pixels.max())  # NaN wins in both
    if low >= 0 and high <= 1:
        return pixels
    bad = int(np.count_nonzero(~np.isfinite(pixels)))
    found = f"{bad} values that are NaN or infinite" if bad else f"float pixels from {low:g} to {high:g}"
    raise _RefusedError(f"found {found}; expected finite values, 0 to 1", "rescale or mend them")


def _colour(pixels: NDArray[Any], header: _Header) -> NDArray[Any]:
    """OpenCV's grey, BGR or BGRA -> grey or RGB."""
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] not in (3, 4):
        raise _RefusedError(f"found {pixels.shape[2]} channels; expected 1, 3 or 4 (with alpha)", _EXPORT)
    cv2 = _opencv()
    rgb: NDArray[Any] = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # takes BGRA too, and drops its alpha
    alpha = pixels[:, :, 3:]
    opaque = 1 if pixels.dtype == np.float32 else np.iinfo(pixels.dtype).max
    if not header.alpha or bool((alpha == opaque).all()):
        return rgb
    if pixels.dtype == np.float32:
        return np.asarray(rgb * alpha)
    product = rgb.astype(np.uint32) * alpha + np.uint32(opaque // 2)  # 65535 * 65535 + 32767 still fits
    return np.asarray(product // np.uint32(opaque), dtype=pixels.dtype)


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo the EXIF orientation (EXIF 2.32, tag 274): 5 to 8 exchange the sides."""
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _inspect(data: bytes) -> _Header:
    """Find the format by its first bytes (names lie) and ask its parser."""
    for magic, parser in _PARSERS.items():
        if re.match(magic, data, re.DOTALL):
            try:
                header = parser(data)
            except struct.error:
                raise _RefusedError(f"the file ends early, after {len(data)} bytes", "copy it again") from None
            except (IndexError, OverflowError, ValueError):
                raise _RefusedError("the file's header is damaged", "copy it again or " + _EXPORT) from None
            if header.height < 1 or header.width < 1:
                raise _RefusedError(
                    f"found {header.width} x {header.height} pixels", "copy the file again or " + _EXPORT
                )
            return header
    kind = "a text file" if data[:64].isascii() and b"\0" not in data[:64] else f"first bytes {data[:8].hex(' ')}"
    kind = "a DICOM file" if data[128:132] == b"DICM" else kind
    raise _RefusedError(f"found {kind}; expected PNG, JPEG, TIFF, BMP or WebP", "remove it or " + _EXPORT)


def _truncated(what: str) -> _RefusedError:
    return _RefusedError(f"the file ends early, {what}", "copy it again")


def _png(data: bytes) -> _Header:
    """PNG (ISO 15948): chunks of length, kind, body, CRC; complete when IEND is reached."""
    at, size, orientation = 8, (0, 0), 1
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise _truncated(f"inside chunk {kind.decode('latin-1')}")
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise _RefusedError(f"chunk {kind.decode('latin-1')} at byte {at} is damaged (CRC)", "copy the file again")
        if kind == b"IHDR":
            size = struct.unpack_from(">II", data, at + 8)
        elif kind == b"eXIf":
            orientation = _exif_orientation(data[at + 8 : end - 4])
        elif kind == b"acTL" and struct.unpack_from(">I", data, at + 8)[0] > 1:
            raise _RefusedError("found an animation; expected one picture", "export its pictures one by one")
        elif kind == b"IEND":
            return _Header(size[1], size[0], orientation)
        at = end
    raise _truncated("before chunk IEND")


# A marker is FF and a code; FF 00 is a data byte, FF D0..D7 are restarts inside a scan, FF FF is padding.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")


def _jpeg(data: bytes) -> _Header:
    """JPEG (ITU T.81): segments up to the end-of-image marker. A thumbnail's own end lies inside a segment, skipped."""
    at, size, orientation = 2, None, 1
    while match := _MARKER.search(data, at):
        code, at = match[1][0], match.end()
        if code == 0xD9:
            if size is None:
                break
            return _Header(size[0], size[1], orientation)
        (length,) = struct.unpack_from(">H", data, at)
        if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            depth, *size = struct.unpack_from(">BHH", data, at + 2)
            if depth != 8 or code not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
                raise _RefusedError(
                    f"found a {depth}-bit or lossless JPEG; expected 8-bit baseline or progressive", _EXPORT
                )
        elif code == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0":
            orientation = _exif_orientation(data[at + 8 : at + length])
        at += length
    raise _truncated("before the JPEG's end-of-image marker")


def _bmp(data: bytes) -> _Header:
    """BMP: core (12 bytes) or information header. Its fourth byte is padding in most files, so never transparency."""
    start, header = struct.unpack_from("<II", data, 10)
    core = header == 12
    width, height, _, bits, *rest = struct.unpack_from("<HHHH" if core else "<iiHHI", data, 18)
    stored = (width * bits + 31) // 32 * 4 * abs(height)
    if (core or rest[0] in (0, 3)) and start + stored > len(data):  # 1 and 2 are run-length codes
        raise _truncated(f"after {len(data)} of {start + stored} bytes")
    return _Header(abs(height), width, alpha=False)  # a negative height: rows from the top


def _webp(data: bytes) -> _Header:
    """WebP (RFC 9649): a RIFF of VP8 (lossy), VP8L (lossless) or VP8X (extended) first."""
    total = 8 + int(struct.unpack_from("<I", data, 4)[0])
    if total > len(data):
        raise _truncated(f"after {len(data)} of {total} bytes")
    kind = data[12:16]
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        return _Header((packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1)
    if kind != b"VP8X":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        return _Header(height, width)
    if data[20] & 0x02:
        raise _RefusedError("found an animation; expected one picture", "export its pictures one by one")
    width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    at, orientation = 12, 1
    while at + 8 <= total:
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"EXIF":
            orientation = _exif_orientation(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    return _Header(height, width, orientation)


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


def _tiff(data: bytes) -> _Header:
    """TIFF 6.0 and BigTIFF: one page of 1- or 8-bit, 16-bit or float32 grey, palette or RGB, all of its strips here."""
    pages = _tiff_pages(data)
    page = next(pages, {})
    if not {256, 257} <= page.keys():
        raise _RefusedError("found no picture in the TIFF", "copy the file again or " + _EXPORT)
    if any(not other.get(254, (0,))[0] & 0b101 for other in pages):  # neither a thumbnail nor a mask
        raise _RefusedError("found more than one page; expected one picture", "export its pages one by one")
    _check_tiff_kind(page)
    width, height, bits, samples = page[256][0], page[257][0], page.get(258, (1,))[0], page.get(277, (1,))[0]
    offsets, counts = page.get(273, page.get(324, ())), page.get(279, page.get(325, ()))
    stored = height * width * samples * bits // 8 if page.get(259, (1,))[0] == 1 else 1  # 1: not compressed
    ends = [offset + count for offset, count in zip(offsets, counts, strict=False)]
    if len(offsets) != len(counts) or sum(counts) < stored or max(ends) > len(data):
        raise _truncated("before the last of its picture data")
    # Extra sample 2 is alpha that is still to be multiplied in; for 8-bit pictures libtiff has done so.
    return _Header(height, width, alpha=bits != 8 and page.get(338, (0,))[0] == 2)


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
        raise _RefusedError(f"found a TIFF with {samples} samples, {found}; expected grey, palette or RGB", _EXPORT)


_PARSERS = {
    rb"\x89PNG\r\n\x1a\n": _png,
    rb"\xff\xd8\xff": _jpeg,
    rb"II[*+]\0|MM\0[*+]": _tiff,
    rb"RIFF....WEBP": _webp,
    rb"BM": _bmp,
}
