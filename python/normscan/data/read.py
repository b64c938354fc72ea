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
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from normscan.data.header import EXPORT, Header, RefusedError, inspect_header
from normscan.data.sample import Record, Sample
from normscan.errors import ArgumentError, ImageError
from normscan.files import write_bytes

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
MAX_PIXELS = 100_000_000
_MAX_BYTES = 2**31 - 1  # OpenCV counts an encoded buffer in an int

PathLike = str | os.PathLike[str]


def read_image(path: PathLike, *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Decode one image -> [H,W] or [H,W,3] (RGB), uint8, uint16 or float32 (finite, 0..1), upright.

    EXIF orientation is applied. Opaque alpha is dropped; where there is real transparency the colours are composited
    over black. CMYK JPEGs become RGB. Raises ImageError for everything else, `max_pixels` included.
    """
    data = _load(path)
    try:
        header = inspect_header(data)
        if header.height * header.width > max_pixels:
            size = f"{header.width} x {header.height} = {header.height * header.width}"
            raise RefusedError(f"found {size} pixels; expected at most {max_pixels}", "crop it or raise max_pixels")
        return _upright(_colour(_in_range(_decode(data, header)), header), header.orientation)
    except RefusedError as reason:
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


def _decode(data: bytes, header: Header) -> NDArray[Any]:
    cv2 = _opencv()
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise RefusedError(f"OpenCV cannot decode it ({error.err})", "copy the file again or " + EXPORT) from None
    # OpenCV turns TIFFs upright by itself, so that their sides may have changed places.
    if pixels is None or sorted(pixels.shape[:2]) != sorted((header.height, header.width)):
        raise RefusedError(
            "the picture's data are damaged or of an unsupported kind", "copy the file again or " + EXPORT
        )
    return np.asarray(pixels)


def in_range(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels that came as an array, checked as those of a file are: uint8, uint16, or float32 finite and in 0..1."""
    try:
        return _in_range(pixels)
    except RefusedError as reason:
        found, remedy = reason.args
        raise ImageError(f"pixels: {found}; {remedy}") from None


def _in_range(pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.size == 0:
        raise RefusedError(f"found an empty array of shape {list(pixels.shape)}; expected [H,W] or [H,W,3]", "check it")
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if pixels.dtype != np.float32:
        raise RefusedError(f"found {pixels.dtype} pixels; expected uint8, uint16 or float32", EXPORT)
    low, high = float(pixels.min()), float(pixels.max())  # NaN wins in both
    if low >= 0 and high <= 1:
        return pixels
    bad = int(np.count_nonzero(~np.isfinite(pixels)))
    found = f"{bad} values that are NaN or infinite" if bad else f"float pixels from {low:g} to {high:g}"
    raise RefusedError(f"found {found}; expected finite values, 0 to 1", "rescale or mend them")


def _colour(pixels: NDArray[Any], header: Header) -> NDArray[Any]:
    """OpenCV's grey, BGR or BGRA -> grey or RGB."""
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] not in (3, 4):
        raise RefusedError(f"found {pixels.shape[2]} channels; expected 1, 3 or 4 (with alpha)", EXPORT)
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
