// Manual cleanup in three steps: a dry run, its plan to be reviewed, and then exactly that plan.

import { drawnInView, follow, progressBox } from "./activity.js";
import { api, get, launch, newKey } from "./api.js";
import { ask } from "./dialogs.js";
import { button, byId, h, isOperator, nothing, notice, smallTable, toast, word } from "./dom.js";
import { DATA_TYPES, age, bytes, capitalized, counted, isOver, moment, named, number, reason, runResult, runTitle, things, went } from "./format.js";
import { foundNow } from "./overview.js";
import { openRun, undo } from "./rundetails.js";
import { serverTable } from "./table.js";

let plan = null;
let applied = null; // the live run of this plan, when there was one
let drawn = new Set();
let asked = 0;

/** Show the view: the plan that is named, else the latest one. `again` leaves the one that is being reviewed. */
export async function showCleanup(planId, again = false) {
  drawnInView(drawn);
  const mine = ++asked;
  try {
    const { runs } = await get(api("runs"));
    const newest = latestPlan(runs);
    const id = planId || (again && plan?.run_id) || newest;
    const found = id ? await get(api(`plans/${encodeURIComponent(id)}`)) : null;
    if (mine !== asked) return;
    // This answer may be older than a run that was started meanwhile, so that of the same plan nothing is forgotten.
    const known = runs.find((run) => id && run.plan === id && !run.dry_run);
    if (known ? known.run_id !== applied?.run_id : id !== plan?.run_id) applied = known ?? null;
    if (!found || found.plan.run_id !== plan?.run_id) showPlan(found?.plan ?? null);
    else {
      plan = found.plan; // its list is the same for ever, whether it may be applied is not
      offer();
    }
    byId("plan-newer").replaceChildren(...(id !== newest && newest ? [h("a", { href: `#cleanup/${newest}` }, "There is a newer plan.")] : []));
  } catch (problem) {
    if (mine === asked) failed(problem);
  }
}

const latestPlan = (runs) => runs.find((run) => run.dry_run && run.kind !== "restore" && run.status === "done")?.run_id;

function failed(problem) {
  plan = null;
  byId("plan-newer").replaceChildren();
  byId("plan-made").textContent = problem.status === 404 ? "This plan is not there any more." : "";
  byId("plan").replaceChildren(problem.status === 404
    ? nothing("There is no such plan.", h("p", {}, "Plans are kept for a day. Make a new dry run."))
    : h("div", { class: "notice notice-bad", role: "alert" }, problem.message));
  offer();
}

function showPlan(found) {
  plan = found;
  if (!plan) {
    byId("plan-made").textContent = "There is no plan yet.";
    byId("plan").replaceChildren(nothing("Nothing to review yet.", h("p", {}, "A dry run makes a plan.")));
    offer();
    return;
  }
  byId("plan-made").replaceChildren("Made ", moment(plan.made_at), ", kept until it expires ", moment(plan.expires_at), ". ",
    h("button", { type: "button", class: "link-button", onclick: () => void openRun(plan.run_id) }, "Its dry run"));
  const items = h("div");
  byId("plan").replaceChildren(totals(), ...(plan.files ? [byType()] : []), ...guardrails(), items);
  showItems(items);
  offer();
}

function totals() {
  const oldest = Math.max(0, ...plan.types.map((type) => type.oldest_days));
  const pair = (term, value, plain = false) => h("div", {}, h("dt", {}, term), h("dd", { class: plain ? "plain" : "" }, value));
  return h("dl", { class: "totals" },
    pair(`${named(plan.files, called())} would go`, number(plan.files)), pair("would be deleted", bytes(plan.bytes)),
    plan.files ? pair("the oldest", age(oldest)) : null);
}

/** Return what the things of the plan are called. */
const called = () => things(plan.types.map((type) => type.data_type));

function byType() {
  return smallTable("What would go by data type", [["Data type", ""], [capitalized(called()), "num"], ["Size", "num"], ["Oldest", "num"]],
    plan.types.map((type) => [word(type.data_type), number(type.files), bytes(type.bytes), age(type.oldest_days)]));
}

