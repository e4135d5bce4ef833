"""A self-contained HTML page: its style, its script and its pictures are in it, and it loads nothing.

Everything from files is escaped, and a policy in the head forbids the page to load or run anything else.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from fm_science.tables import markup

ALLOWED = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif"}

STYLE = """
:root { color-scheme: light dark; --ink: #22272e; --quiet: #5f6873; --line: #d8dde3; --paper: #fff; --stripe: #f5f7f9 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaee; --quiet: #9aa4af; --line: #39414b; --paper: #16191d; --stripe: #1e2228 }
  img { filter: brightness(.92) }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { font-size: 1.15rem; margin-top: 2.2rem }
p.about, figcaption, .note { color: var(--quiet) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } .wide { overflow-x: auto }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.number { text-align: right } tbody tr:nth-child(even) { background: var(--stripe) }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0; cursor: pointer }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { font-weight: 600 } svg, img { max-width: 100%; height: auto }
svg text { font: 10px system-ui, sans-serif; fill: var(--quiet) } .grid { stroke: var(--line) }
polyline { fill: none; stroke: var(--c); stroke-width: 1.6 } .key { font-size: .85rem }
.key span { margin-right: 1rem } .key span::before { content: "\\25AC  "; color: var(--c) }
.c0 { --c: #d1495b } .c1 { --c: #3a6fb0 } .c2 { --c: #c9a227 } .c3 { --c: #5b8c5a } .c4 { --c: #7d5ba6 }
.c5 { --c: #6f9fc8 }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], rows = [...body.rows];
  table.querySelectorAll("th button").forEach((button, column) => {
    let up = false;
    button.addEventListener("click", () => {
      up = !up;
      const read = row => row.cells[column].textContent;
      const number = text => text.trim() === "" ? NaN : Number(text);
      rows.sort((a, b) => {
        const x = number(read(a)), y = number(read(b));
        const order = isNaN(x) || isNaN(y) ? (isNaN(x) - isNaN(y)) * (up ? 1 : -1) || read(a).localeCompare(read(b))
          : x - y;
        return up ? order : -order;
      });
      body.append(...rows);
      table.querySelectorAll("th").forEach(head => head.removeAttribute("aria-sort"));
      button.parentElement.setAttribute("aria-sort", up ? "ascending" : "descending");
    });
  });
  const filter = table.parentElement.previousElementSibling;
  filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}
"""


def page(title: str, about: str, sections: Mapping[str, str], code: str = "") -> str:
    """The whole page, with ``code`` of its own; sections without content are left out."""
    body = "".join(f"<section><h2>{markup(name)}</h2>{inner}</section>" for name, inner in sections.items() if inner)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{markup(ALLOWED)}"><title>{markup(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{markup(title)}</h1><p class=about>{markup(about)}</p>{body}"
        f"<script>{SCRIPT}{code}</script></body></html>\n"
    )


def table(head: Sequence[object], rows: Sequence[Sequence[object]], sortable: bool = False) -> str:
    """A table of cells; floats to the right, with four digits. A sortable one sorts by a click on the header of a
    column, and has a field that filters its rows."""
    if not rows:
        return ""
    titles = [f"<button type=button>{markup(cell)}</button>" if sortable else markup(cell) for cell in head]
    top = "".join(f"<th scope=col>{cell}</th>" for cell in titles)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    kind = " class=sortable" if sortable else ""
    inner = f"<div class=wide><table{kind}><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"
    return f'<input type=search placeholder="filter" aria-label="filter">{inner}' if sortable else inner


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"<td class=number>{'&ndash;' if value != value else f'{value:.4g}'}</td>"
    return f"<td>{markup(value)}</td>"


def picture(file: Path) -> str:
    """A picture, embedded in the page."""
    data = base64.b64encode(file.read_bytes()).decode()
    name = markup(file.stem.replace("_", " "))
    image = f'<img alt="{name}" src="data:{KINDS[file.suffix]};base64,{data}">'
    return f"<figure><figcaption>{name}</figcaption>{image}</figure>"


def note(text: str) -> str:
    """A sentence in small type."""
    return f"<p class=note>{markup(text)}</p>"
