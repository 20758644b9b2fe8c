// Files and bytes deleted per day, stacked by data type. Drawn by uPlot; the same figures stand in a table below.

import { h, smallTable } from "./dom.js";
import { DATA_TYPES, bytes, capitalized, day, number, things } from "./format.js";
import { colour } from "./theme.js";

const DAY_S = 86_400;
const HEIGHT = 170;
let plots = [];

/** Fill `place` with both charts of the last `span` days. */
export function showCharts(place, days, span) {
  for (const plot of plots) plot.destroy();
  plots = [];
  if (!days.length) {
    place.replaceChildren(h("div", { class: "empty" }, h("strong", {}, "Nothing was deleted in this time."), h("p", {}, "Live runs draw their figures here.")));
    return;
  }
  const types = DATA_TYPES.concat(other(days)).filter((type) => days.some((one) => one.types?.[type]?.files));
  const dates = calendar(days, span);
  const charts = [["files", `${capitalized(things(types))} deleted per day`, number], ["bytes", "Bytes deleted per day", bytes]]
    .map(([unit, title, format]) => ({ unit, title, format, what: things(types), plot: h("div", { class: "chart-plot" }), hover: h("p", { class: "chart-hover muted small" }) }));
  place.replaceChildren(
    h("div", { class: "chart-pair" }, charts.map((chart) => h("div", { class: "chart" }, h("h4", {}, chart.title), chart.hover,
      h("div", { role: "img", "aria-label": describe(chart, days) }, chart.plot)))),
    h("ul", { class: "legend" }, types.map((type) => h("li", {}, h("span", { class: `swatch swatch-${series(type)}`, "aria-hidden": "true" }), type))),
    h("details", { class: "chart-table" }, h("summary", {}, "The same as a table"), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Deleted per day" },
      smallTable("Deleted per day", [["Day", ""], [capitalized(things(types)), "num"], ["Bytes", "num"]], [...days].reverse().map((one) => [one.date, number(one.files), bytes(one.bytes)])))));
  for (const chart of charts) plots.push(draw(chart, dates, types));
}

const other = (days) => [...new Set(days.flatMap((one) => Object.keys(one.types ?? {})))].filter((type) => !DATA_TYPES.includes(type)).sort();

const series = (type) => (Math.max(0, DATA_TYPES.indexOf(type)) % 7) + 1;

/** Return every day of the span, those without a cleanup too. */
function calendar(days, span) {
  const known = new Map(days.map((one) => [one.date, one]));
  const today = Math.floor(Date.now() / 1000 / DAY_S) * DAY_S;
  return Array.from({ length: span }, (_, index) => {
    const seconds = today - (span - 1 - index) * DAY_S;
    const date = new Date(seconds * 1000).toISOString().slice(0, 10);
    return { seconds, ...(known.get(date) ?? { date, files: 0, bytes: 0, types: {} }) };
  });
}

function describe(chart, days) {
  const sum = days.reduce((total, one) => total + one[chart.unit], 0);
  const most = days.reduce((best, one) => (one[chart.unit] > best[chart.unit] ? one : best));
  return `${chart.title}: ${chart.format(sum)} in all, most on ${most.date} with ${chart.format(most[chart.unit])}. The figures are in the table below.`;
}

function draw(chart, dates, types) {
  // A stack: each series is the sum of the types up to it, and the highest is drawn first.
  const sums = dates.map(() => 0);
  const layers = types.map((type) => dates.map((date, index) => (sums[index] += date.types?.[type]?.[chart.unit] ?? 0))).reverse();
  const colours = types.map((type) => colour(`--series-${series(type)}`)).reverse();
  const bars = uPlot.paths.bars({ size: [0.7, 22, 1], radius: types.length === 1 ? 0.15 : 0 });
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const say = (index) => {
    const date = dates[index];
    chart.hover.textContent = date
      ? `${day(new Date(date.seconds * 1000))}: ${chart.format(date[chart.unit])}${unitOf(chart)}`
      : `${chart.format(dates.reduce((sum, one) => sum + one[chart.unit], 0))}${unitOf(chart)} in ${dates.length} days`;
  };
  say(undefined);
  const plot = new uPlot({
    width: Math.max(200, chart.plot.clientWidth), height: HEIGHT, legend: { show: false }, padding: [8, 0, 0, 0],
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    scales: { x: { time: true, range: [dates[0].seconds - DAY_S / 2, dates.at(-1).seconds + DAY_S / 2] }, y: { range: (_, __, high) => [0, Math.max(high * 1.05, 1)] } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    axes: [
      { ...axis, grid: { show: false }, size: 30, space: 60, values: (_, ticks) => ticks.map((tick) => day(new Date(tick * 1000))) },
      { ...axis, size: chart.unit === "bytes" ? 72 : 52, space: 36, ...scaleOf(chart) },
    ],
    series: [{}, ...colours.map((fill) => ({ fill, width: 0, paths: bars, points: { show: false } }))],
    hooks: { setCursor: [(self) => say(self.cursor.idx ?? undefined)] },
  }, [dates.map((date) => date.seconds), ...layers], chart.plot);
  return plot;
}

const unitOf = (chart) => (chart.unit === "files" ? ` ${chart.what}` : "");

/** Return how an axis is labelled: whole files, and bytes at round binary sizes. */
function scaleOf(chart) {
  const values = (_, ticks) => ticks.map(chart.format);
  if (chart.unit === "files") return { values, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 1e7] };
  const incrs = [];
  for (let power = 0; power < 5; power += 1) for (const step of [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]) incrs.push(step * 1024 ** power);
  return { values: (_, ticks) => ticks.map((tick) => chart.format(tick).replace(".0 ", " ")), incrs };
}

/** Fit the charts to a new width. */
export function resizeCharts() {
  for (const plot of plots) {
    const width = plot.root.parentElement?.clientWidth;
    if (width) plot.setSize({ width, height: HEIGHT });
  }
}