const answered = (guardrail) => [guardrail.bypassed_by ?? []].flat().some((way) => /plan/.test(way));

function guardrails() {
  return (plan.guardrails ?? []).map((one) => notice(answered(one) ? "warn" : "bad",
    h("strong", {}, answered(one) ? "A guardrail would stop an unreviewed run. " : "A guardrail stops any run. "), one.message));
}

function showItems(place) {
  const seen = plan.run_id;
  serverTable(place, {
    caption: `${capitalized(called())} of the plan`,
    sort: "-age",
    filters: [
      { name: "verdict", label: "What is listed", kind: "segments", value: "delete", options: [["delete", "Goes"], ["keep", "Stays"]] },
      { name: "q", label: "Search paths", kind: "search" },
      { name: "data_type", label: "Data type", kind: "select", options: [["", "All data types"], ...DATA_TYPES.map((type) => [type, type])] },
    ],
    columns: fileColumns(),
    load: async (query) => {
      const found = await get(api(`plans/${encodeURIComponent(seen)}/items`), query);
      return { rows: found.items, matching: found.matching, matchingBytes: found.matching_bytes };
    },
    empty: () => nothing("Nothing would go.", h("p", {}, "Every file is within its retention, held, or kept for another reason.")),
  });
}

/** Return the columns of a list of files, the same in a plan and in the scan. `title(file)` may make the path a control. */
export function fileColumns(title = (file) => h("span", { class: "path" }, file.file_path)) {
  return [
    {
      title: "Path", sort: "path", kind: "col-path", cell: (file) => [title(file),
        h("span", { class: "sub" }, [file.status, file.pipeline_name].filter(Boolean).join(" · ")),
        h("span", { class: "sub narrow-only" }, `${file.data_type}: ${file.sentence}`)],
    },
    { title: "Type", kind: "medium-only", cell: (file) => word(file.data_type) },
    { title: "Age", sort: "age", kind: "num", cell: (file) => age(file.age_days) },
    { title: "Size", sort: "size", kind: "num", cell: (file) => bytes(file.file_size) },
    { title: "Reason", kind: "medium-only col-reason", cell: (file) => h("span", {}, reason(file.reason), h("span", { class: "sub" }, file.sentence)) },
  ];
}

/** Say on the third step what can be done now. */
function offer() {
  const apply = byId("apply");
  const usable = Boolean(plan?.applicable && plan.files && !applied);
  apply.disabled = !usable || !isOperator;
  apply.textContent = usable ? `Run this plan: ${counted(plan.files, called())}…` : "Run this plan…";
  const place = byId("live-run");
  if (applied) {
    if (!place.dataset.run || place.dataset.run !== applied.run_id) showLive(applied);
  } else {
    delete place.dataset.run;
    place.replaceChildren(...(plan && !plan.applicable ? [notice("warn", plan.why_not ?? "This plan cannot be applied any more.")] : []));
  }
}

function confirmation() {
  const stops = (plan.guardrails ?? []).filter((one) => !answered(one));
  return [
    h("p", {}, `Exactly the ${called()} of this plan are deleted, each backed up first. The run can be undone until its backups expire.`),
    byType(),
    ...(plan.guardrails ?? []).filter(answered).map((one) => notice("warn", h("strong", {}, "By running the plan you overrule: "), one.message)),
    ...stops.map((one) => notice("bad", h("strong", {}, "This will stop the run: "), one.message)),
  ];
}

async function applyPlan() {
  const key = newKey();
  const id = plan.run_id;
  const started = await ask({
    title: `Delete ${counted(plan.files, called())}, ${bytes(plan.bytes)}?`, body: confirmation(), go: `Delete ${counted(plan.files, called())}`, danger: true,
    action: () => launch(api(`plans/${encodeURIComponent(id)}/apply`), {}, key),
  });
  if (!started) return;
  if (plan?.run_id === id) {
    applied = { run_id: started.run_id };
    offer();
  } else { // meanwhile another plan has come, which this run is not of
    follow(started.run_id);
    void openRun(started.run_id);
  }
}

