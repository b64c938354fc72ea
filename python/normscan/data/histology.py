"""Patients' stained biopsies, cut into patches, with diagnoses: the layout of the H. pylori data of Cano et al.

    root/
      CroppedPatches/<patient>[_0|_1]/*.png      patches with no label of their own; _0 and _1 are a patient's sections
      AnnotatedPatches/<patient>[_0|_1]/*.png    patches that a pathologist has looked at; may be absent, table included
      PatientDiagnosis.csv                       CODI (patient), DENSITAT: NEGATIVA, BAIXA (low) or ALTA (high)
      HP_WSI-CoordAnnotatedPatches.csv           Pat_ID, Section_ID (may be absent), Window_ID (the picture's stem),
                                                 Presence: 1 bacteria, -1 none, 0 uncertain

Tables are UTF-8, with or without a byte-order mark, comma or semicolon; other columns are ignored. Leading zeros of a
window do not count (00042.png is window 42), since spreadsheets drop them. All names are fields of `HistologyLayout`;
a cohort that has others says so in its cohort.json: {"patient": "ID", "negative": "none"}.
Source: arXiv 2309.16053 and 2412.13857; the names are those of the published data.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, NamedTuple

from normscan.data.read import SUFFIXES, PathLike
from normscan.data.sample import SPLITS, Record
from normscan.data.splits import targets
from normscan.data.tables import rows, word
from normscan.errors import ArgumentError, InputError
from normscan.files import read_json

Density = Literal["negative", "low", "high"]
DENSITIES: tuple[Density, ...] = ("negative", "low", "high")
NAMES = "cohort.json"
"""Where a cohort says what its folders, tables, columns and words are called."""


@dataclass(frozen=True, slots=True)
class HistologyLayout:
    """Names of folders, tables, columns and labels; words are compared without regard to capitals.

    cropped, annotated           folders of patients' folders
    diagnoses                    table of patients: columns `patient` and `density`
    negative, low, high          what `density` says
    patches                      table of annotated patches: `patch_patient`, `section`, `patch`, `presence`
    present, absent, uncertain   what `presence` says
    """

    cropped: str = "CroppedPatches"
    annotated: str = "AnnotatedPatches"
    diagnoses: str = "PatientDiagnosis.csv"
    patient: str = "CODI"
    density: str = "DENSITAT"
    negative: str = "NEGATIVA"
    low: str = "BAIXA"
    high: str = "ALTA"
    patches: str = "HP_WSI-CoordAnnotatedPatches.csv"
    patch_patient: str = "Pat_ID"
    section: str = "Section_ID"
    patch: str = "Window_ID"
    presence: str = "Presence"
    present: str = "1"
    absent: str = "-1"
    uncertain: str = "0"


@dataclass(frozen=True, slots=True)
class Unmatched:
    """What folders and tables do not agree on. None of it is an error: cohorts are published in parts.

    folders    patients' folders without a diagnosis; their pictures are in no list
    patients   patients with a diagnosis and without a folder
    pictures   annotated pictures without a row
    rows       rows of annotated patches without a picture, as "table, line n"
    disputed   pictures with bacteria of patients diagnosed negative; they stay among the annotated
    """

    folders: tuple[Path, ...] = ()
    patients: tuple[str, ...] = ()
    pictures: tuple[Path, ...] = ()
    rows: tuple[str, ...] = ()
    disputed: tuple[Path, ...] = ()

    def lines(self) -> list[str]:
        """One line for each, for people."""
        said = {
            "has no diagnosis, and is left out": self.folders,
            "has a diagnosis and no folder": self.patients,
            "is annotated by no row, and is left out": self.pictures,
            "names a patch that is not there": self.rows,
            "shows bacteria, of a patient diagnosed negative": self.disputed,
        }
        return [f"{what} {says}" for says, whats in said.items() for what in whats]


@dataclass(frozen=True, slots=True)
class Cohort:
    """Patients and their patches; every record's group is its patient.

    patients    density of every patient that has both a diagnosis and a folder, sorted
    cropped     label 0 for a negative patient's patches, None for the others': nobody says which of them show bacteria
    annotated   label 1 (bacteria) or 0
    uncertain   annotated too, but the pathologist could not tell: label None
    """

    patients: Mapping[str, Density]
    cropped: list[Record]
    annotated: list[Record]
    uncertain: list[Record]
    unmatched: Unmatched

    def records(self) -> list[Record]:
        """All pictures."""
        return [*self.cropped, *self.annotated, *self.uncertain]

    def of(self, patients: Collection[str]) -> Cohort:
        """These patients alone."""
        cropped, annotated, uncertain = (
            [record for record in records if record.group in patients]
            for records in (self.cropped, self.annotated, self.uncertain)
        )
        chosen = {name: density for name, density in self.patients.items() if name in patients}
        return replace(self, patients=chosen, cropped=cropped, annotated=annotated, uncertain=uncertain)


class _Folder(NamedTuple):
    path: Path
    patient: str
    section: str | None
    pictures: list[Path]


def layout_of(root: PathLike) -> HistologyLayout:
    """The layout that the folder's cohort.json names, or the source's where it has none.

    Raises InputError for a file that is no object of texts, or that has an unknown name.
    """
    path = Path(root) / NAMES
    if not path.is_file():
        return HistologyLayout()
    value = read_json(path)
    known = [field.name for field in fields(HistologyLayout)]
    if not isinstance(value, dict) or not all(isinstance(text, str) and text for text in value.values()):
        raise InputError(f'{path}: expected names and texts, as in {{"patient": "ID"}}')
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected some of {', '.join(known)}"
            raise InputError(f"{path}: {name!r} is unknown; {hint}")
    return HistologyLayout(**value)


def is_histology(root: PathLike, layout: HistologyLayout | None = None) -> bool:
    """Whether a folder has this layout: cohort.json, the cropped patches' folder or the table of diagnoses tells."""
    if layout is None and (Path(root) / NAMES).is_file():
        return True
    layout = layout or HistologyLayout()
    return (Path(root) / layout.cropped).is_dir() or (Path(root) / layout.diagnoses).is_file()


