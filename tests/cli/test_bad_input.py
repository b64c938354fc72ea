"""All that a folder, a bundle or a disk can do wrong: a clear error with the right exit code, or a correct result."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

Call = Callable[..., tuple[int, str, str]]


def png(path: Path, pixels: np.ndarray) -> None:
    assert cv2.imwrite(str(path), pixels)


def truncated_png(path: Path, picture: np.ndarray) -> None:
    png(path, picture)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_jpeg(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def huge_png(path: Path, picture: np.ndarray) -> None:
    """20,000 x 20,000 pixels in about 1 MB."""
    del picture

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    side = 20_000
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(1 + 3 * side)) for _ in range(side)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def float_tiff(path: Path, picture: np.ndarray, value: float) -> None:
    pixels = picture.astype(np.float32) / 255
    pixels[2, 3, 0] = value
    assert cv2.imwrite(str(path), pixels)


REFUSED: dict[str, Callable[[Path, np.ndarray], object]] = {
    "truncated.png": truncated_png,
    "truncated.jpg": truncated_jpeg,
    "text.png": lambda path, _: path.write_text("this is no picture"),
    "empty.png": lambda path, _: path.touch(),
    "huge.png": huge_png,
    "riff.webp": lambda path, _: path.write_bytes(b"RIFF\x08\0\0\0WEBPVP8X"),
    "bigtiff.tif": lambda path, _: path.write_bytes(b"II\x2b\0\x08\0\0\0" + b"\xff" * 8),
    "nan.tif": lambda path, picture: float_tiff(path, picture, np.nan),
    "inf.tif": lambda path, picture: float_tiff(path, picture, np.inf),
}


def rotated_jpeg(path: Path, picture: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(path, "JPEG", exif=exif)


ACCEPTED: dict[str, Callable[[Path, np.ndarray], object]] = {
    "one.png": lambda path, picture: png(path, picture[:1, :1]),
    "grey16.png": lambda path, picture: png(path, picture[:, :, 0].astype(np.uint16) * 257),
    "rgb16.png": lambda path, picture: png(path, picture.astype(np.uint16) * 257),
    "rgba.png": lambda path, picture: png(path, np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])),
    "cmyk.jpg": lambda path, picture: Image.fromarray(picture).convert("CMYK").save(path, "JPEG"),
    "rotated.jpg": rotated_jpeg,
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_picture_is_named_and_the_others_scored(
    call: Call, bundle: Path, tmp_path: Path, picture: np.ndarray, name: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    png(folder / "good.png", picture)
    REFUSED[name](folder / name, picture)
    code, out, err = call("score", bundle, "-i", folder, "--json")
    assert code == 4
    found = {row["file"]: row for row in json.loads(out)["rows"]}
    assert found["good.png"]["score"] is not None
    assert name in found[name]["error"]
    assert name in err
    (folder / "good.png").unlink()
    assert call("score", bundle, "-i", folder)[0] == 3


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_unusual_picture_is_scored(call: Call, bundle: Path, tmp_path: Path, picture: np.ndarray, name: str) -> None:
    ACCEPTED[name](tmp_path / name, picture)
    code, out, _ = call("score", bundle, "-i", tmp_path / name, "--json")
    assert code == 0
    assert np.isfinite(json.loads(out)["rows"][0]["score"])


def test_a_huge_picture_takes_no_memory(bundle: Path, tmp_path: Path, picture: np.ndarray) -> None:
    huge_png(tmp_path / "huge.png", picture)
    assert (tmp_path / "huge.png").stat().st_size < 2 << 20
    done = subprocess.run(
        [sys.executable, "-m", "normscan.cli", "score", bundle, "-i", tmp_path / "huge.png"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30)),
    )
    assert done.returncode == 3
    assert "huge.png" in done.stderr


def test_a_vanished_file(call: Call, bundle: Path, tmp_path: Path, picture: np.ndarray) -> None:
    png(tmp_path / "good.png", picture)
    # A dangling link is what a listing shows of a file that is gone when it is opened.
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    code, out, _ = call("score", bundle, "-i", tmp_path, "--json")
    assert code == 4
    assert {row["file"]: row["error"] is None for row in json.loads(out)["rows"]} == {
        "good.png": True,
        "gone.png": False,
    }


def test_a_folder_without_pictures(call: Call, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    code, _, err = call("score", bundle, "-i", tmp_path)
    assert code == 3
    assert ".png" in err
    code, _, err = call("train", "ocad", "-i", tmp_path, "-o", tmp_path / "run")
    assert code == 3
    assert "train/normal" in err
    assert not (tmp_path / "run").exists()


def test_train_and_test_overlap(call: Call, skin: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(skin, tmp_path / "data"))
    first = min((root / "train" / "normal").iterdir())
    shutil.copy(first, root / "test" / "normal" / "copy.png")
    code, _, err = call("train", "ocad", "-i", root, "-o", tmp_path / "run")
    assert code == 3
    assert "copy.png" in err
    assert first.name in err
    code, out, _ = call("inspect", root)
    assert code == 0
    assert "copy.png" in out


def test_an_altered_bundle(call: Call, bundle: Path, skin: Path) -> None:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(data)
    for verb in (["score", bundle, "-i", skin], ["verify", bundle], ["inspect", bundle]):
        code, _, err = call(*verb)
        assert code == 3
        assert "model.onnx" in err


def test_an_altered_run(call: Call, run: Path, skin: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "spec.json").write_text((copy / "spec.json").read_text().replace("0.42", "0.43"))
    code, _, err = call("evaluate", copy, "-i", skin, "-o", tmp_path / "e")
    assert code == 3
    assert "spec.json" in err


def limited(bytes_: int) -> Callable[[], None]:
    """A file may grow no larger: what a full disk does to a write, without filling one."""

    def apply() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))

    return apply


# Where each verb is stopped: train within its checkpoint, export within the model, score and evaluate within a picture.
LIMIT = {"train": 20_000, "export": 20_000, "score": 600, "evaluate": 5_000}


@pytest.mark.parametrize("verb", LIMIT)
def test_a_full_disk(verb: str, run: Path, bundle: Path, skin: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    arguments: dict[str, list[object]] = {
        "train": ["train", "ocad", "-i", skin, "-o", target, "--set", "epochs=2", "--set", "size=16"],
        "export": ["export", run, "-o", target],
        "score": ["score", bundle, "-i", skin / "test", "-o", target, "--maps"],
        "evaluate": ["evaluate", bundle, "-i", skin, "-o", target],
    }
    done = subprocess.run(
        [sys.executable, "-m", "normscan.cli", *map(str, arguments[verb])],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited(LIMIT[verb]),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 3, done.stderr
    assert str(target) in done.stderr
    left = [p for p in target.rglob("*") if p.is_file() and (p.name.startswith(".") or p.stat().st_size == LIMIT[verb])]
    assert left == []


def test_what_joins_a_training_is_checked(call: Call, skin: Path, tmp_path: Path) -> None:
    train = ("train", "ocad", "-i", skin, "-o", tmp_path / "run")
    code, _, err = call(*train, "--abnormal", skin / "test" / "abnormal")
    assert (code, "ocad learns normals alone; leave the option out" in err) == (2, True)
    code, _, err = call(*train, "--generated", tmp_path / "nowhere")
    assert (code, "nowhere: no such table; `normscan generate` writes one" in err) == (3, True)
    assert not (tmp_path / "run").exists()


def test_weights_that_are_missing_are_named(call: Call, skin: Path, tmp_path: Path) -> None:
    train = ("train", "stfpm", "-i", skin, "-o", tmp_path / "run", "--set")
    code, _, err = call(*train, f"weights={tmp_path / 'lost.pth'}")
    assert (code, "lost.pth: no such file" in err) == (3, True)
    (tmp_path / "bad.npz").write_bytes(b"")
    code, _, err = call(*train, f"weights={tmp_path / 'bad.npz'}")
    assert (code, "bad.npz cannot be read as weights" in err) == (3, True)
    assert not (tmp_path / "run").exists()
