"""Lists of names as a data set: what they mean, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from normscan.data.layouts import read_layout
from normscan.data.read import write_image
from normscan.data.splits import check_disjoint
from normscan.errors import InputError


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for i in range(6):
        folder = tmp_path / ("a" if i % 2 else "b")
        folder.mkdir(exist_ok=True)
        write_image(folder / f"{i}.png", np.full((8, 8), i, np.uint8))
    write_image(tmp_path / "b" / "six, odd.png", np.full((8, 8), 6, np.uint8))
    return tmp_path


def write(top: Path, **lists: str) -> Path:
    for name, text in lists.items():
        (top / f"{name}.txt").write_text(text, encoding="utf-8")
    return top


def read(top: Path) -> dict[str, tuple[str | None, int | None]]:
    return {r.path.relative_to(top).as_posix(): (r.split, r.label) for r in read_layout(top)}


def test_lists_say_what_is_what(top: Path) -> None:
    write(
        top,
        train="# normals\nb/0.png\n\nb/six, odd.png\n",
        validation="\ufeffa/1.png\r\n",
        unlabelled="b/2.png\n",
        test="a/3.png, abnormal\nb\\4.png\t0\n",
        test_abnormal="a/5.png\n",
    )
    assert read(top) == {
        "b/0.png": ("train", 0),
        "b/six, odd.png": ("train", 0),
        "a/1.png": ("validation", 0),
        "b/2.png": ("unlabelled", None),
        "a/3.png": ("test", 1),
        "b/4.png": ("test", 0),
        "a/5.png": ("test", 1),
    }


def test_groups_and_masks_go_with_them(top: Path) -> None:
    write(top, train="b/0.png\n", test="a/1.png,1\n")
    (top / "groups.csv").write_text("file,group\nb/0.png,p\na/1.png,q\n")
    (top / "ground_truth" / "a").mkdir(parents=True)
    write_image(top / "ground_truth" / "a" / "1_mask.png", np.full((8, 8), 255, np.uint8))
    test, train = read_layout(top)
    assert (train.group, test.group, train.mask) == ("p", "q", None)
    assert test.mask == top / "ground_truth" / "a" / "1_mask.png"


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": "b/0.png\nb/9.png\nb/8.png\n"}, r"train.txt, line 2: b/9.png is no file.*1 more.*relative"),
        ({"train": "b/../b/0.png\n"}, r"train.txt, line 1: b/../b/0.png is no file.*relative to the folder"),
        ({"train": "/b/0.png\n"}, r"train.txt, line 1: /b/0.png is no file"),
        ({"train": "b/0.png\nb/0.png\n"}, r"train.txt, line 2: b/0.png is in train.txt, line 1 already"),
        ({"train": "b/0.png\n", "test": "b/0.png,0\n"}, r"test.txt, line 1: b/0.png is in train.txt, line 1 already"),
        ({"train": "b/0.png\n", "validation": "b/./0.png\n"}, r"validation.txt, line 1: b/0.png is in train.txt"),
        ({"train": "b/0.png\n", "test": "b/2.png\n"}, r"test.txt, line 1: found no label; expected"),
        ({"train": "b/0.png,abnormal\n"}, r"train.txt, line 1: found the label 1; expected names alone"),
        ({"train": "# nothing\n"}, r"lists name no training image; expected train.txt"),
        ({"test": "b/0.png,0\n"}, r"lists name no training image"),
    ],
)
def test_wrong_lists_are_told(top: Path, lists: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_layout(write(top, **lists))


def test_an_absolute_name_is_refused_even_where_it_exists(top: Path) -> None:
    with pytest.raises(InputError, match="relative to the folder of the list"):
        read_layout(write(top, train=f"{top / 'b' / '0.png'}\n"))


def test_masks_that_fit_nothing_are_refused(top: Path) -> None:
    (top / "ground_truth").mkdir()
    write_image(top / "ground_truth" / "1.png", np.full((8, 8), 255, np.uint8))
    with pytest.raises(InputError, match=r"no test image goes with it.*the image's path in "):
        read_layout(write(top, train="b/0.png\n", test="a/1.png,1\n"))


def test_a_test_list_may_come_alone(top: Path) -> None:
    write(top, test_normal="b/0.png\n")
    assert [r.label for r in read_layout(top, training=False)] == [0]


def test_a_list_that_is_no_text(top: Path) -> None:
    (top / "train.txt").write_bytes(b"\xff\xfe\x00b")
    with pytest.raises(InputError, match=r"train.txt: cannot be read.*UTF-8"):
        read_layout(top)


def test_the_same_picture_under_two_names_is_refused(top: Path) -> None:
    (top / "a" / "copy.png").write_bytes((top / "b" / "0.png").read_bytes())
    write(top, train="b/0.png\n", test="a/copy.png,0\n")
    with pytest.raises(InputError, match="have the same content"):
        check_disjoint(read_layout(top))