def read_histology(root: PathLike, layout: HistologyLayout | None = None) -> Cohort:
    """Read folders and tables (see the module) -> a cohort, records sorted by path, no picture opened.

    Raises InputError naming file and line for a missing folder, table or column, an unknown word, rows that contradict
    each other, a row that fits two pictures, and a patient's folder without pictures.
    """
    top, layout = Path(root), layout or layout_of(root)
    diagnoses = _diagnoses(top / layout.diagnoses, layout)
    cropped = _folders(top / layout.cropped)
    annotated = _folders(top / layout.annotated) if _annotations(top, layout) else []
    with_folder = {folder.patient for folder in [*cropped, *annotated]}
    patients = {patient: diagnoses[patient] for patient in sorted(with_folder & diagnoses.keys())}
    labels, lost = _presences(top / layout.patches, annotated, layout) if annotated else ({}, [])
    kept: dict[int | None, list[Record]] = {0: [], 1: [], None: []}
    unlabelled = []
    for path, patient in _pictures(annotated, patients):
        if path in labels:
            kept[labels[path]].append(Record(path, label=labels[path], group=patient))
        else:
            unlabelled.append(path)
    return Cohort(
        patients,
        [Record(p, 0 if patients[who] == "negative" else None, group=who) for p, who in _pictures(cropped, patients)],
        sorted(kept[0] + kept[1], key=lambda record: record.path),
        kept[None],
        Unmatched(
            folders=tuple(folder.path for folder in [*cropped, *annotated] if folder.patient not in patients),
            patients=tuple(sorted(diagnoses.keys() - with_folder)),
            pictures=tuple(unlabelled),
            rows=tuple(lost),
            disputed=tuple(r.path for r in kept[1] if r.group and patients[r.group] == "negative"),
        ),
    )


