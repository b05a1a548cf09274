"""How the pages look on a screen, a phone and paper, and the script that sorts tables and tells values under the pointer.

The colours of lines are those of Okabe and Ito (2008, "Color Universal Design"), which people with any kind of colour vision
tell apart; each line has a dash pattern of its own too. In the dark they are lighter.
"""

CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --soft: #666; --rule: #ddd; --grid: #e6e6e6; --faint: #b4bcc0;
  --panel: #f3f7f9; --stripe: #fafafa; --head: #eef3f5; --strong: #14566d; --accent: #1f6f8b; --warn: #fdf1e0;
  --warn-edge: #e0a030; --bad: #fbe9eb; --bad-ink: #8c1f30; --code: #f2f2f2; --pick: #cc0066;
  --c1: #0072b2; --c2: #d55e00; --c3: #009e73; --c4: #cc79a7; --c5: #56b4e9; --c6: #e69f00; --c7: #a29a00; --c8: #666; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #14181b; --ink: #e4e6e7; --soft: #a3abb0; --rule: #3a4247; --grid: #2b3236; --faint: #59646b;
    --panel: #1d2529; --stripe: #191e22; --head: #232c31; --strong: #8fcbe0; --accent: #4f9fbd; --warn: #3a2e18;
    --bad: #43222a; --bad-ink: #ffb3c0; --code: #262d31; --pick: #ff6fae;
    --c1: #4da6e0; --c2: #f08a45; --c3: #2fc79b; --c4: #e3a3c7; --c5: #8fd0f7; --c6: #f5bb42; --c7: #f0e442; --c8: #aaa; }
}
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans", sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1280px; margin: 0 auto; padding: 1rem 1.5rem 4rem; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; padding-top: .5rem; border-top: 2px solid var(--accent); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .4rem; }
p, li { max-width: 62rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; align-items: baseline; }
a { color: var(--strong); }
code, pre { background: var(--code); padding: 0 .25em; overflow-wrap: anywhere; }
pre { padding: .6rem .8rem; overflow: auto; font-size: 12.5px; line-height: 1.45; }
pre.copy { user-select: all; max-height: 24rem; }
select { font: inherit; max-width: 14rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; list-style: none; padding: 0; }
.tiles li { background: var(--panel); padding: .6rem .9rem; min-width: 9rem; max-width: 14rem; flex: 1; }
.tiles b { display: block; font-size: 1.35rem; line-height: 1.25; color: var(--strong); }
.warning { background: var(--warn); border-left: 4px solid var(--warn-edge); padding: .5rem .8rem; }
.note { color: var(--soft); font-size: 13px; }
figure { margin: 1.5rem 0 2.2rem; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; }
figcaption { max-width: 62rem; margin-bottom: .6rem; }
.wide { overflow: auto; max-height: 38rem; border: 1px solid var(--rule); width: fit-content; max-width: 100%; }
table { border-collapse: collapse; font-size: 13px; }
th { position: sticky; top: 0; background: var(--head); vertical-align: bottom; text-align: left; padding: 0; z-index: 1; }
th.number { text-align: right; }
th span { display: block; padding: .35rem .6rem; cursor: pointer; }
th[aria-sort=ascending] span::after { content: " \\25B2"; }
th[aria-sort=descending] span::after { content: " \\25BC"; }
td { padding: .15rem .6rem; border-top: 1px solid var(--rule); overflow-wrap: break-word; max-width: 40rem; }
td.long { min-width: 17rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tbody tr:nth-child(even) { background: var(--stripe); }
details { margin: .3rem 0; }
details details { margin-left: 1.2rem; }
details.step { border: 1px solid var(--rule); padding: .4rem .8rem; }
summary { cursor: pointer; }
.sample { margin: .5rem 0 .5rem 1.2rem; border-left: 3px solid var(--rule); padding-left: .7rem; }
.place { font-size: 12px; color: var(--soft); overflow-wrap: anywhere; }
.reason { background: var(--bad); color: var(--bad-ink); padding: 0 .4em; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: auto 1fr; gap: 0 .7rem; }
.mark { font-size: 12px; color: var(--soft); }
.hidden { font: 11px monospace; color: #b01030; border: 1px solid #d1495b; padding: 0 1px; margin: 0 1px; }
.picked > td, .bar.picked { background: var(--warn); }

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); gap: 0 2rem; }
.charts figure { margin-bottom: 1rem; min-width: 0; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: 13px; margin: 0 0 .3rem; }
.legend > span { min-width: 0; overflow-wrap: anywhere; }
.legend svg { width: 30px; height: 11px; margin-right: .35rem; vertical-align: -1px; }
.legend .swatch { display: inline-block; width: 13px; height: 13px; margin-right: .35rem; vertical-align: -2px; }
.y-name { font-size: 12.5px; color: var(--soft); margin-bottom: .3rem; }
.x-name { font-size: 12.5px; color: var(--soft); text-align: right; padding-top: 1.25rem; }
.area { position: relative; height: 20rem; margin: .4rem .6rem 0 3.4rem; touch-action: pan-y; }
.low .area { height: 12rem; }
.area > svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.area path, .legend path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.tick { position: absolute; font-size: 12px; color: var(--soft); white-space: nowrap; font-variant-numeric: tabular-nums; }
.tick.y { right: calc(100% + .45rem); transform: translateY(-50%); }
.tick.x { top: calc(100% + .2rem); transform: translateX(-50%); overflow: hidden; text-overflow: ellipsis; }
.tick.x.end { transform: translateX(calc(-100% + .6rem)); }
.vertical { position: absolute; top: 0; bottom: 0; border-left: 1.5px dashed var(--c2); font-size: 12px; color: var(--ink); }
.marked .area { margin-top: 2.9rem; }
.vertical span { position: absolute; top: -1.3rem; left: .2rem; white-space: nowrap; }
.vertical.late span { left: auto; right: .3rem; }
.vertical.second { top: -1.2rem; }
.vertical.third { top: -2.4rem; }
.grid { stroke: var(--grid); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
.line { stroke-width: 2; }
.band { fill: var(--faint) !important; opacity: .35; stroke: none; }
.bg { stroke: var(--faint); stroke-width: 1; }
.s0 { stroke: var(--ink); stroke-width: 2.6; }
.s1 { stroke: var(--c1); }
.s2 { stroke: var(--c2); stroke-dasharray: 8 3; }
.s3 { stroke: var(--c3); stroke-dasharray: 2.5 2.5; }
.s4 { stroke: var(--c4); stroke-dasharray: 9 3 2 3; }
.s5 { stroke: var(--c5); stroke-dasharray: 12 4; }
.s6 { stroke: var(--c6); stroke-dasharray: 5 2 1.5 2 1.5 2; }
.s7 { stroke: var(--c7); stroke-dasharray: 1.5 3; }
.points { stroke-width: 9; stroke-dasharray: none; stroke-linecap: round; }
.points.square { stroke-linecap: square; stroke-width: 8; }
.points.dot { stroke-width: 5; }
.points.hole { stroke: var(--paper); stroke-width: 4; }
.bars-error { stroke-width: 1.5; stroke-dasharray: none; }
.area path.on { stroke: var(--pick); stroke-width: 2.6; }
.area path.picked { stroke: var(--pick); stroke-width: 2.6; stroke-dasharray: none; }
.cursor { position: absolute; top: 0; bottom: 0; border-left: 1px solid var(--soft); pointer-events: none; }
.tip { position: absolute; top: .3rem; pointer-events: none; background: var(--paper); border: 1px solid var(--soft);
  padding: .2rem .5rem; font-size: 12px; line-height: 1.35; z-index: 2; max-width: 17rem; white-space: pre-line;
  font-variant-numeric: tabular-nums; }
.bars { columns: 20rem auto; column-gap: 2rem; font-size: 12.5px; }
.bar { display: grid; grid-template-columns: 7.5rem minmax(3rem, 1fr) 8.2rem; gap: .5rem; align-items: center;
  break-inside: avoid; }
.bar > :first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bar > :last-child { font-variant-numeric: tabular-nums; color: var(--soft); white-space: nowrap; }
.track { position: relative; height: .8rem; background: var(--stripe); }
.track i, .track b { position: absolute; top: 0; bottom: 0; }
.track i { background: var(--c1); }
.track b { width: 2.5px; top: -1px; bottom: -1px; background: var(--c2); }
.track b.before { background: var(--soft); }
.stack { display: flex; height: 1.35rem; flex: 1; min-width: 0; }
.stack-row { display: flex; gap: .6rem; align-items: center; font-size: 12.5px; margin: 2px 0; }
.stack-row > :first-child { flex: 0 0 5.5rem; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.stack-row > :last-child { flex: 0 0 5rem; color: var(--soft); white-space: nowrap; }
.stack i { box-shadow: inset -1px 0 0 var(--paper); }
@media (max-width: 600px) {
  body { padding: .5rem .7rem 3rem; font-size: 14.5px; }
  .tiles { gap: .5rem; }
  .tiles li { min-width: 44%; padding: .4rem .6rem; }
  .tiles b { font-size: 1.15rem; }
  .area { height: 16rem; margin-left: 2.7rem; }
  .tick.x.odd { visibility: hidden; }
  .bar { grid-template-columns: 6rem minmax(3rem, 1fr) 7.6rem; }
  td { max-width: 16rem; }
  .pair { grid-template-columns: 1fr; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  .wide { overflow: visible; max-height: none; border: 0; width: auto; }
  table { font-size: 7pt; }
  th { position: static; }
  th span, td { padding: .1rem .3rem; }
  thead { display: table-header-group; }
  tr, figure, .sample, .bar { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  pre, pre.copy { max-height: none; white-space: pre-wrap; }
  .track i, .track b, .stack i, .swatch { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
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

// The values of a line are read back from its path, so that the page holds them once.
const HEIGHT = 100000;
const short = (value, digits) => value.toLocaleString("en", {maximumSignificantDigits: digits});
for (const chart of document.querySelectorAll(".chart")) follow(chart);
function follow(chart) {
  const area = chart.querySelector(".area"), {bottom, top, log} = chart.dataset;
  const named = JSON.parse(chart.dataset.labels || "null");
  const value = y => {
    const share = 1 - y / HEIGHT;
    return log ? bottom * (top / bottom) ** share : +bottom + share * (top - bottom);
  };
  let lines = null, cursor = null, tip = null, on = null;
  const read = () => {
    const shared = (chart.dataset.xs || "").split(" ");
    lines = [...area.querySelectorAll("path[data-name]")].map(path => {
      const own = path.dataset.xs ? path.dataset.xs.split(" ") : shared;
      const spread = path.dataset.spread ? path.dataset.spread.split(" ") : null;
      const points = [...path.getAttribute("d").matchAll(/(\\d+) (-?\\d+)/g)].map(([, x, y]) => [+x / 10000, +y]);
      const indices = path.dataset.at ? path.dataset.at.split(" ").map(Number) : points.map((_, i) => i);
      const isFaint = path.classList.contains("bg");
      return {path, name: path.dataset.name, points, x: indices.map(i => own[i]), spread, isFaint};
    });
    cursor = area.appendChild(document.createElement("div"));
    cursor.className = "cursor";
    tip = area.appendChild(document.createElement("div"));
    tip.className = "tip";
  };
  const nearest = (points, x) => {
    let low = 0, high = points.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (points[middle][0] < x) low = middle + 1; else high = middle;
    }
    return low && x - points[low - 1][0] < points[low][0] - x ? low - 1 : low;
  };
  const words = (line, i) =>
    `${line.name}: ${short(value(line.points[i][1]), 4)}` +
    (line.spread && line.spread[i] !== "nan" ? ` ± ${line.spread[i]}` : "");
  const move = event => {
    if (!lines) read();
    const box = area.getBoundingClientRect();
    const x = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const y = (event.clientY - box.top) / box.height * HEIGHT;
    const found = lines.filter(line => line.points.length).map(line => ({line, i: nearest(line.points, x)}));
    if (!found.length) return;
    const distance = ({line, i}) =>
      Math.hypot((line.points[i][0] - x) * box.width, (line.points[i][1] - y) / HEIGHT * box.height);
    const closest = found.reduce((a, b) => distance(b) < distance(a) ? b : a);
    const at = closest.line.points[closest.i][0];
    const chosen = found.filter(one => one === closest || !one.line.isFaint || one.line.path.classList.contains("picked"))
      .filter(one => Math.abs(one.line.points[one.i][0] - at) < 0.02)
      .sort((a, b) => a.line.points[a.i][1] - b.line.points[b.i][1]);
    if (on) on.classList.remove("on");
    on = closest.line.isFaint ? closest.line.path : null;
    if (on) on.classList.add("on");
    const where = closest.line.x[closest.i];
    const head = named ? `${chart.dataset.x}: ${named[+where]}` : `${chart.dataset.x}: ${short(+where, 9)}`;
    tip.textContent = [head, ...chosen.map(({line, i}) => words(line, i))].join("\\n");
    cursor.style.left = `${100 * at}%`;
    tip.style.left = at < 0.5 ? `calc(${100 * at}% + 10px)` : "auto";
    tip.style.right = at < 0.5 ? "auto" : `calc(${100 - 100 * at}% + 10px)`;
    cursor.hidden = tip.hidden = false;
  };
  area.addEventListener("pointermove", move);
  area.addEventListener("pointerdown", move);
  area.addEventListener("pointerleave", () => {
    if (tip) cursor.hidden = tip.hidden = true;
    if (on) on.classList.remove("on");
    on = null;
  });
}

const pick = document.getElementById("pick");
if (pick) pick.addEventListener("change", () => {
  for (const one of document.querySelectorAll("[data-key]")) {
    const isPicked = one.dataset.key === pick.value;
    one.classList.toggle("picked", isPicked);
    if (isPicked && one.tagName === "path") one.parentNode.append(one);
  }
});
"""
