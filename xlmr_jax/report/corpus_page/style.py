"""How the page looks on a screen and on paper, and the script that sorts its tables."""

CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans", sans-serif; color: #222; background: #fff; max-width: 1280px;
  margin: 0 auto; padding: 1rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; margin: .5rem 0; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; padding-top: .5rem; border-top: 2px solid #1f6f8b; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .4rem; }
p, li { max-width: 62rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; }
a { color: #14566d; }
code { background: #f2f2f2; padding: 0 .25em; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; list-style: none; padding: 0; }
.tiles li { background: #f3f7f9; padding: .6rem .9rem; min-width: 9rem; max-width: 14rem; flex: 1; }
.tiles b { display: block; font-size: 1.35rem; color: #14566d; }
.warning { background: #fdf1e0; border-left: 4px solid #e0a030; padding: .5rem .8rem; }
figure { margin: 1.5rem 0 2.2rem; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { max-width: 62rem; margin-bottom: .6rem; }
.wide { overflow: auto; max-height: 38rem; border: 1px solid #ddd; width: fit-content; max-width: 100%; }
table { border-collapse: collapse; font-size: 13px; }
th { position: sticky; top: 0; background: #eef3f5; vertical-align: bottom; text-align: left; padding: 0; }
th.number { text-align: right; }
th span { display: block; padding: .35rem .6rem; cursor: pointer; }
th[aria-sort=ascending] span::after { content: " \\25B2"; }
th[aria-sort=descending] span::after { content: " \\25BC"; }
td { padding: .15rem .6rem; border-top: 1px solid #eee; overflow-wrap: break-word; max-width: 40rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tbody tr:nth-child(even) { background: #fafafa; }
details { margin: .3rem 0; }
details details { margin-left: 1.2rem; }
details.step { border: 1px solid #ddd; padding: .4rem .8rem; }
summary { cursor: pointer; }
.sample { margin: .5rem 0 .5rem 1.2rem; border-left: 3px solid #d5dfe3; padding-left: .7rem; }
.place { font-size: 12px; color: #666; overflow-wrap: anywhere; }
.reason { background: #fbe9eb; color: #8c1f30; padding: 0 .4em; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: auto 1fr; gap: 0 .7rem; }
.mark { font-size: 12px; color: #666; }
.hidden { font: 11px monospace; color: #b01030; border: 1px solid #d1495b; padding: 0 1px; margin: 0 1px; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  .wide { overflow: visible; max-height: none; border: 0; }
  table { font-size: 7pt; }
  th { position: static; }
  th span, td { padding: .1rem .3rem; }
  thead { display: table-header-group; }
  tr, figure, .sample { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""

SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const label = heading.firstElementChild;  // not a <button>, which Chromium does not repeat on the next printed page
    label.tabIndex = 0;
    label.setAttribute("role", "button");
    label.addEventListener("click", () => sort(table, headings, column));
    label.addEventListener("keydown", event => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(table, headings, column);
    });
  });
}
function sort(table, headings, column) {
  const heading = headings[column], body = table.tBodies[0], rows = [...body.rows];
  const isNumber = heading.className === "number";
  const before = heading.getAttribute("aria-sort");
  const up = before ? before === "descending" : !isNumber;
  for (const other of headings) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => isNumber ? row.cells[column].dataset.value || "" : row.cells[column].textContent;
  rows.sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    return (up ? 1 : -1) * (isNumber ? x - y : x.localeCompare(y, "en"));
  });
  body.append(...rows);
}
"""
