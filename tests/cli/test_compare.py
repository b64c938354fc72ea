"""`normscan compare`: two runs on the same test pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from normscan.data.synthetic import write_demo
from normscan.report.compare import disagreements

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def other(skin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another seed on the same data."""
    from normscan.families import family
    from normscan.train.run import train

    folder = tmp_path_factory.mktemp("other") / "other"
    train("ocad", skin, folder, preset="paper", overrides={**family("ocad").tiny, "seed": 1})
    return folder


def test_both_runs_are_on_the_page(call: Call, run: Path, other: Path, tmp_path: Path) -> None:
    code, out, err = call("compare", run, other, "-o", tmp_path / "both", "--json")
    assert code == 0, err
    found = json.loads(out)
    areas = [side["metrics"]["image_auroc"] for side in found["runs"]]
    assert [side["name"] for side in found["runs"]] == ["run", "other"]
    assert found["paired"]["difference"] == pytest.approx(areas[1] - areas[0])
    assert json.loads((tmp_path / "both" / "comparison.json").read_text())["paired"]["method"] == "delong"
    page = (tmp_path / "both" / "index.html").read_text()
    assert page.count('<polyline class="curve') == 2
    assert page.count('loading="lazy"') == 3 * 12
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert len(page) == len(page.encode("ascii", "ignore").decode()) or "charset" in page
    code, out, _ = call("compare", run, other, "-o", tmp_path / "both")
    assert code == 0  # a comparison can be made again
    assert "second minus first" in out


def test_a_bundle_and_a_run_need_the_data_named(
    call: Call, run: Path, exported: Path, skin: Path, tmp_path: Path
) -> None:
    code, _, err = call("compare", run, exported, "-o", tmp_path / "both")
    assert code == 2
    assert "name the data folder: -i DATA" in err
    code, out, _ = call("compare", run, exported, "-i", skin, "-o", tmp_path / "both", "--json")
    assert code == 0
    assert json.loads(out)["paired"]["difference"] == pytest.approx(0, abs=1e-9)


def test_different_test_sets_are_told(call: Call, run: Path, skin: Path, tmp_path: Path) -> None:
    """The other run's data lie elsewhere."""
    from normscan.files import read_json, write_json

    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    write_demo(tmp_path / "data", seed=9, size=32, train=2, test_normal=2, test_abnormal=2)
    manifest = read_json(moved / "manifest.json")
    manifest["data"]["folder"] = "../data"
    write_json(moved / "manifest.json", manifest)
    code, _, err = call("compare", run, moved, "-o", tmp_path / "both")
    assert code == 2
    assert "their test sets differ; name one for both with -i" in err
    assert not (tmp_path / "both").exists()


def test_one_kind_alone_and_one_run_twice_are_told(call: Call, run: Path, other: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "data", seed=9, size=32, train=2, test_normal=2, test_abnormal=2)
    code, _, err = call("compare", run, run, "-i", tmp_path / "data", "-o", tmp_path / "both")
    assert (code, "is compared with itself" in err) == (3, True)
    shutil.rmtree(tmp_path / "data" / "test" / "normal")
    code, _, err = call("compare", run, other, "-i", tmp_path / "data", "-o", tmp_path / "both")
    assert (code, "expected normal and abnormal ones" in err) == (3, True)


def test_disagreements_are_of_rank_not_of_score() -> None:
    assert disagreements([1, 2, 3, 4], [400, 10, 20, 30])[0] == 0
    assert disagreements([1, 2, 3], [10, 200, 3000]) == [0, 1, 2]