def split_patients(
    patients: Mapping[str, Density], *, seed: int = 0, shares: Mapping[str, float] | None = None
) -> dict[str, list[str]]:
    """Patients by split, each density divided alike: what a manifest stores and `placed` takes.

    `shares` of the patients go to other splits (default: 0.3 to test), the rest to train. Every split gets one patient
    of each density at least. The outcome depends on `seed` and the patients, not on their order or files. Validation
    and calibration of a one-class family come from train's negative patients: `splits.split` does that.
    Raises InputError where a density has fewer patients than there are splits.
    """
    shares = {"test": 0.3} if shares is None else dict(shares)
    known = set(SPLITS) - {"train"}
    if not (known.issuperset(shares) and all(share > 0 for share in shares.values()) and sum(shares.values()) < 1):
        raise ArgumentError(
            f"split_patients: found shares {shares}; expected splits among {', '.join(sorted(known))}, each share "
            "above 0 and their sum below 1"
        )
    parts = {"train": 1 - sum(shares.values()), **shares}
    result: dict[str, list[str]] = {part: [] for part in parts}
    for density in DENSITIES:
        members = [patient for patient, its in patients.items() if its == density]
        if members and len(members) < len(parts):
            raise InputError(
                f"found {len(members)} patients of density {density}; expected at least {len(parts)}, one each for "
                f"{', '.join(parts)}: add patients or ask for fewer splits"
            )
        members.sort(key=lambda patient: hashlib.blake2b(f"{seed}/{patient}".encode()).digest())
        counts = Counter(targets(len(members), parts))
        for part in parts:
            if members and not counts[part]:
                counts[max(counts, key=lambda name: counts[name])] -= 1
                counts[part] += 1
        for part in parts:
            result[part] += members[: counts[part]]
            del members[: counts[part]]
    return {part: sorted(chosen) for part, chosen in result.items()}


def placed(cohort: Cohort, parts: Mapping[str, Iterable[str]]) -> Cohort:
    """The cohort with every record in its patient's split; `parts` as `split_patients` or a manifest gives them.

    Raises InputError for an unknown split, a patient in two splits, in none, or not in the cohort.
    `splits.check_disjoint` is the caller's next step: two patients may share pictures.
    """
    splits: dict[str, str] = {}
    for part, patients in parts.items():
        if part not in SPLITS:
            raise InputError(f"found a split {part!r}; expected one of {', '.join(SPLITS)}")
        for patient in patients:
            if splits.setdefault(patient, part) != part:
                raise InputError(
                    f"patient {patient} is in {splits[patient]} and in {part}; expected one split, remove one"
                )
    if strangers := sorted(splits.keys() - cohort.patients.keys()):
        raise InputError(
            f"patient {strangers[0]} ({splits[strangers[0]]}) is not in the cohort; expected its own patients"
        )
    if homeless := sorted(cohort.patients.keys() - splits.keys()):
        raise InputError(f"patient {homeless[0]} is in no split ({len(homeless) - 1} more such patients); expected one")
    cropped, annotated, uncertain = (
        [replace(record, split=splits[str(record.group)]) for record in records]
        for records in (cohort.cropped, cohort.annotated, cohort.uncertain)
    )
    return replace(cohort, cropped=cropped, annotated=annotated, uncertain=uncertain)


def _annotations(top: Path, layout: HistologyLayout) -> bool:
    """Whether there are annotated patches: folder and table, or neither."""
    folder, table = (top / layout.annotated).is_dir(), (top / layout.patches).is_file()
    if folder != table:
        found, missing = (layout.annotated, layout.patches) if folder else (layout.patches, layout.annotated)
        raise InputError(
            f"{top}: found {found} without {missing}; expected both or neither, or another name in its cohort.json"
        )
    return folder