/** Draw a live run below the third step, from its start to its result. */
function showLive(run) {
  const { run_id: runId } = run;
  const place = byId("live-run");
  const box = progressBox();
  place.dataset.run = runId;
  place.replaceChildren(box.element);
  draw(runId);
  const show = (detail) => {
    if (place.dataset.run !== runId) return;
    if (!detail) place.replaceChildren(notice("bad", "What became of this run is not known: Dagster does not answer, or has forgotten it."));
    else if (isOver(detail.run)) place.replaceChildren(result(detail));
    else box.update(detail);
  };
  // The end of one that is over already has been told.
  if (run.status && isOver(run)) get(api(`runs/${encodeURIComponent(runId)}`)).then(show, () => show(null));
  else follow(runId, show);
}

function result(detail) {
  const { run, restorable, backups } = detail;
  const kind = { done: "good", refused: "warn" }[run.status] ?? "bad";
  const box = notice(kind, h("strong", {}, `${runTitle(run)}: ${run.status}. `), runResult(run, went(detail)), run.status === "failed" && run.message ? ` ${run.message}` : "",
    h("div", { class: "buttons" },
      restorable && isOperator ? button("Undo this run…", () => void undo(run, backups ?? []), "small-button") : null,
      button("Details", () => void openRun(run.run_id), "small-button")));
  box.setAttribute("role", "status");
  return box;
}

function draw(runId) {
  drawn.add(runId);
  if (!byId("view-cleanup").hidden) drawnInView(drawn);
}

async function dryRun() {
  const control = byId("dry-run");
  control.disabled = true;
  const place = byId("dry-run-progress");
  try {
    const started = await launch(api("run"), { cleanup_type: "manual", dry_run: true });
    const box = progressBox();
    place.replaceChildren(box.element);
    draw(started.run_id);
    follow(started.run_id, (detail) => {
      if (detail && !isOver(detail.run)) {
        box.update(detail);
        return;
      }
      control.disabled = false;
      if (!detail) {
        place.replaceChildren(notice("bad", "What became of the dry run is not known: Dagster does not answer, or has forgotten it."));
        return;
      }
      if (detail.run.status === "done") {
        place.replaceChildren();
        if (byId("view-cleanup").hidden) return; // whoever has gone elsewhere stays there, and finds it on coming back
        plan = null; // the one that is still shown can be run no more; the new one follows
        offer();
        location.hash = `cleanup/${started.run_id}`;
      } else place.replaceChildren(notice("bad", `The dry run ended ${detail.run.status}. `, detail.run.message));
    });
  } catch (problem) {
    control.disabled = false;
    place.replaceChildren(h("div", { class: "notice notice-bad", role: "alert" }, problem.message));
  }
}

async function emergency(overview) {
  const skip = h("input", { type: "checkbox", id: "skip-backup" });
  const key = newKey();
  const started = await ask({
    title: "Emergency run?", danger: true, typed: "emergency", go: "Delete now",
    body: [
      h("p", {}, `It scans anew and deletes whatever is expired then. ${foundNow(overview)}`),
      h("p", {}, "The guardrails on number, bytes, share and growth are bypassed. Retention and holds are not."),
      h("div", { class: "check" }, skip, h("label", { for: "skip-backup" }, "Without backups, because the disk is too full for them. ", h("strong", {}, "This cannot be undone."))),
    ],
    action: () => launch(api("run"), { cleanup_type: "emergency", dry_run: false, skip_backup: skip.checked }, key),
  });
  if (!started) return;
  toast("The emergency run has been started.");
  follow(started.run_id);
  void openRun(started.run_id);
}

/** `overview()` returns the latest figures, or null: an emergency does not wait for newer ones. */
export function startCleanup(overview) {
  byId("dry-run").addEventListener("click", () => void dryRun());
  byId("apply").addEventListener("click", () => void applyPlan());
  byId("emergency").addEventListener("click", () => void emergency(overview()));
}

