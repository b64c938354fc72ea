"""One HTML page a test set: verdict, plots, numbers, pictures, provenance. No network, no script, no second file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from normscan.files import write_bytes
from normscan.report import pictures, plots, words
from normscan.report.words import NONE, Metrics
from normscan.scoring import metrics as measure

GALLERY = 48  # images shown on a page
_ROOM_FOR_WRONG = 24  # of them wrong decisions, as long as there are others to show
_WRONG = ("missed", "false alarm")


@dataclass(frozen=True, slots=True)
class Row:
    """One scored image. What is unknown is None."""

    path_label: str  # shown as it is: the caller keeps patient names out of it
    label: int | None  # 0 normal, 1 abnormal
    score: float  # NaN: could not be scored
    decision: bool | None  # True: anomalous
    image: npt.NDArray[np.uint8] | None = None  # [H,W,3] RGB
    map: npt.NDArray[np.floating] | None = None  # [H,W]
    mask: npt.NDArray[np.bool_] | None = None  # [H,W]


def write_page(
    folder: Path | str,
    *,
    title: str,
    metrics: Metrics,
    calibration: Mapping[str, Any] | None,
    rows: Sequence[Row],
    provenance: Mapping[str, Any],
    map_scale: tuple[float, float] | None = None,
) -> Path:
    """Write `folder`/index.html, whole or not at all, and return its path.

    metrics: of `scoring.metrics.summary`, with "baselines" {name: AUROC or a summary} if there are any; calibration:
    the spec's, or None; rows: every test image, of which those that `pictured` names need pixels; provenance: any
    nesting of names and values; map_scale: (low, high) of the colours, else from the maps on the page.
    """
    sections = [
        _verdict(metrics, calibration, rows),
        _separation(metrics, rows),
        _measures(metrics, calibration),
        _baselines(metrics),
        _gallery(rows, map_scale),
        _provenance(provenance),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<style>{_STYLE}</style>\n</head>\n<body>\n<header>'
        f'<p class="kind">normscan report</p><h1>{escape(title)}</h1><p class="notice">{words.NOTICE}</p></header>\n'
        f"<main>\n{chr(10).join(filter(None, sections))}\n</main>\n<footer><p>{words.NOTICE}</p></footer>\n"
        "</body>\n</html>\n"
    )
    target = Path(folder) / "index.html"
    write_bytes(target, page.encode())
    return target


def pictured(rows: Sequence[Row]) -> list[int]:
    """Indices of the rows that the gallery shows: the most wrong decisions first, then the highest scores.

    Wrong by rank within its kind (the lowest missed, the highest false alarm, the second lowest missed, ...): distances
    to the threshold would let false alarms crowd out what was missed, as scores have a long tail above only.
    """
    scored = [i for i, row in enumerate(rows) if math.isfinite(row.score)]
    missed = sorted((i for i in scored if _outcome(rows[i]) == "missed"), key=lambda i: rows[i].score)
    alarms = sorted((i for i in scored if _outcome(rows[i]) == "false alarm"), key=lambda i: -rows[i].score)
    wrong = [i for _, i in sorted([*enumerate(missed), *enumerate(alarms)], key=lambda ranked: ranked[0])]
    others = sorted(set(scored).difference(wrong), key=lambda i: (-rows[i].score, i))
    first = wrong[: max(_ROOM_FOR_WRONG, GALLERY - len(others))]
    return first + others[: GALLERY - len(first)]


# ---- sections -----------------------------------------------------------------------------------------------------


def _verdict(metrics: Metrics, calibration: Metrics | None, rows: Sequence[Row]) -> str:
    counts = metrics.get("counts") or {}
    found = words.share(counts.get("true_positive"), counts.get("abnormal"), "abnormal images found")
    passed = words.share(counts.get("true_negative"), counts.get("normal"), "normal images passed")
    interval = words.known("95 % interval {}", words.numbers(metrics.get("image_auroc_ci")))
    promised = words.known("promised: {}", words.percents(metrics.get("specificity_prediction_interval")))
    figures = [
        ("AUROC", words.number(metrics.get("image_auroc")), interval),
        ("Sensitivity", words.percent(metrics.get("sensitivity")), found),
        ("Specificity", words.percent(metrics.get("specificity")), promised or passed),
    ]
    cells = "".join(
        f'<div><dt>{name}</dt><dd class="big">{value}</dd><dd>{note or "not defined"}</dd></div>'
        for name, value, note in figures
    )
    unscored = [row.path_label for row in rows if not math.isfinite(row.score)]
    said = words.sentences(metrics, calibration, len(rows), unscored)
    return _section("Verdict", f'<dl class="figures">{cells}</dl>' + "".join(f"<p>{escape(s)}</p>" for s in said))


def _separation(metrics: Metrics, rows: Sequence[Row]) -> str:
    of = {kind: [r.score for r in rows if r.label == kind and math.isfinite(r.score)] for kind in (0, 1, None)}
    if not any(of.values()):
        return ""
    threshold = metrics.get("threshold")
    charts = []
    if of[0] and of[1]:
        labels, scores = [0] * len(of[0]) + [1] * len(of[1]), of[0] + of[1]
        false, true, _ = measure.roc_curve(labels, scores)
        point = None
        if threshold is not None:
            sensitivity, specificity = measure.sensitivity_specificity(labels, scores, threshold)
            point = (1 - specificity, sensitivity)
        curve = plots.roc(false, true, area=measure.auroc(labels, scores), point=point)
        charts.append((curve, "What every threshold would find, and its price in false alarms."))
    bars = plots.histogram(of[0], of[1], of[None], threshold=threshold)
    charts.append((bars, "Scores of each kind. Those beyond the axis are counted in the outermost bars."))
    figures = "".join(f"<figure>{svg}<figcaption>{text}</figcaption></figure>" for svg, text in charts)
    return _section("Separation", f'<div class="plots">{figures}</div>')


def _measures(metrics: Metrics, calibration: Metrics | None) -> str:
    get, counts, spec = metrics.get, metrics.get("counts") or {}, calibration or {}
    how = {"delong": "DeLong", "grouped_bootstrap": "bootstrap over groups"}.get(get("image_auroc_ci_method") or "", "")
    found = words.share(counts.get("true_positive"), counts.get("abnormal"), "abnormal images found")
    passed = words.share(counts.get("true_negative"), counts.get("normal"), "normal images passed")
    evidence = words.known("of the threshold, given {} calibration images", spec.get("n"))
    number, percent, percents = words.number, words.percent, words.percents
    lines = [
        ("AUROC, images", number(get("image_auroc")), words.numbers(get("image_auroc_ci")), how),
        ("AUPRC, images", number(get("auprc")), "", words.known("chance is {}", number(get("prevalence")))),
        ("Sensitivity", percent(get("sensitivity")), percents(get("sensitivity_ci")), found),
        ("Specificity", percent(get("specificity")), percents(get("specificity_ci")), passed),
        (
            "Specificity, promised",
            percent(get("target_specificity")),
            percents(get("specificity_prediction_interval")),
            "for a test set of this size",
        ),
        ("Specificity, true", "", percents(spec.get("interval")), evidence),
        ("Threshold", words.score(get("threshold")), "", "anomalous above it"),
        ("AUROC, pixels", number(get("pixel_auroc")), "", ""),
        ("AUPRO, regions", number(get("aupro")), "", "up to 30 % false positive pixels"),
    ]
    body = [[escape(cell) for cell in line] for line in lines if line[1] not in ("", NONE) or line[2]]
    if not body:
        return ""
    return _section("Numbers", _table("Measured on the test set", ("Measure", "Value", "95 % interval", "Note"), body))


def _baselines(metrics: Metrics) -> str:
    areas = words.baseline_areas(metrics)
    if not areas or metrics.get("image_auroc") is None:
        return ""
    lines = [("This model", metrics["image_auroc"], metrics.get("image_auroc_ci"))]
    for name, area in sorted(areas, key=lambda item: -item[1]):
        given = metrics["baselines"][name]
        lines.append((name, area, given.get("image_auroc_ci") if isinstance(given, Mapping) else None))
    body = [
        [escape(name), words.number(area), words.numbers(bounds), plots.whisker(area, bounds)]
        for name, area, bounds in lines
    ]
    caption = "The same images, scored without a trained network. The dashed line is chance."
    return _section("Baselines", _table(caption, ("Method", "AUROC", "95 % interval", "From 0 to 1"), body))


def _gallery(rows: Sequence[Row], map_scale: tuple[float, float] | None) -> str:
    drawable = [row for row in rows if row.image is not None or row.map is not None]
    shown = [drawable[i] for i in pictured(drawable)]
    if not shown:
        return ""
    maps = [row.map for row in shown if row.map is not None]
    low, high = map_scale or pictures.scale_of(maps)
    wrong, drawn = (sum(_outcome(row) in _WRONG for row in given) for given in (rows, shown))
    intro = f"Wrong decisions first, {drawn} of {wrong}, then the highest scores." if wrong else "Highest scores first."
    if any(row.mask is not None for row in shown):
        intro += " What is known to be abnormal is outlined."
    bar = (
        f'<p class="scale">{low:.3g}<span class="bar" style="background:{pictures.gradient()}"></span>'
        f"{high:.3g}<span>one scale for all maps</span></p>"
        if maps
        else ""
    )
    cards = "".join(_card(row, low, high) for row in shown)
    return _section("Pictures", f'<p>{intro}</p>{bar}<ul class="gallery">{cards}</ul>')


def _card(row: Row, low: float, high: float) -> str:
    kind = {0: "normal", 1: "abnormal"}.get(-1 if row.label is None else row.label, "label unknown")
    outcome = _outcome(row) or ("" if row.decision is None else "flagged" if row.decision else "passed")
    images: list[tuple[str, pictures.Picture]] = []
    if row.image is not None:
        images.append(("image", row.image))
    if row.map is not None:
        images.append(("map", pictures.heat(row.map, low, high)))
    if row.image is not None and row.map is not None:
        images.append(("overlay", pictures.overlay(row.image, row.map, low, high, row.mask)))
    name = escape(row.path_label)
    panes = "".join(
        f'<img loading="lazy" src="{pictures.data_uri(picture)}" alt="{name}: {part}, {kind}">'
        for part, picture in images
    )
    return (
        f'<li class="{"wrong" if outcome in _WRONG else "right"}"><figure><div class="panes">{panes}</div><figcaption>'
        f'<span class="outcome">{", ".join(filter(None, (kind, outcome)))}</span>'
        f'<span class="score">{words.score(row.score)}</span><span class="path">{name}</span>'
        "</figcaption></figure></li>"
    )


def _provenance(provenance: Mapping[str, Any]) -> str:
    body = [[escape(name), escape(text)] for name, text in _flat(provenance)]
    return _section("Provenance", _table("Where these numbers come from", ("Field", "Value"), body)) if body else ""


# ---- parts --------------------------------------------------------------------------------------------------------


def _section(title: str, body: str) -> str:
    name = title.lower()
    return f'<section class="{name}" aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{body}</section>'


def _table(caption: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Cells of the body are markup; those of the first column head their row."""
    top = "".join(f'<th scope="col">{name}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for first, *cells in body
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _outcome(row: Row) -> str:
    """What became of an image; empty where its label or decision is unknown."""
    if row.label is None or row.decision is None:
        return ""
    return {(1, True): "found", (1, False): "missed", (0, True): "false alarm", (0, False): "passed"}[
        int(row.label), bool(row.decision)
    ]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings -> ("outer.inner", text)."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, ", ".join(str(part) for part in value)
    else:
        yield name, NONE if value is None else str(value)


_STYLE = """
:root{--paper:#fafaf8;--card:#fff;--ink:#1c2227;--soft:#5a656e;--line:#e3e4e0;--plain:#a9b2ba;--accent:#0b6b7d}
@media (prefers-color-scheme:dark){:root{--paper:#131619;--card:#1a1e22;--ink:#e6e9eb;--soft:#9ba7b0;--line:#2b3137;
--plain:#59646e;--accent:#58c4d6}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;font-variant-numeric:tabular-nums}
header,main,footer{max-width:68rem;margin:0 auto;padding:0 1.5rem}
header{padding-top:3.5rem}
.kind{margin:0;color:var(--accent);font-size:.875rem;font-weight:600;letter-spacing:.02em}
h1{margin:.25rem 0;font-size:clamp(1.6rem,4vw,2.25rem);line-height:1.2;font-weight:650;letter-spacing:-.015em;
overflow-wrap:anywhere}
.notice,footer{color:var(--soft);font-size:.875rem}
.notice{margin:.5rem 0 0}
section{margin:3.5rem 0}
h2{margin:0 0 1rem;font-size:1.25rem;font-weight:650;letter-spacing:-.005em}
p{margin:.6rem 0;max-width:44rem;overflow-wrap:anywhere}
.figures{display:grid;grid-template-columns:repeat(3,1fr);gap:1rem;margin:0 0 1.5rem}
.figures div,.plots figure{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:1.1rem 1.25rem}
.figures dt,.figures dd{margin:0;color:var(--soft);font-size:.875rem}
.figures .big{color:var(--ink);font-size:2.4rem;line-height:1.25;font-weight:600;letter-spacing:-.03em}
.figures div:first-child .big{color:var(--accent)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem}
figure{margin:0}
.plots figcaption{color:var(--soft);font-size:.875rem;margin-top:.5rem}
.plot{display:block;width:100%;height:auto;font-size:12.5px;fill:var(--soft)}
.plot .label{fill:var(--ink)}
.plot .grid{stroke:var(--line)}
.plot .axis{stroke:var(--soft)}
.plot .chance,.whisker .chance{fill:none;stroke:var(--plain);stroke-width:1.5;stroke-dasharray:4 4}
.plot .curve{fill:none;stroke:var(--accent);stroke-width:2.5;stroke-linejoin:round}
.plot .under{fill:var(--accent);opacity:.08}
.plot .point{fill:var(--card);stroke:var(--accent);stroke-width:2.5}
.plot .normal{fill:var(--plain);fill-opacity:.55;stroke:var(--plain)}
.plot .abnormal{fill:var(--accent);fill-opacity:.3;stroke:var(--accent);stroke-width:1.5}
.plot .unknown{fill:none;stroke:var(--ink);stroke-width:1.5}
.plot .threshold{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:6 4}
.whisker{display:block;width:20.8rem;height:1.2rem}
.whisker .range{stroke:var(--accent);stroke-width:2}
.whisker .dot{fill:var(--accent)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9375rem}
caption{text-align:left;color:var(--soft);font-size:.875rem;padding-bottom:.5rem}
th,td{text-align:left;padding:.55rem 1.25rem .55rem 0;border-bottom:1px solid var(--line);vertical-align:baseline}
thead th{color:var(--soft);font-weight:500;font-size:.875rem}
tbody th{font-weight:500}
.numbers td,.baselines td{white-space:nowrap}
.numbers td:last-child{color:var(--soft);white-space:normal;min-width:11rem}
.provenance td{overflow-wrap:anywhere;font:.8125rem/1.6 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.scale{display:flex;flex-wrap:wrap;align-items:center;gap:.6rem;color:var(--soft);font-size:.875rem}
.bar{width:11rem;height:.7rem;border-radius:4px}
.gallery{list-style:none;margin:1.25rem 0 0;padding:0;display:grid;gap:1rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr))}
.gallery li{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.6rem;break-inside:avoid}
.panes{display:grid;grid-template-columns:repeat(3,1fr);gap:.35rem}
.panes img{display:block;width:100%;aspect-ratio:1;object-fit:contain;background:#0b0d0f;border-radius:5px}
.gallery figcaption{display:grid;grid-template-columns:1fr auto;gap:0 1rem;padding:.6rem .25rem .1rem;font-size:.875rem}
.wrong .outcome{color:var(--accent);font-weight:650}
.path{grid-column:1/-1;color:var(--soft);font-size:.8125rem;overflow-wrap:anywhere}
footer{border-top:1px solid var(--line);padding-top:1rem;padding-bottom:3rem}
@media (max-width:40rem){.figures{grid-template-columns:1fr}section{margin:2.5rem 0}header{padding-top:2rem}
header,main,footer{padding-left:1rem;padding-right:1rem}.plots figure{padding:.75rem .5rem}}
@media print{:root{--paper:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#ccc;--plain:#999;--accent:#0b6b7d}
body{font-size:10.5pt}header{padding-top:0}section{margin:1.5rem 0}.figures div,.plots figure,tr{break-inside:avoid}
h2{break-after:avoid}.gallery{grid-template-columns:1fr 1fr}.bar,.panes img{print-color-adjust:exact}}
"""
