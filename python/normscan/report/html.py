"""What every page is made of: the document with its style, sections, tables. No network, no script, no second file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from normscan.report.words import NONE, NOTICE


def document(title: str, kind: str, sections: Iterable[str], style: str = "") -> str:
    """A whole page; `style` is CSS beside what all pages have."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n<header>'
        f'<p class="kind">{escape(kind)}</p><h1>{escape(title)}</h1><p class="notice">{NOTICE}</p></header>\n'
        f"<main>\n{chr(10).join(sections)}\n</main>\n<footer><p>{NOTICE}</p></footer>\n"
        "</body>\n</html>\n"
    )


def section(title: str, body: str) -> str:
    """A part of the page under its heading."""
    name = title.lower()
    return f'<section class="{name}" aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{body}</section>'


def table(caption: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
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


def figures(shown: Iterable[tuple[str, str, str]]) -> str:
    """A few large values side by side: (what it is, the value, a note), all plain text."""
    cells = "".join(
        f'<div><dt>{escape(name)}</dt><dd class="big">{escape(value)}</dd><dd>{escape(note)}</dd></div>'
        for name, value, note in shown
    )
    return f'<dl class="figures">{cells}</dl>'


def origin(given: Mapping[str, Any]) -> str:
    """The section that says where a page's numbers come from: any nesting of names and values."""
    body = [[escape(name), escape(text)] for name, text in _flat(given)]
    return section("Provenance", table("Where these numbers come from", ("Field", "Value"), body)) if body else ""


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings -> ("outer.inner", text)."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, ", ".join(NONE if part is None else str(part) for part in value)
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
.panes.four{grid-template-columns:repeat(2,1fr)}
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
