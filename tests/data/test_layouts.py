"""Folders, glob patterns and folder trees; the files are empty, since nothing here opens an image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from normscan.data.layouts import find_images, read_layout
from normscan.errors import InputError


def tree(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def found(root: Path) -> dict[str, tuple[str | None, int | None]]:
    return {record.path.relative_to(root).as_posix(): (record.split, record.label) for record in read_layout(root)}


# find_images


def test_folders_are_searched_recursively_and_sorted(tmp_path):
    tree(tmp_path, "b.PNG", "a/c.jpeg", "a/d.tif", "a.bmp", "z.webp", "notes.txt", ".hidden.png", ".cache/e.png")
    names = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert names == sorted(["b.PNG", "a/c.jpeg", "a/d.tif", "a.bmp", "z.webp"], key=Path)


def test_a_file_and_a_pattern(tmp_path):
    tree(tmp_path, "a/1.png", "a/2.jpg", "a/b/3.png", "c/4.png", "odd.scan")
    assert find_images(str(tmp_path / "a/1.png")) == [tmp_path / "a/1.png"]
    assert find_images(tmp_path / "odd.scan") == [tmp_path / "odd.scan"]
    assert find_images(f"{tmp_path}/**/*.png") == [tmp_path / name for name in ("a/1.png", "a/b/3.png", "c/4.png")]
    assert find_images(f"{tmp_path}/[ab]") == [tmp_path / name for name in ("a/1.png", "a/2.jpg", "a/b/3.png")]


def test_brackets_in_a_name_are_no_pattern(tmp_path):
    tree(tmp_path, "scan[1].png", "set[2]/a.png")
    assert find_images(tmp_path / "scan[1].png") == [tmp_path / "scan[1].png"]
    assert find_images(tmp_path / "set[2]") == [tmp_path / "set[2]/a.png"]


def test_links_are_followed_once(tmp_path):
    tree(tmp_path, "elsewhere/a.png", "set/b.png")
    (tmp_path / "set/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "elsewhere")
    assert find_images(tmp_path / "set") == [tmp_path / "set/b.png", tmp_path / "set/linked/a.png"]


def test_nothing_found_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"found no files; expected images \(\.png, \.jpg, .*\.webp\)"):
        find_images(tmp_path)
    tree(tmp_path, "a.dcm", "b.dcm", "c.txt")
    with pytest.raises(InputError, match=r"found 2 \.dcm, 1 \.txt; expected images"):
        find_images(tmp_path)
    with pytest.raises(InputError, match=r"\*\.png: found no files"):
        find_images(tmp_path / "*.png")
    with pytest.raises(InputError, match="gone: no such file or folder"):
        find_images(tmp_path / "gone")


# read_layout


@pytest.mark.parametrize("name", ["normal", "good", "ok", "healthy", "benign", "Normal", "GOOD"])
def test_names_for_normal(tmp_path, name):
    tree(tmp_path, f"train/{name}/a.png", f"test/{name}/b.png", "test/scratch/c.png", "test/hole/d.png")
    assert found(tmp_path) == {
        f"train/{name}/a.png": ("train", 0),
        f"test/{name}/b.png": ("test", 0),
        "test/scratch/c.png": ("test", 1),
        "test/hole/d.png": ("test", 1),
    }


def test_ocad_layout(tmp_path):
    tree(tmp_path, "Train/Benign/a.jpg", "Train/Cancerous/b.jpg", "Test/Benign/c.jpg", "Test/Cancerous/d.jpg")
    assert found(tmp_path) == {
        "Train/Benign/a.jpg": ("train", 0),
        "Train/Cancerous/b.jpg": ("train", 1),
        "Test/Benign/c.jpg": ("test", 0),
        "Test/Cancerous/d.jpg": ("test", 1),
    }


def test_benign_beside_normal_is_a_tumour(tmp_path):
    tree(tmp_path, "train/normal/a.png", "test/normal/b.png", "test/benign/c.png", "test/malignant/d.png")
    assert found(tmp_path)["test/benign/c.png"] == ("test", 1)


def test_every_split(tmp_path):
    tree(tmp_path, *(f"{split}/normal/{split}.png" for split in ("train", "validation", "calibration", "test")))
    tree(
        tmp_path, "train/unlabelled/u.png", "train/Unlabeled/v.png", "validation/tumour/x.png", "train/normal/p1/q.png"
    )
    splits = found(tmp_path)
    assert splits["validation/normal/validation.png"] == ("validation", 0)
    assert splits["calibration/normal/calibration.png"] == ("calibration", 0)
    assert splits["train/unlabelled/u.png"] == splits["train/Unlabeled/v.png"] == ("unlabelled", None)
    assert splits["validation/tumour/x.png"] == ("validation", 1)
    assert splits["train/normal/p1/q.png"] == ("train", 0)


def test_masks(tmp_path):
    tree(tmp_path, "train/normal/a.png", "test/normal/1.jpg", "test/hole/1.jpg", "test/hole/2.jpg", "test/hole/s/3.jpg")
    tree(tmp_path, "ground_truth/hole/1.png", "ground_truth/hole/2_mask.png", "ground_truth/hole/s/3.png")
    tree(tmp_path, "test/cut/1.jpg", "ground_truth/unused/9.png")
    masks = {record.path.relative_to(tmp_path).as_posix(): record.mask for record in read_layout(tmp_path)}
    assert masks == {
        "train/normal/a.png": None,
        "test/normal/1.jpg": None,
        "test/cut/1.jpg": None,
        "test/hole/1.jpg": tmp_path / "ground_truth/hole/1.png",
        "test/hole/2.jpg": tmp_path / "ground_truth/hole/2_mask.png",
        "test/hole/s/3.jpg": tmp_path / "ground_truth/hole/s/3.png",
    }


def test_masks_that_fit_nothing_are_refused(tmp_path):
    tree(tmp_path, "train/normal/a.png", "test/hole/1.jpg", "ground_truth/Hole/1.png")
    with pytest.raises(InputError, match=r"Hole.1\.png: no test image goes with it.*expected ground_truth/<defect>"):
        read_layout(tmp_path)


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ((), "found an empty folder; expected train/normal/ with images"),
        (("a.png", "b.png"), r"found a\.png, b\.png; expected train/normal/"),
        (("test/normal/a.png", "test/bad/b.png", "test/bad/c.png"), r"found test/bad \(2 images\), test/normal \(1"),
        (("train/normal/readme.txt",), "found train; expected train/normal/ with images"),
        (("train/a.png", "train/normal/b.png"), r"a\.png: lies directly in train/"),
        (("train/normal/a.png", "calibration/bad/b.png"), r"b\.png: found an abnormal image; calibration takes"),
        (("train/normal/a.png", "test/unlabelled/b.png"), r"b\.png: found unlabelled images in test"),
    ],
)
def test_trees_without_a_meaning_are_refused(tmp_path, files, match):
    with pytest.raises(InputError, match=match):
        read_layout(tree(tmp_path, *files))


def test_no_such_folder(tmp_path):
    with pytest.raises(InputError, match="gone: no such folder; expected train/normal/"):
        read_layout(tmp_path / "gone")


# Tables of groups


def groups(root: Path) -> dict[str, str | None]:
    return {record.path.relative_to(root).as_posix(): record.group for record in read_layout(root)}


def test_groups_are_read(tmp_path):
    tree(tmp_path, "train/normal/a.png", "train/normal/b.png", "test/bad/c.png")
    (tmp_path / "groups.csv").write_text(
        "\ufefffile,age,group\ntrain/normal/a.png,7,p1\ntrain\\normal\\b.png,8,\ntest/bad/c.png,9, p 2 \n", "utf-8"
    )
    assert groups(tmp_path) == {"train/normal/a.png": "p1", "train/normal/b.png": None, "test/bad/c.png": "p 2"}
    (tmp_path / "MANIFEST.csv").write_text("file,group\ntrain/normal/a.png,other\n", "utf-8")
    assert groups(tmp_path)["train/normal/a.png"] == "p1"


def test_a_manifest_may_name_more_and_fewer_images(tmp_path):
    tree(tmp_path, "train/normal/a.png", "train/normal/b.png")
    (tmp_path / "MANIFEST.csv").write_text("file,group\ntrain/normal/a.png,p1\ntrain/normal/removed.png,p2\n", "utf-8")
    assert groups(tmp_path) == {"train/normal/a.png": "p1", "train/normal/b.png": None}


@pytest.mark.parametrize(
    ("table", "text", "match"),
    [
        ("groups.csv", "file,group\ntrain/normal/a.png,p\n", r"has no row for train/normal/b\.png"),
        (
            "groups.csv",
            "file,group\ntrain/normal/a.png,p\ntrain/normal/b.png,q\nx.png,p\n",
            r"names x\.png, which is no",
        ),
        ("groups.csv", "file,group\ntrain/normal/a.png,p\ntrain/normal/a.png,q\n", "line 3: .* has two groups"),
        ("groups.csv", "file;group\n", r"found columns \['file;group'\]; expected file and group, comma-separated"),
        ("MANIFEST.csv", "", r"found columns \[\]"),
        ("MANIFEST.csv", "file,group\nnormal/a.png,p\n", r"names none of the 2 images; expected paths such as train/"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, table, text, match):
    tree(tmp_path, "train/normal/a.png", "train/normal/b.png")
    (tmp_path / table).write_text(text, "utf-8")
    with pytest.raises(InputError, match=match):
        read_layout(tmp_path)


def test_a_table_that_is_no_text_is_refused(tmp_path):
    tree(tmp_path, "train/normal/a.png")
    (tmp_path / "groups.csv").write_bytes(b"file,group\n\xff\xfe\x00,1\n")
    with pytest.raises(InputError, match=r"groups\.csv: cannot be read .*expected a UTF-8 table"):
        read_layout(tmp_path)


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    tree(tmp_path, *(f"train/normal/{index}.png" for index in range(9)))
    expected = read_layout(tmp_path)
    walk = os.walk

    def backwards(*arguments, **options):
        for parent, folders, files in walk(*arguments, **options):
            yield parent, folders, sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    assert read_layout(tmp_path) == expected


def test_a_name_that_is_no_utf8_is_told(tmp_path):
    (tmp_path / "a.png").touch()
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(name, "wb"):
        pass
    with pytest.raises(InputError, match="not valid UTF-8; rename"):
        find_images(tmp_path)
