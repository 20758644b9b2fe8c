// What was done: charts over time, and every run with its details.

import { api, get, looks } from "./api.js";
import { resizeCharts, showCharts } from "./charts.js";
import { byId, h, nothing } from "./dom.js";
import { bytes, capitalized, isOver, moment, number, outcome, runTitle, taken } from "./format.js";
import { openRun } from "./rundetails.js";
import { serverTable } from "./table.js";

const look = looks();
let drawn = null; // the days that are drawn, and of how many
let table = null;
const counts = h("span", {}, "Files"); // the heading of a column that counts Dagster's runs, too, where these are purged

async function charts() {
  const isLatest = look();
  const place = byId("charts");
  const span = Number(byId("chart-days").value);
  if (!drawn) place.replaceChildren(h("div", { class: "empty" }, "Loading…"));
  try {
    const { days } = await get(api("charts"), { days: span });
    if (!isLatest()) return;
    drawn = [days, span];
    showCharts(place, ...drawn);
  } catch (problem) {
    if (!isLatest()) return;
    drawn = null;
    place.replaceChildren(h("div", { class: "empty", role: "alert" }, h("strong", {}, "The charts could not be loaded."), problem.message));
  }
}

function runs() {
  return serverTable(byId("runs"), {
    caption: "Runs",
    columns: [
      {
        title: "Run", kind: "nowrap", cell: (run) => [
          h("button", { type: "button", class: "link-button", onclick: () => void openRun(run.run_id) }, runTitle(run)),
          h("span", { class: "sub narrow-only" }, run.executed_by)],
      },
      { title: "When", kind: "nowrap", cell: (run) => moment(run.started_at, "queued") },
      { title: "Outcome", kind: "", cell: (run) => [outcome(run.status), run.message && isOver(run) && run.status !== "done" ? h("span", { class: "sub medium-only" }, run.message) : null] },
      { title: counts, kind: "num", cell: (run) => [number(run.dry_run ? run.expired_files : run.deleted_files), run.dry_run && run.kind !== "restore" ? h("span", { class: "sub" }, "would go") : null] },
      { title: "Size", kind: "num medium-only", cell: (run) => bytes(run.dry_run ? run.expired_bytes : run.freed_bytes) },
      { title: "By", kind: "medium-only nowrap", cell: (run) => run.executed_by },
    ],
    load: async (query) => {
      const found = await get(api("runs"), { page: query.page });
      return { rows: found.runs, matching: found.matching, perPage: found.per_page ?? 50 };
    },
    empty: () => nothing("There was no run yet.", h("p", {}, "A dry run is the first step; it changes nothing.")),
  });
}

async function nameCounts() {
  try {
    const { stats } = await get(api("stats"));
    counts.textContent = capitalized(taken(stats));
  } catch {
    // The table beside it says what is wrong.
  }
}

export function showHistory() {
  if (table) void table.reload();
  else table = runs();
  return Promise.all([charts(), nameCounts()]);
}

export function startHistory() {
  byId("chart-days").addEventListener("change", () => void charts());
  document.addEventListener("cleanup:theme", () => {
    if (drawn && !byId("view-history").hidden) showCharts(byId("charts"), ...drawn);
  });
  new ResizeObserver(resizeCharts).observe(byId("charts"));
}
