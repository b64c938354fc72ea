"""Five disjoint parts, by group: train, validation, calibration, test, unlabelled.

Images belong together when they share a group (patient, lesion, slide) or have the same bytes. What belongs together
never straddles two parts: a copy of a training image in the calibration part would promise a specificity that new
patients do not get.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from normscan.data.sample import Record
from normscan.errors import ArgumentError, ImageError, InputError
from normscan.files import sha256


def check_disjoint(records: Iterable[Record]) -> None:
    """Raise InputError, naming two files, where two splits share a group or a file's content.

    Train and unlabelled may: training sees both. Groups themselves are not named, as they may be patients. Records
    without a split are left out.
    """
    placed = [record for record in records if record.split is not None]
    by_group: defaultdict[str, list[Record]] = defaultdict(list)
    for record in placed:
        if record.group is not None:
            by_group[record.group].append(record)
    _refuse_straddling(by_group, "belong to one group (patient, lesion or slide)")
    by_content: defaultdict[str, list[Record]] = defaultdict(list)
    for candidates in _by_size(placed).values():
        if len(_sides(candidates)) > 1:  # equal content has equal size: hash nothing else
            for record in candidates:
                by_content[sha256(record.path)].append(record)
    _refuse_straddling(by_content, "have the same content")


def _refuse_straddling(families: Mapping[str, Sequence[Record]], what: str) -> None:
    straddling = [members for members in families.values() if len(_sides(members)) > 1]
    if not straddling:
        return
    pairs = combinations(sorted(straddling[0], key=lambda record: record.path), 2)
    first, second = next(pair for pair in pairs if len(_sides(pair)) > 1)
    others = f" (and {len(straddling) - 1} more such cases)" if len(straddling) > 1 else ""
    raise InputError(
        f"{first.path} ({first.split}) and {second.path} ({second.split}) {what}{others}; "
        "expected splits that are disjoint, move or remove one of them"
    )


def _by_size(records: Iterable[Record]) -> dict[int, list[Record]]:
    sizes: defaultdict[int, list[Record]] = defaultdict(list)
    for record in records:
        try:
            sizes[record.path.stat().st_size].append(record)
        except OSError as error:
            raise ImageError(f"{record.path}: cannot be read ({error.strerror}); list the folder again") from None
    return sizes


def _sides(records: Iterable[Record]) -> set[str | None]:
    """The splits that must not meet; training sees unlabelled images too."""
    return {"train" if record.split == "unlabelled" else record.split for record in records}


def split(
    records: Sequence[Record], *, seed: int = 0, validation: float = 0.1, calibration: float = 0.2
) -> list[Record]:
    """Move whole groups of the normal training images to validation and calibration; the order is kept.

    `validation` and `calibration` are shares of the training normals (0: none); a part that the layout brings already
    is kept, and nothing is added to it. The outcome depends on `seed`, the groups and the files' contents, not on names
    or folders. Generated images stay in train, and so do normals that share a group with an abnormal or unlabelled
    image that training may see. Raises InputError where there are too few groups for one in each part.
    """
    shares = {"validation": validation, "calibration": calibration}
    if not (min(shares.values()) >= 0 and sum(shares.values()) < 1):  # NaN fails too
        raise ArgumentError(f"split: found shares {shares}; expected each at least 0 and their sum below 1")
    given = {record.split for record in records}
    shares = {part: share for part, share in shares.items() if share > 0 and part not in given}
    movable = {index for index, record in enumerate(records) if _movable(record)}
    families = _families(records, [index for index in range(len(records)) if _sides([records[index]]) == {"train"}])
    free = {key: members for key, members in families.items() if movable.issuperset(members)}
    pinned = len(movable) - sum(len(members) for members in free.values())
    result = list(records)
    for part, members in _assign(free, shares, seed, pinned):
        for index in members:
            result[index] = replace(records[index], split=part)
    return result


def split_abnormal(records: Sequence[Record], *, seed: int = 0, validation: float = 0.1) -> list[Record]:
    """Move whole groups that hold abnormal training images to validation, for families that learn from labels.

    `validation` is the share of these images that go; one group at least goes, and one at least stays. Normals of a
    group go with it. A validation part that the layout brings already is kept. Raises InputError where fewer than two
    groups hold abnormal images.
    """
    given = any(record.split == "validation" and record.label == 1 for record in records)
    families = _families(records, [index for index, record in enumerate(records) if record.split == "train"])
    mixed = {key: members for key, members in families.items() if any(records[i].label == 1 for i in members)}
    if given or not validation:
        return list(records)
    if len(mixed) < 2:
        raise InputError(
            f"found abnormal training images of {len(mixed)} groups; expected at least 2, one each for train and "
            "validation: add images, or a validation part"
        )
    result = list(records)
    abnormal = {key: sum(records[i].label == 1 for i in members) for key, members in mixed.items()}
    ordered = sorted(mixed, key=lambda key: hashlib.blake2b(f"{seed}/{key}".encode()).digest())
    wanted, moved = validation * sum(abnormal.values()), 0
    for key in ordered[:-1]:
        if moved >= wanted:
            break
        moved += abnormal[key]
        for index in mixed[key]:
            result[index] = replace(records[index], split="validation")
    return result


def _movable(record: Record) -> bool:
    return record.split == "train" and record.label == 0 and record.origin == "ok"


def _families(records: Sequence[Record], indices: Sequence[int]) -> dict[str, list[int]]:
    """Indices that belong together, by a key that names no path: the least of their contents' hashes and groups."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    contents = {index: f"content:{sha256(records[index].path)}" for index in indices}
    for index, content in contents.items():
        group = records[index].group
        if group is not None:
            first, second = sorted((root(content), root(f"group:{group}")))
            parent[second] = first
    families: defaultdict[str, list[int]] = defaultdict(list)
    for index, content in contents.items():
        families[root(content)].append(index)
    return families


def _assign(
    families: Mapping[str, list[int]], shares: Mapping[str, float], seed: int, pinned: int
) -> list[tuple[str, list[int]]]:
    """(part, indices) for each family, in an order hashed from the seed; each goes where most images are missing.

    `pinned` further normals stand in train already, and count there.
    """
    parts = ["train", *shares]
    waiting = set(shares) if pinned else set(parts)
    least = len(waiting)
    if len(families) < least:
        needy = ", ".join(part for part in parts if part in waiting)
        raise InputError(
            f"found {len(families)} normal training images of different groups and content; "
            f"expected at least {least}, one each for {needy}: add images"
        )
    total = pinned + sum(len(members) for members in families.values())
    missing = Counter(targets(total, {"train": 1 - sum(shares.values()), **shares}))
    missing["train"] -= pinned
    assigned = []
    ordered = sorted(families, key=lambda key: hashlib.blake2b(f"{seed}/{key}".encode()).digest())
    for left, key in zip(range(len(ordered), 0, -1), ordered, strict=True):
        # Once as many families are left as parts have none, each of those parts gets one.
        part = max((part for part in parts if left > len(waiting) or part in waiting), key=lambda name: missing[name])
        missing[part] -= len(families[key])
        waiting.discard(part)
        assigned.append((part, families[key]))
    return assigned


def targets(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers of images nearest the shares (largest remainder)."""
    exact = {part: share * total for part, share in shares.items()}
    counts = {part: int(value) for part, value in exact.items()}
    for part in sorted(exact, key=lambda name: counts[name] - exact[name])[: total - sum(counts.values())]:
        counts[part] += 1
    return counts
