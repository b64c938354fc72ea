"""Generated and abnormal pictures join the training part, and nothing of another part comes with them."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from normscan.data.generated import Generated, write_generated
from normscan.errors import InputError, UsageError
from normscan.families import family
from normscan.train.records import changes_for, check_given, gather

OCAD = family("ocad")
CONFIG = OCAD.config.parse(OCAD.tiny)


def table(folder: Path, skin: Path, parents: list[Path | None]) -> Path:
    """A folder with one generated picture for each parent; test pictures of another seed serve as such."""
    from normscan.data.synthetic import write_demo

    write_demo(folder / "made", seed=11, size=32, train=len(parents), test_normal=0, test_abnormal=0)
    images = sorted((folder / "made" / "train" / "normal").iterdir())
    origins = ["generated", "generated_from_template"]
    rows = [
        Generated(p, origins[i % 2], "singan", i, parent)
        for i, (p, parent) in enumerate(zip(images, parents, strict=True))
    ]
    return write_generated(folder, rows)


def parts(skin: Path) -> dict[str, Path]:
    return {str(record.split): record.path for record in gather(OCAD, CONFIG, skin)}


def test_generated_pictures_join_the_training_part(
    skin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those made from validation, calibration or test pictures would carry them into the training."""
    one = parts(skin)
    parents = [one["train"], None, one["validation"], one["calibration"], one["test"], tmp_path / "elsewhere.png"]
    path = table(tmp_path / "gen", skin, parents)
    records = gather(OCAD, CONFIG, skin, generated=path)
    made = [r for r in records if r.origin != "ok"]
    assert [r.path.name for r in made] == ["0000.png", "0001.png", "0005.png"]
    assert {r.split for r in made} == {"train"}
    assert "3 generated pictures are left out" in capsys.readouterr().err
    real = Counter(r.split for r in gather(OCAD, CONFIG, skin))
    assert Counter(r.split for r in records if r.origin == "ok") == real


def test_a_parent_is_found_through_another_name_of_its_folder(skin: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(skin)
    parent = parts(skin)["test"]
    path = table(tmp_path / "gen", skin, [None, parent])
    linked = tmp_path / "link" / parent.relative_to(skin)
    path.write_text(path.read_text().replace(str(parent.resolve()), str(linked)))
    assert str(linked) in path.read_text()
    assert len([r for r in gather(OCAD, CONFIG, skin, generated=path) if r.origin != "ok"]) == 1


def test_a_table_of_which_nothing_is_left_is_told(skin: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "gen", skin, [parts(skin)["test"]])
    with pytest.raises(InputError, match="each of its 1 pictures was made from one outside the training part"):
        gather(OCAD, CONFIG, skin, generated=path)


def test_a_copy_of_a_test_picture_is_refused(skin: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "gen", skin, [None])
    shutil.copy(parts(skin)["test"], tmp_path / "gen" / "made" / "train" / "normal" / "0000.png")
    with pytest.raises(InputError, match="have the same content"):
        gather(OCAD, CONFIG, skin, generated=path)


def test_a_missing_generated_picture_is_told(skin: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "gen", skin, [None])
    (tmp_path / "gen" / "made" / "train" / "normal" / "0000.png").unlink()
    with pytest.raises(InputError, match=r"line 2: .* does not exist"):
        gather(OCAD, CONFIG, skin, generated=path)


def test_a_family_without_a_supervised_form_refuses_abnormal_pictures(tmp_path: Path) -> None:
    assert changes_for(OCAD, None) == {}
    check_given(OCAD, CONFIG, None)
    with pytest.raises(UsageError, match="ocad learns normals alone"):
        changes_for(OCAD, tmp_path)