def _folders(top: Path) -> list[_Folder]:
    """Patients' folders, sorted; hidden files and whatever is no picture are skipped."""
    if not top.is_dir():
        raise InputError(f"{top}: no such folder; expected a folder for each patient in it")
    folders = []
    for child in sorted(top.iterdir()):
        if child.name.startswith("."):
            continue
        if not child.is_dir():
            if child.suffix.lower() in SUFFIXES:
                raise InputError(f"{child}: lies beside the patients' folders; expected it in one of them, move it")
            continue
        pictures = sorted(
            p for p in child.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
        )
        if not pictures:
            raise InputError(
                f"{child}: holds no picture; expected patches of this patient, remove the folder or fill it"
            )
        match = re.fullmatch(r"(.+?)(?:_([01]))?", child.name)
        assert match  # a name has one character at least
        folders.append(_Folder(child, match[1], match[2], pictures))
    if not folders:
        raise InputError(f"{top}: holds no folder; expected one for each patient, named as in the table of diagnoses")
    return folders


def patient_of(folder: str) -> str:
    """The patient that a folder's name says: without the _0 or _1 of a section."""
    return re.sub(r"(?<=.)_[01]$", "", folder)


def _pictures(folders: Iterable[_Folder], patients: Mapping[str, Density]) -> Iterator[tuple[Path, str]]:
    """Every picture with its patient, of patients that have a diagnosis."""
    for folder in folders:
        if folder.patient in patients:
            yield from ((path, folder.patient) for path in folder.pictures)


def _diagnoses(table: Path, layout: HistologyLayout) -> dict[str, Density]:
    words = dict(zip((layout.negative, layout.low, layout.high), DENSITIES, strict=True))
    found: dict[str, tuple[str, Density]] = {}
    for where, row in rows(table, (layout.patient, layout.density)):
        density = word(where, layout.density, row[layout.density], words)
        earlier, known = found.setdefault(row[layout.patient], (where, density))
        if known != density:
            raise InputError(
                f"{where}: patient {row[layout.patient]} is {density}, and {known} in {earlier}; expected one diagnosis"
            )
    if not found:
        raise InputError(f"{table}: holds no patient; expected one a line")
    return {patient: density for patient, (_, density) in found.items()}


def _presences(
    table: Path, folders: Iterable[_Folder], layout: HistologyLayout
) -> tuple[dict[Path, int | None], list[str]]:
    """Labels by picture (None: uncertain), and the rows without a picture."""
    words: dict[str, int | None] = {layout.present: 1, layout.absent: 0, layout.uncertain: None}
    known: defaultdict[tuple[str, str], list[tuple[str | None, Path]]] = defaultdict(list)
    for folder in folders:
        for path in folder.pictures:
            known[folder.patient, _window(path.stem)].append((folder.section, path))
    labels: dict[Path, tuple[str, int | None]] = {}
    lost = []
    for where, row in rows(table, (layout.patch_patient, layout.patch, layout.presence), (layout.section,)):
        label = word(where, layout.presence, row[layout.presence], words)
        section = row[layout.section] or None
        candidates = known.get((row[layout.patch_patient], _window(row[layout.patch])), [])
        paths = [path for its, path in candidates if section is None or its in (None, section)]
        if len(paths) > 1:
            raise InputError(
                f"{where}: fits {paths[0]} and {paths[1]}; expected one picture, add the column {layout.section} "
                "(0 or 1) or rename one of them"
            )
        if not paths:
            lost.append(where)
            continue
        earlier, other = labels.setdefault(paths[0], (where, label))
        if other != label:
            raise InputError(f"{where}: contradicts {earlier} about {paths[0]}; expected one {layout.presence} for it")
    return {path: label for path, (_, label) in labels.items()}, lost


def _window(name: str) -> str:
    """A patch's name as both spellings have it: 00042 and 42 are one, and so are 00042_Aug1 and 42_Aug1."""
    return re.sub(r"^0+(?=\d)", "", name)
