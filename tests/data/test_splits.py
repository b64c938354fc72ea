"""Disjoint by group and content, repeatable, of the sizes asked for. Images are a few bytes, never decoded."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normscan.data.layouts import read_layout
from normscan.data.sample import Record
from normscan.data.splits import check_disjoint, split
from normscan.errors import ArgumentError, InputError


def make(
    root: Path,
    count: int,
    *,
    name: str = "n",
    part: str | None = "train",
    label: int | None = 0,
    group: str | None = None,
) -> list[Record]:
    """Records of `count` files, each with bytes of its own."""
    root.mkdir(parents=True, exist_ok=True)
    paths = [root / f"{name}{index:04d}.png" for index in range(count)]
    for path in paths:
        path.write_bytes(f"pixels of {path.name}".encode())
    return [Record(path, label=label, split=part, group=group) for path in paths]


def sizes(records: list[Record]) -> dict[str | None, int]:
    return dict(Counter(record.split for record in records))


@pytest.mark.parametrize("count", [3, 4, 7, 10, 19, 100, 111])
def test_sizes_are_nearest_to_the_shares(tmp_path, count):
    found = sizes(split(make(tmp_path, count)))
    assert sum(found.values()) == count
    for part, share in (("train", 0.7), ("validation", 0.1), ("calibration", 0.2)):
        assert found[part] >= 1
        if count >= 10:
            assert abs(found[part] - share * count) <= 1


def test_order_and_everything_else_are_kept(tmp_path):
    records = [replace(record, weight=float(index)) for index, record in enumerate(make(tmp_path, 20))]
    result = split(records)
    assert [replace(record, split="train") for record in result] == records


def test_outcome_depends_on_the_seed_and_the_content_alone(tmp_path):
    here, there = make(tmp_path / "a", 60), make(tmp_path / "deep/er/b", 60)
    parts = [record.split for record in split(here, seed=3)]
    assert parts == [record.split for record in split(there, seed=3)]
    assert parts == [record.split for record in split(here[::-1], seed=3)][::-1]
    assert parts != [record.split for record in split(here, seed=4)]


def test_groups_stay_together(tmp_path):
    rng = np.random.default_rng(0)
    records = [replace(record, group=f"p{rng.integers(40)}") for record in make(tmp_path, 200)]
    result = split(records)
    parts = defaultdict(set)
    for record in result:
        parts[record.group].add(record.split)
    assert all(len(found) == 1 for found in parts.values())
    for part, share in (("train", 0.7), ("validation", 0.1), ("calibration", 0.2)):
        assert abs(sizes(result)[part] - 200 * share) <= 10
    check_disjoint(result)


def test_copies_stay_together_and_join_groups(tmp_path):
    records = make(tmp_path, 40)
    for index in range(10):
        records[index].path.write_bytes(b"the same picture")
    records[0] = replace(records[0], group="p")
    for index in range(20, 25):
        records[index] = replace(records[index], group="p")
    result = split(records)
    assert len({result[index].split for index in (*range(10), *range(20, 25))}) == 1
    check_disjoint(result)


def components(members: list[tuple[int, int]]) -> int:
    """How many sets of (group, content) are left once all that share one are merged; group 0 is none."""
    merged: list[set[str]] = []
    for group, content in members:
        tags = {f"content {content}"} | ({f"group {group}"} if group else set())
        joined = [other for other in merged if other & tags]
        merged = [other for other in merged if not other & tags] + [tags.union(*joined)]
    return len(merged)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    members=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12)), min_size=3, max_size=30), seed=st.integers(0, 99)
)
def test_any_mixture_of_groups_and_copies_is_split_disjointly(tmp_path, members, seed):
    records = make(tmp_path, len(members))
    for index, (group, content) in enumerate(members):
        records[index].path.write_bytes(bytes([content]))
        records[index] = replace(records[index], group=f"g{group}" if group else None)
    try:
        result = split(records, seed=seed)
    except InputError:
        assert components(members) < 3
        return
    check_disjoint(result)
    assert set(sizes(result)) == {"train", "validation", "calibration"}


def test_parts_that_the_layout_brings_are_kept(tmp_path):
    records = make(tmp_path, 50) + make(tmp_path, 7, name="v", part="validation")
    assert sizes(split(records)) == {"train": 40, "calibration": 10, "validation": 7}
    records += make(tmp_path, 5, name="c", part="calibration")
    assert split(records) == records


def test_nothing_but_training_normals_moves(tmp_path):
    others = make(tmp_path, 9, name="t", part="test") + make(tmp_path, 9, name="u", part="unlabelled", label=None)
    others += make(tmp_path, 9, name="a", label=1) + make(tmp_path, 9, name="x", part=None, label=None)
    others += [replace(record, origin="generated") for record in make(tmp_path, 9, name="g")]
    result = split(make(tmp_path, 30) + others)
    assert result[30:] == others
    assert Counter(record.split for record in result[:30]) == {"train": 21, "validation": 3, "calibration": 6}


@pytest.mark.parametrize(("part", "label"), [("train", 1), ("unlabelled", None)])
def test_a_group_that_training_sees_otherwise_stays_in_train(tmp_path, part, label):
    shared = make(tmp_path, 10, name="s", group="p")
    records = shared + make(tmp_path, 30) + make(tmp_path, 2, name="a", part=part, label=label, group="p")
    result = split(records)
    assert {record.split for record in result[:10]} == {"train"}
    assert Counter(record.split for record in result[:40])["calibration"] == 8  # a fifth of all 40 normals
    check_disjoint(result)


def test_too_few_images_say_how_many_are_needed(tmp_path):
    records = make(tmp_path, 5, group="one patient")
    with pytest.raises(
        InputError, match=r"found 1 normal training images of different groups .* expected at least 3, one"
    ):
        split(records)
    with pytest.raises(InputError, match="at least 2, one each for train, calibration"):
        split(records, validation=0)
    assert split(records, validation=0, calibration=0) == records


@pytest.mark.parametrize("shares", [(-0.1, 0.2), (0.5, 0.5), (float("nan"), 0.1)])
def test_shares_out_of_range_are_refused(tmp_path, shares):
    with pytest.raises(ArgumentError, match="expected each at least 0 and their sum below 1"):
        split(make(tmp_path, 9), validation=shares[0], calibration=shares[1])


# check_disjoint


def test_the_same_content_in_two_splits_names_both_files(tmp_path):
    for place in ("train/normal/a.png", "train/normal/b.png", "test/bad/c.png", "test/normal/d.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(place.encode())
    check_disjoint(read_layout(tmp_path))
    (tmp_path / "test/normal/d.png").write_bytes(b"train/normal/b.png")
    with pytest.raises(InputError, match=r"d\.png \(test\) and .*b\.png \(train\) have the same content; expected"):
        check_disjoint(read_layout(tmp_path))


def test_one_group_in_two_splits_names_the_files_and_not_the_patient(tmp_path):
    records = make(tmp_path, 3, group="Jane Doe") + make(tmp_path, 3, name="t", part="test", group="Jane Doe")
    with pytest.raises(
        InputError, match=r"n0000\.png \(train\) and .*t0000\.png \(test\) belong to one group"
    ) as caught:
        check_disjoint(records)
    assert "Jane" not in str(caught.value)


def test_copies_within_a_split_are_no_overlap(tmp_path):
    records = (
        make(tmp_path, 4) + make(tmp_path, 2, name="u", part="unlabelled") + make(tmp_path, 1, name="x", part=None)
    )
    for record in records:
        record.path.write_bytes(b"all the same")
    check_disjoint(records)  # training sees unlabelled images too, and x belongs to no split


def test_a_file_that_vanished_is_named(tmp_path):
    records = make(tmp_path, 3)
    records[1].path.unlink()
    for function in (check_disjoint, split):
        with pytest.raises(InputError, match=r"n0001\.png: (cannot be read|no such file)"):
            function(records)


def test_thousands_of_files_are_checked_quickly(tmp_path):
    records = make(tmp_path, 2000) + make(tmp_path, 200, name="t", part="test")
    start = time.perf_counter()
    check_disjoint(records)
    split(records)
    assert time.perf_counter() - start < 5
