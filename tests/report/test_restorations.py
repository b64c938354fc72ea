"""The sheet of restorations, and which models have one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from normscan.data.sample import Record
from normscan.deploy.session import load
from normscan.families import families
from normscan.report.restorations import EACH, GAP, SIDE, as_picture, restored, restored_output, write_restorations
from normscan.scoring.spec import Input

RESTORES = {"ocad": "reconstruction", "sagan": "restored", "stain_ae": "reconstruction"}


def test_the_models_that_restore() -> None:
    """What a distance or a stain compares with the image itself; features and probabilities are no pictures."""
    found = {name: restored_output(card.spec(card.config.preset("paper"))) for name, card in families().items()}
    assert {name: output for name, output in found.items() if output is not None} == RESTORES


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_comes_back_from_the_network_s_range(channels: int) -> None:
    size = Input(4, 5, channels, mean=(0.5,) * channels, std=(0.25,) * channels)
    levels = np.arange(20 * channels, dtype=np.float32).reshape(channels, 4, 5) / (20 * channels - 1)
    expected = np.rint(levels * 255).astype(np.uint8).transpose(1, 2, 0)
    found = as_picture((levels - 0.5) / 0.25, size)
    np.testing.assert_array_equal(found, np.broadcast_to(expected, (4, 5, 3)))
    beyond = as_picture(np.full((channels, 4, 5), 9.0, np.float32), size)
    assert (beyond == 255).all()


def test_the_sheet_has_both_kinds_and_the_mean_change(exported: Path, skin: Path, tmp_path: Path) -> None:
    session = load(exported)
    paths = {label: sorted((skin / "test" / name).glob("*.png")) for label, name in ((0, "normal"), (1, "abnormal"))}
    records = [Record(path, label=label) for label, found in paths.items() for path in found]
    means = write_restorations(tmp_path / "sheet.png", session, records)
    changes = []
    for path in paths[0]:
        out = session.outputs(path)
        changes.append(np.abs(np.clip(out["image"], 0, 1) - np.clip(out["reconstruction"], 0, 1)).mean())
    assert means["normal"] == pytest.approx(np.mean(changes), rel=1e-5)
    assert set(means) == {"normal", "abnormal"}
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    tiles = min(EACH, len(paths[0])) + 1
    assert sheet.shape == (6 * SIDE + 4 * GAP + 4 * GAP, tiles * (SIDE + GAP) - GAP, 3)
    again = restored(session, cv2.imread(str(paths[1][0]))[:, :, ::-1])
    assert again is not None
    assert again.dtype == np.uint8


def test_one_kind_alone(exported: Path, skin: Path, tmp_path: Path) -> None:
    records = [Record(path, label=0) for path in sorted((skin / "test" / "normal").glob("*.png"))[:2]]
    assert set(write_restorations(tmp_path / "sheet.png", load(exported), records)) == {"normal"}
