"""Patients' folders and their two tables; most pictures are a few bytes, since only `inspect` opens them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normscan.cli.inspect import _data_text
from normscan.data.histology import (
    Cohort,
    HistologyLayout,
    Unmatched,
    is_histology,
    placed,
    read_histology,
    split_patients,
)
from normscan.data.read import write_image
from normscan.data.sample import Record
from normscan.data.splits import check_disjoint, split
from normscan.data.summary import summarise
from normscan.errors import ArgumentError, InputError

DIAGNOSES = "CODI,DENSITAT\nB22-01,NEGATIVA\nB22-02,BAIXA\nB22-03,ALTA\n"
PATCHES = "Pat_ID,Section_ID,Window_ID,Presence\nB22-01,0,7,-1\nB22-02,0,7,1\nB22-02,1,7,-1\nB22-03,0,12_Aug1,0\n"
PICTURES = (
    "CroppedPatches/B22-01_0/0.png",
    "CroppedPatches/B22-01_1/0.png",
    "CroppedPatches/B22-02_1/0.png",
    "CroppedPatches/B22-03/0.PNG",
    "AnnotatedPatches/B22-01_0/00007.png",
    "AnnotatedPatches/B22-02_0/00007.png",
    "AnnotatedPatches/B22-02_1/00007.png",
    "AnnotatedPatches/B22-03_0/00012_Aug1.png",
)


def tree(
    root: Path, *pictures: str, diagnoses: str | bytes | None = DIAGNOSES, patches: str | bytes | None = PATCHES
) -> Path:
    for picture in pictures or PICTURES:
        (root / picture).parent.mkdir(parents=True, exist_ok=True)
        (root / picture).write_bytes(picture.encode())
    for name, text in (("PatientDiagnosis.csv", diagnoses), ("HP_WSI-CoordAnnotatedPatches.csv", patches)):
        if text is not None:
            (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def labels(root: Path, records: list[Record]) -> dict[str, tuple[int | None, str | None]]:
    return {record.path.relative_to(root).as_posix(): (record.label, record.group) for record in records}


def test_folders_and_tables_make_a_cohort(tmp_path: Path) -> None:
    cohort = read_histology(tree(tmp_path))
    assert cohort.patients == {"B22-01": "negative", "B22-02": "low", "B22-03": "high"}
    assert labels(tmp_path, cohort.cropped) == {
        "CroppedPatches/B22-01_0/0.png": (0, "B22-01"),
        "CroppedPatches/B22-01_1/0.png": (0, "B22-01"),
        "CroppedPatches/B22-02_1/0.png": (None, "B22-02"),
        "CroppedPatches/B22-03/0.PNG": (None, "B22-03"),
    }
    assert labels(tmp_path, cohort.annotated) == {
        "AnnotatedPatches/B22-01_0/00007.png": (0, "B22-01"),
        "AnnotatedPatches/B22-02_0/00007.png": (1, "B22-02"),
        "AnnotatedPatches/B22-02_1/00007.png": (0, "B22-02"),
    }
    assert labels(tmp_path, cohort.uncertain) == {"AnnotatedPatches/B22-03_0/00012_Aug1.png": (None, "B22-03")}
    assert cohort.unmatched == Unmatched()
    assert len(cohort.records()) == len(PICTURES)
    assert {record.split for record in cohort.records()} == {None}


def test_which_folder_is_one(tmp_path: Path) -> None:
    assert not is_histology(tmp_path)
    assert is_histology(tree(tmp_path))
    assert not is_histology(tmp_path, HistologyLayout(cropped="Patches", diagnoses="patients.csv"))


def spoilt(text: str) -> bytes:
    """As a spreadsheet saves it: byte-order mark, semicolons, spaces, quotes, CRLF, a blank row, a row twice."""
    rows = [row.split(",") for row in text.splitlines()]
    lines = ["; ".join(f'"{cell}"' if i % 2 else f"{cell} " for cell in row) for i, row in enumerate(rows)]
    lines = [line.replace('; "', ';"') for line in lines]
    return "\r\n".join([*lines, ";" * (len(rows[0]) - 1), "", lines[-1], ""]).encode("utf-8-sig")


def test_tables_as_spreadsheets_save_them(tmp_path: Path) -> None:
    plain = read_histology(tree(tmp_path))
    assert read_histology(tree(tmp_path, diagnoses=spoilt(DIAGNOSES), patches=spoilt(PATCHES))) == plain
    assert (
        read_histology(
            tree(tmp_path, diagnoses=DIAGNOSES.lower().replace("b22", "B22").replace("codi,densitat", "CODI,DENSITAT"))
        )
        == plain
    )


def test_other_names_are_options(tmp_path: Path) -> None:
    layout = HistologyLayout(
        cropped="All", annotated="Some", diagnoses="who.csv", patient="id", density="load", negative="none", low="few",
        high="many", patches="what.csv", patch_patient="id", section="cut", patch="no", presence="seen", present="yes",
        absent="no", uncertain="maybe",
    )  # fmt: skip
    for picture in ("All/A_0/1.png", "All/B_0/1.png", "Some/A_0/1.png", "Some/B_0/01.png", "Some/B_0/2.png"):
        (tmp_path / picture).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / picture).touch()
    (tmp_path / "who.csv").write_text("other,id,load\nx,A,none\ny,B,many\n")
    (tmp_path / "what.csv").write_text("id,no,seen,x\nA,1,no,\nB,1,yes,\nB,2,maybe,\n")
    cohort = read_histology(tmp_path, layout)
    assert cohort.patients == {"A": "negative", "B": "high"}
    assert [record.label for record in cohort.annotated] == [0, 1]
    assert [record.path.name for record in cohort.uncertain] == ["2.png"]


def test_annotated_patches_may_be_absent(tmp_path: Path) -> None:
    cohort = read_histology(tree(tmp_path, "CroppedPatches/B22-01/0.png", patches=None))
    assert (len(cohort.cropped), cohort.annotated, cohort.uncertain) == (1, [], [])
    assert cohort.unmatched.patients == ("B22-02", "B22-03")


def test_what_does_not_match_is_listed(tmp_path: Path) -> None:
    tree(
        tmp_path,
        *PICTURES,
        "CroppedPatches/B22-09_0/0.png",
        "AnnotatedPatches/B22-09_0/1.png",
        "AnnotatedPatches/B22-01_0/8.png",
        "AnnotatedPatches/B22-01_0/9.png",
        diagnoses=DIAGNOSES + "B22-04,ALTA\n",
        patches=PATCHES + "B22-01,0,9,1\nB22-02,0,99,1\nB22-07,0,1,1\nB22-09,0,1,1\n",
    )
    cohort = read_histology(tmp_path)
    table = tmp_path / "HP_WSI-CoordAnnotatedPatches.csv"
    assert cohort.unmatched == Unmatched(
        folders=(tmp_path / "CroppedPatches/B22-09_0", tmp_path / "AnnotatedPatches/B22-09_0"),
        patients=("B22-04",),
        pictures=(tmp_path / "AnnotatedPatches/B22-01_0/8.png",),
        rows=(f"{table}, line 7", f"{table}, line 8"),
        disputed=(tmp_path / "AnnotatedPatches/B22-01_0/9.png",),
    )
    assert [line.removeprefix(str(tmp_path) + "/") for line in cohort.unmatched.lines()] == [
        "CroppedPatches/B22-09_0 has no diagnosis, and is left out",
        "AnnotatedPatches/B22-09_0 has no diagnosis, and is left out",
        "B22-04 has a diagnosis and no folder",
        "AnnotatedPatches/B22-01_0/8.png is annotated by no row, and is left out",
        "HP_WSI-CoordAnnotatedPatches.csv, line 7 names a patch that is not there",
        "HP_WSI-CoordAnnotatedPatches.csv, line 8 names a patch that is not there",
        "AnnotatedPatches/B22-01_0/9.png shows bacteria, of a patient diagnosed negative",
    ]
    assert {record.group for record in cohort.records()} == {"B22-01", "B22-02", "B22-03"}
    assert len(cohort.annotated) == 4


def test_inspect_counts_patients_and_lists_what_does_not_match(tmp_path: Path) -> None:
    tree(tmp_path, patches=PATCHES + "B22-02,0,99,1\n")
    for picture in PICTURES:
        write_image(tmp_path / "new.png", np.full((8, 8, 3), len(picture), np.uint8))
        (tmp_path / "new.png").rename(tmp_path / picture)
    found = summarise(tmp_path)
    assert found["patients"] == {"negative": 1, "low": 1, "high": 1}
    assert found["counts"] == {
        "CroppedPatches": {"normal": 2, "unlabelled": 2},
        "AnnotatedPatches": {"normal": 2, "abnormal": 1, "unlabelled": 1},
    }
    assert found["problems"] == [f"{tmp_path}/HP_WSI-CoordAnnotatedPatches.csv, line 6 names a patch that is not there"]
    text = _data_text(found)
    assert "patients    negative 1  low 1  high 1" in text
    assert "line 6 names a patch" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DIAGNOSES + "B22-01,ALTA\n", r"line 5: patient B22-01 is high, and negative in .*line 2; expected one"),
        (DIAGNOSES + "B22-05,MITJA\n", r"line 5: DENSITAT is 'MITJA'; expected NEGATIVA, BAIXA, ALTA, or other words"),
        (DIAGNOSES + "B22-05\n", r"line 5: found 1 fields; expected 2"),
        (DIAGNOSES + ",ALTA\n", r"line 5: CODI is empty; expected a value"),
        ("CODI,DENSITY\nB22-01,ALTA\n", r"PatientDiagnosis.csv: column DENSITAT is missing; found \['CODI', 'DENSITY'"),
        ("CODI,DENSITAT,CODI\n1,ALTA,2\n", r"column CODI comes twice"),
        ("", r"column CODI is missing; found \[\]"),
        ("CODI,DENSITAT\n", r"holds no patient; expected one a line"),
        ('CODI,DENSITAT\n"B22,ALTA\n', r"cannot be read \(unexpected end of data\); expected a UTF-8 table"),
        ("CODI,DENSITAT\nBoyé,ALTA\n".encode("latin-1"), r"cannot be read .*save it as 'CSV UTF-8'"),
        (None, r"PatientDiagnosis.csv: no such table; expected columns CODI, DENSITAT, or another name"),
    ],
)
def test_wrong_diagnoses_are_told(tmp_path: Path, text: str | bytes | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_histology(tree(tmp_path, diagnoses=text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PATCHES + "B22-01,0,7,1\n", r"line 6: contradicts .*line 2 about .*B22-01_0/00007.png; expected one Presence"),
        (PATCHES + "B22-01,,0007,1\n", r"line 6: contradicts .*line 2"),
        (PATCHES + "B22-01,0,7,2\n", r"line 6: Presence is '2'; expected 1, -1, 0, or other words"),
        (PATCHES + "B22-02,,7,1\n", r"line 6: fits .*B22-02_0/00007.png and .*B22-02_1/00007.png; .*Section_ID"),
        (PATCHES.replace("Window_ID", "window"), r"column Window_ID is missing; found .*'window'"),
        (PATCHES.replace("Pat_ID,Section_ID", "Section_ID,Section_ID"), r"column Pat_ID is missing"),
        (None, r"found AnnotatedPatches without HP_WSI-CoordAnnotatedPatches.csv; expected both or neither"),
    ],
)
def test_wrong_annotations_are_told(tmp_path: Path, text: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_histology(tree(tmp_path, patches=text))


def test_without_sections_a_window_must_be_one_picture(tmp_path: Path) -> None:
    table = "Pat_ID,Window_ID,Presence\nB22-01,7,1\n"
    assert read_histology(tree(tmp_path, patches=table)).annotated[0].label == 1
    with pytest.raises(InputError, match=r"fits .*add the column Section_ID"):
        read_histology(tree(tmp_path, patches=table + "B22-02,7,1\n"))
    (tmp_path / "AnnotatedPatches/B22-01_0/7.png").touch()
    with pytest.raises(InputError, match=r"line 2: fits .*/00007.png and .*/7.png; .*rename one of them"):
        read_histology(tmp_path)


def test_wrong_folders_are_told(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "CroppedPatches/B22-02_0").mkdir()
    (tmp_path / "CroppedPatches/B22-02_0/Thumbs.db").touch()
    with pytest.raises(InputError, match=r"B22-02_0: holds no picture; expected patches of this patient"):
        read_histology(tmp_path)
    (tmp_path / "CroppedPatches/B22-02_0/1.png").touch()
    (tmp_path / "CroppedPatches/stray.png").touch()
    with pytest.raises(InputError, match=r"stray.png: lies beside the patients' folders"):
        read_histology(tmp_path)
    (tmp_path / "CroppedPatches/stray.png").rename(tmp_path / "CroppedPatches/Thumbs.db")
    assert len(read_histology(tmp_path).cropped) == 5
    with pytest.raises(InputError, match=r"Cropped: no such folder; expected a folder for each patient"):
        read_histology(tmp_path, HistologyLayout(cropped="Cropped"))
    (tmp_path / "Cropped").mkdir()
    with pytest.raises(InputError, match=r"Cropped: holds no folder"):
        read_histology(tmp_path, HistologyLayout(cropped="Cropped"))
    (tmp_path / "HP_WSI-CoordAnnotatedPatches.csv").rename(tmp_path / "away.csv")
    with pytest.raises(InputError, match=r"found AnnotatedPatches without"):
        read_histology(tmp_path)


# split_patients, placed

DENSITIES = st.dictionaries(st.text("AB-_019", min_size=1, max_size=5), st.sampled_from(("negative", "low", "high")))


@given(patients=DENSITIES, seed=st.integers(0, 99), test=st.floats(0.01, 0.6), validation=st.sampled_from((0.0, 0.3)))
def test_every_density_is_divided_alike(patients, seed, test, validation):
    shares = {"test": test} | ({"validation": validation} if validation else {})
    sizes = Counter(patients.values())
    if any(count < 1 + len(shares) for count in sizes.values()):
        with pytest.raises(InputError, match=r"found \d patients of density \w+; expected at least \d, one each for"):
            split_patients(patients, seed=seed, shares=shares)
        return
    parts = split_patients(patients, seed=seed, shares=shares)
    assert sorted(patient for part in parts.values() for patient in part) == sorted(patients)
    for part, share in {"train": 1 - sum(shares.values()), **shares}.items():
        found = Counter(patients[patient] for patient in parts[part])
        for density, count in sizes.items():
            assert found[density] >= 1
            assert abs(found[density] - share * count) < 1 or min(share * count, found[density]) <= len(shares)
    assert split_patients(dict(reversed(patients.items())), seed=seed, shares=shares) == parts


def test_the_seed_decides_who_is_tested():
    patients = {f"P{i}": "negative" if i % 2 else "high" for i in range(60)}
    assert [len(part) for part in split_patients(patients).values()] == [42, 18]
    assert split_patients(patients, seed=1) != split_patients(patients, seed=2)


@pytest.mark.parametrize(
    "shares", [{"train": 0.5}, {"holdout": 0.5}, {"test": 0.0}, {"test": 1.0}, {"test": float("nan")}]
)
def test_shares_out_of_range_are_refused(shares):
    with pytest.raises(
        ArgumentError, match=r"split_patients: found shares .*; expected splits among calibration, test"
    ):
        split_patients({"A": "low", "B": "low"}, shares=shares)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    names = [f"B22-{i:02d}" for i in range(24)]
    words = ("NEGATIVA", "NEGATIVA", "BAIXA", "ALTA")
    pictures = [f"CroppedPatches/{name}_{s}/{i}.png" for name in names for s in (0, 1) for i in range(3)]
    table = "CODI,DENSITAT\n" + "".join(f"{name},{words[i % 4]}\n" for i, name in enumerate(names))
    pictures.append("AnnotatedPatches/B22-00_0/7.png")
    patches = "Pat_ID,Window_ID,Presence\nB22-00,7,0\n"
    return read_histology(tree(tmp_path, *pictures, diagnoses=table, patches=patches))


def test_a_patient_never_straddles_splits(cohort: Cohort) -> None:
    parts = split_patients(cohort.patients)
    done = placed(cohort, parts)
    check_disjoint(done.records())
    for record in done.records():
        assert record.group in parts[str(record.split)]
    # A one-class family's validation and calibration then come from the negative patients of train, whole.
    inner = split(done.cropped)
    check_disjoint(inner)
    assert {r.label for r in inner if r.split in ("validation", "calibration")} == {0}
    assert {r.split for r in inner} == {"train", "validation", "calibration", "test"}


def test_a_patient_in_two_splits_is_refused(cohort: Cohort) -> None:
    parts = split_patients(cohort.patients)
    chosen = parts["train"][0]
    with pytest.raises(InputError, match=f"patient {chosen} is in train and in test; expected one split"):
        placed(cohort, {**parts, "test": [*parts["test"], chosen]})
    with pytest.raises(InputError, match=r"patient B23 .* is not in the cohort"):
        placed(cohort, {**parts, "validation": ["B23"]})
    with pytest.raises(InputError, match=rf"patient {chosen} is in no split .0 more such patients.; expected one"):
        placed(cohort, {**parts, "train": parts["train"][1:]})
    with pytest.raises(InputError, match="found a split 'fold'; expected one of train"):
        placed(cohort, {"fold": []})
    done = placed(cohort, parts)
    done.cropped[0] = replace(done.cropped[0], split="calibration")
    with pytest.raises(InputError, match="belong to one group"):
        check_disjoint(done.records())
