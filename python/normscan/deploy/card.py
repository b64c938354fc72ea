"""The model card that travels in every bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normscan import __version__
from normscan.train.folder import Run


def card(run: Run) -> str:
    """Markdown: what it is, what it was made from, what it may be used for."""
    manifest, calibration = run.manifest, run.spec.calibration
    counts = manifest["data"]["counts"]
    if calibration is None:
        threshold = "No threshold: too few calibration normals. Scores carry no decision."
    else:
        low, high = calibration.interval
        threshold = (
            f"Threshold {calibration.threshold:.6g} (anomalous iff score > threshold), from {calibration.n} "
            f"calibration normals; target specificity {calibration.target_specificity:.0%}, "
            f"95 % interval {low:.1%} to {high:.1%}."
        )
    learnt = "labelled pictures" if "labelled_auroc" in manifest["validation"] else "normals"
    terms = "\n".join(
        f"| {term.op} | {', '.join(term.of)} | {term.kind} | {term.weight:g} | {term.scale or 1:.4g} |"
        for term in run.spec.terms
    )
    return f"""# {run.family.name}

**Research use only. Not a medical device.** A score says how far a picture lies from the training normals, not what it
shows. Pictures from another device, site or population need a calibration and an evaluation of their own.

Method: {run.family.paper}. Preset `{manifest["preset"]}`, seed {manifest["seed"]}, normscan {__version__}.

## Data

{counts["train"]} {learnt} for the network and its statistics, {counts["validation"]} for choosing the checkpoint and
the terms' scales, {counts["calibration"]} for the threshold. No picture is in two parts; the manifest has hashes.
{_origins(manifest)}
## Score

{threshold}

| term | outputs | form | weight | scale |
|---|---|---|---|---|
{terms}

## Validation

{_validation(manifest["validation"])}
"""


def _validation(found: Mapping[str, float]) -> str:
    """What was seen on pictures that chose something; no figure of a test."""
    if "labelled_auroc" in found:
        return (
            f"Labelled validation pictures: AUROC {found['labelled_auroc']:.3f}. They took part in the training's end: "
            "measure on others with `normscan evaluate`."
        )
    return (
        f"Anomalies planted in validation normals: AUROC {found['planted_auroc']:.3f}, median rise of the score\n"
        f"{found['separation']:.2f} standard deviations. These are made anomalies: real ones must be measured\n"
        "with `normscan evaluate`."
    )


def _origins(manifest: Mapping[str, Any]) -> str:
    """What else went into the training: generated pictures, abnormal ones, published weights."""
    others = {name: count for name, count in sorted(manifest["data"]["origins"].items()) if name != "ok"}
    lines = [f"Besides, the training saw {count} pictures of origin `{name}`." for name, count in others.items()]
    if weights := manifest["weights"]:
        lines.append(f"Weights at the start: {weights['backbone']} ({weights['origin']}).")
    return "".join(f"{line}\n" for line in lines)
