// What runs at the moment: found by looking at the runs, followed until its end, and drawn wherever it is shown.

import { api, get } from "./api.js";
import { announce, byId, changed, h, toast } from "./dom.js";
import { bytes, counted, duration, isOver, number, runResult, runTitle, went } from "./format.js";

const LOOK_MS = 10_000;
const FOLLOW_MS = 1_000;
const INDEXED_MS = 6_000; // a finished scan is shown once the server has indexed it
const STEPS = { scan: "Scanning", "back up": "Backing up", delete: "Deleting", restore: "Restoring" };

const followed = new Map(); // run id -> { listeners, detail }
const ended = new Set(); // the runs whose end has been told
let inView = new Set(); // runs that the current view draws itself

/** Follow a run to its end. `listener(detail)` hears of every change, and null when nobody knows the run any more. */
export function follow(runId, listener = () => {}) {
  const known = followed.get(runId);
  if (known) {
    known.listeners.add(listener);
    if (known.detail) listener(known.detail);
    return;
  }
  followed.set(runId, { listeners: new Set([listener]), detail: null });
  void poll(runId);
}

/** Say which runs the view that is shown draws itself, so that the strip below the header leaves them out. */
export function drawnInView(runIds) {
  inView = new Set(runIds);
  strip();
}

async function poll(runId) {
  const entry = followed.get(runId);
  let said = "";
  let failures = 0;
  for (;;) {
    try {
      const detail = await get(api(`runs/${encodeURIComponent(runId)}`));
      failures = 0;
      entry.detail = detail;
      said = speak(detail, said);
      for (const listener of entry.listeners) listener(detail);
      strip();
      if (isOver(detail.run)) break;
    } catch (problem) {
      failures += 1; // a server that restarts comes back
      if (failures > (problem.status === 404 ? 15 : 120)) break;
    }
    await new Promise((resolve) => { setTimeout(resolve, document.hidden ? 5 * FOLLOW_MS : FOLLOW_MS); });
  }
  followed.delete(runId);
  strip();
  if (entry.detail && isOver(entry.detail.run)) {
    ended.add(runId);
    toast(`${runTitle(entry.detail.run)}: ${entry.detail.run.status}. ${runResult(entry.detail.run, went(entry.detail))}`);
    changed();
    setTimeout(changed, INDEXED_MS);
  } else for (const listener of entry.listeners) listener(null);
}

/** Tell screen readers of a new step and of each quarter of it, not of every second. */
function speak({ run, progress }, said) {
  if (isOver(run) || !progress) return said;
  const quarter = progress.of ? Math.floor((4 * progress.done) / progress.of) : 0;
  const now = `${progress.step} ${progress.target} ${quarter}`;
  if (now !== said) announce(`${step(progress)}, ${how(progress)}`);
  return now;
}

const how = ({ done, of, things: what }) => (of ? `${number(done)} of ${counted(of, what)}` : counted(done, what));

function step(progress) {
  const doing = STEPS[progress.step] ?? progress.step;
  return progress.target ? `${doing} in ${progress.target}` : doing;
}

/** Return `{ element, update }`: a bar with rate and remaining time, changed in place. */
export function progressBox(named = false) {
  const left = h("span");
  const right = h("span", { class: "muted" });
  const bar = h("progress", { max: 1, "aria-label": "Progress of the run" });
  const element = h("div", { class: "progress" }, h("div", { class: "progress-line" }, left, right), bar);
  function update({ run, progress }) {
    const name = named ? `${runTitle(run)} · ` : "";
    if (!progress) {
      left.textContent = name + (run.status === "queued" ? "Waiting for Dagster to start the run…" : "At work…");
      right.textContent = "";
      bar.removeAttribute("value");
      return;
    }
    left.textContent = name + step(progress);
    right.textContent = [
      how(progress),
      progress.rate ? `${number(Math.round(progress.rate))} a second` : "",
      progress.remaining_s != null ? `about ${duration(progress.remaining_s)} left` : "",
    ].filter(Boolean).join(" · ");
    if (progress.of) bar.value = Math.min(1, progress.done / progress.of);
    else bar.removeAttribute("value");
  }
  return { element, update };
}

let box;

function strip() {
  const place = byId("activity");
  const entry = [...followed].find(([id, { detail }]) => detail && !isOver(detail.run) && !inView.has(id));
  place.hidden = !entry;
  if (!entry) return;
  if (!box) {
    box = progressBox(true);
    place.append(h("div", {}, box.element));
  }
  box.update(entry[1].detail);
}

async function look() {
  if (document.hidden) return;
  try {
    const { runs } = await get(api("runs"));
    for (const run of runs) if (!isOver(run) && !ended.has(run.run_id)) follow(run.run_id); // the list may be older
  } catch {
    // The overview says what is wrong; the next look finds out when it is mended.
  }
}

/** Look for runs that others start: the schedule, a command line, another browser. */
export function startActivity() {
  void look();
  setInterval(() => void look(), LOOK_MS);
}

/** Return what a run took, for a heading: `412 files, 3.1 GiB`. */
export const amount = (count, size, what) => `${counted(count, what)}, ${bytes(size)}`;
