"""A data.json as a data set: what it means, what it must not tell, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normscan.data.jsonlist import read_jsonlist
from normscan.data.layouts import read_layout
from normscan.data.read import write_image
from normscan.data.sample import Record
from normscan.data.summary import summarise
from normscan.errors import InputError


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """images/0.png to images/6.png, images/deep/7.png, and 8.png beside them."""
    for i, place in enumerate([*(f"images/{i}.png" for i in range(7)), "images/deep/7.png", "8.png"]):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / place, np.full((8, 8), i, np.uint8))
    return tmp_path


def write(top: Path, whole: Any) -> Path:
    (top / "data.json").write_text(whole if isinstance(whole, str) else json.dumps(whole), encoding="utf-8")
    return top


def read(top: Path) -> dict[str, tuple[str | None, int | None]]:
    return {r.path.relative_to(top).as_posix(): (r.split, r.label) for r in read_layout(top)}


def test_it_says_what_is_what(top: Path) -> None:
    unlabelled = {"0": ["2.png"], "1": ["deep\\7.png"]}
    write(
        top,
        {
            "train": {"0": ["0.png", "images/1.png", "8.png"], "unlabeled": unlabelled},
            "test": {"0": ["3.png"], "1": ["./4.png"]},
        },
    )
    assert read(top) == {
        "images/0.png": ("train", 0),
        "images/1.png": ("train", 0),
        "8.png": ("train", 0),
        "images/2.png": ("unlabelled", None),
        "images/deep/7.png": ("unlabelled", None),
        "images/3.png": ("test", 0),
        "images/4.png": ("test", 1),
    }
    assert summarise(top)["counts"] == {
        "train": {"normal": 3},
        "unlabelled": {"unlabelled": 2},
        "test": {"normal": 1, "abnormal": 1},
    }


def records(top: Path, unlabelled: Any) -> list[Record]:
    found = read_jsonlist(write(top, {"train": {"0": ["0.png"], "unlabeled": unlabelled}}))
    assert read_layout(top) == found
    return found


def test_the_labels_of_unlabelled_images_are_in_no_record(top: Path) -> None:
    """Neither in a field nor in the order."""
    expected = records(top, {"0": ["1.png", "4.png"], "1": ["2.png", "3.png"]})
    assert [r.label for r in expected] == [0, None, None, None, None]
    wrong = {"0": ["3.png", "2.png"], "1": ["4.png", "1.png"]}
    for other in (wrong, {"1": ["1.png", "2.png", "3.png", "4.png"]}, ["4.png", "1.png", "3.png", "2.png"]):
        assert records(top, other) == expected


def test_keys_may_be_absent(top: Path) -> None:
    assert read(write(top, {"train": {"0": ["0.png"]}})) == {"images/0.png": ("train", 0)}
    write(top, "\ufeff" + json.dumps({"test": {"1": ["0.png"]}}))
    assert [r.label for r in read_layout(top, training=False)] == [1]


def test_a_name_is_looked_up_in_images_first(top: Path) -> None:
    write_image(top / "0.png", np.full((8, 8), 99, np.uint8))
    assert list(read(write(top, {"train": {"0": ["0.png"]}}))) == ["images/0.png"]


def test_groups_and_masks_go_with_it(top: Path) -> None:
    write(top, {"train": {"0": ["0.png"]}, "test": {"1": ["1.png"]}})
    (top / "groups.csv").write_text("file,group\nimages/0.png,p\nimages/1.png,q\n")
    (top / "ground_truth" / "images").mkdir(parents=True)
    mask = top / "ground_truth" / "images" / "1_mask.png"
    write_image(mask, np.full((8, 8), 255, np.uint8))
    train, test = read_layout(top)
    assert (train.group, train.mask, test.group, test.mask) == ("p", None, "q", mask)


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ("{'train'", r"data.json: cannot be read .*expected JSON in UTF-8"),
        ("[" * 100_000, r"data.json: cannot be read .*expected JSON"),
        ('{"train": {"0": []}, "train": {}}', r"found the key 'train' twice in one table"),
        ([], r'data.json: its whole is a list; expected a table with "train" and "test"'),
        ({"train": ["0.png"]}, r'train is a list; expected a table with "0" and "unlabeled"'),
        ({"train": {"0": "0.png"}}, r"train/0 is a text; expected a list of names"),
        ({"train": {"0": [], "unlabeled": None}}, r'train/unlabeled is null; expected a table with "0" and "1"'),
        ({"train": {"0": []}, "test": 3}, r"test is the value 3; expected a table"),
        ({"training": {}}, r"""its whole has the key 'training'; expected "train" and "test" and no other"""),
        ({"train": {"0": [], "1": []}}, r"train has the key '1'; expected"),
        ({"train": {"unlabeled": {"2": []}}}, r"train/unlabeled has the key '2'; expected"),
        ({"test": {"unlabeled": []}}, r"test has the key 'unlabeled'; expected"),
        ({"train": {"0": ["0.png", 1]}}, r"train/0: found 1; expected the name of an image"),
        ({"train": {"0": [" "]}}, r"train/0: found ' '; expected the name"),
        ({"train": {"0": ["../0.png"]}}, r"train/0: '../0.png' leads out of the folder"),
        ({"train": {"0": ["deep\\..\\0.png"]}}, r"leads out of the folder; expected a path in images/"),
        ({"train": {"0": ["0.png", "0.png"]}}, r"train/0: '0.png' is in train/0 already; expected each image once"),
        ({"train": {"0": ["0.png"]}, "test": {"1": ["images/0.png"]}}, r"test/1: 'images/0.png' is in train/0 already"),
        ({"train": {"unlabeled": {"0": ["0.png"], "1": ["0.png"]}}}, r"'0.png' is in train/unlabeled/0 already"),
        (
            {"train": {"0": ["deep", "a\0b", "\ud800", "x" * 5000]}},
            r"4 names are no files \(train/0 'deep', .* 1 more\)",
        ),
        ({"train": {"0": []}, "test": {"0": ["0.png"]}}, r'no training image; expected names under "train", "0"'),
        ({"train": {"unlabeled": ["0.png"]}}, r"no training image; expected names under"),
    ],
)
def test_a_wrong_one_is_told(top: Path, whole: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_layout(write(top, whole))
    assert str(top) in str(caught.value)


def test_missing_files_are_counted_and_the_first_are_named(top: Path) -> None:
    write(top, {"train": {"0": ["0.png", "a.png"]}, "test": {"0": ["b.png"], "1": ["c.png", "d.png", "e.png"]}})
    with pytest.raises(InputError) as caught:
        read_layout(top)
    assert (
        str(caught.value) == f"{top / 'data.json'}: 5 names are no files (train/0 'a.png', test/0 'b.png', "
        f"test/1 'c.png' and 2 more); expected paths in {top / 'images'}, or in {top}"
    )


def test_an_absolute_name_is_refused_even_where_it_exists(top: Path) -> None:
    with pytest.raises(InputError, match="leads out of the folder"):
        read_layout(write(top, {"train": {"0": [str(top / "images" / "0.png")]}}))


def test_a_file_that_is_no_text(top: Path) -> None:
    (top / "data.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match=r"data.json: cannot be read.*UTF-8"):
        read_layout(top)


def test_lists_beside_it_are_refused(top: Path) -> None:
    (top / "train.txt").write_text("images/0.png\n")
    with pytest.raises(InputError, match=r"found data.json and lists of names.*remove the other"):
        read_layout(write(top, {"train": {"0": ["0.png"]}}))


def test_masks_that_fit_nothing_are_refused(top: Path) -> None:
    (top / "ground_truth").mkdir()
    write_image(top / "ground_truth" / "1.png", np.full((8, 8), 255, np.uint8))
    with pytest.raises(InputError, match=r"no test image goes with it.*ground_truth/<the image's path in "):
        read_layout(write(top, {"train": {"0": ["0.png"]}, "test": {"1": ["1.png"]}}))
