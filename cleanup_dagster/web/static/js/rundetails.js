// One run in the drawer: how it went, what it did where, and the way back.

import { amount, follow, progressBox } from "./activity.js";
import { api, get, launch, newKey } from "./api.js";
import { ask, closeDrawer, openDrawer } from "./dialogs.js";
import { button, facts, h, notice, operatorOnly, outside, path, smallTable, toast, word } from "./dom.js";
import { bytes, capitalized, counted, duration, exact, isOver, moment, number, outcome, runResult, runTitle, thingsAt, went } from "./format.js";
import { serverTable } from "./table.js";

const SELECTED_AT_MOST = 500;

/** Open the drawer on a run. */
export function openRun(runId) {
  return openDrawer("Run", async (name) => {
    const detail = await get(api(`runs/${encodeURIComponent(runId)}`));
    name(runTitle(detail.run));
    return details(detail);
  });
}

function details(detail) {
  const { run } = detail;
  const content = [];
  if (!isOver(run)) {
    const box = progressBox();
    box.update(detail);
    content.push(box.element);
    follow(run.run_id, (now) => {
      if (!now) return;
      box.update(now);
      if (isOver(now.run) && box.element.isConnected) void openRun(run.run_id);
    });
  } else if (run.message) content.push(notice(run.status === "done" ? "good" : run.status === "refused" ? "warn" : "bad", run.message));
  content.push(facts(summary(detail)), buttons(detail));
  if (detail.targets?.length) content.push(h("h3", { class: "minor" }, "Targets"), targets(detail.targets, run));
  if (detail.audit?.length) content.push(h("h3", { class: "minor" }, "Audit"), audit(detail.audit));
  if (detail.backups?.length) content.push(h("h3", { class: "minor" }, "Backups"), backups(detail.backups));
  return content;
}

function summary(detail) {
  const { run } = detail;
  const ended = run.finished_at && run.started_at;
  return [
    ["Outcome", outcome(run.status)],
    ["Result", isOver(run) && run.status !== "refused" && !(run.message && run.status !== "done") ? runResult(run, went(detail)) : ""],
    ["Started", run.started_at ? h("span", {}, moment(run.started_at), h("span", { class: "muted" }, ` · ${exact(run.started_at)}`)) : "not yet"],
    ["Took", ended ? duration((new Date(run.finished_at) - new Date(run.started_at)) / 1000) : ""],
    ["By", run.executed_by],
    ["Host", run.host],
    ["Plan of", run.plan ? h("a", { href: `#cleanup/${run.plan}`, onclick: closeDrawer }, h("code", {}, run.plan)) : ""],
    ["Run id", h("code", {}, run.run_id)],
  ];
}

function buttons({ run, restorable, backups: sets }) {
  const shown = [outside("Open in Dagster", run.url)];
  if (run.dry_run && run.kind !== "restore" && run.status === "done") {
    shown.unshift(h("a", { class: "button", href: `#cleanup/${run.run_id}`, onclick: closeDrawer }, "Show the plan"));
  }
  if (restorable) {
    const kept = sets ?? [];
    shown.unshift(
      operatorOnly(button("Undo this run…", () => void undo(run, kept), "primary")),
      button(`Choose ${thingsAt(kept)}…`, () => void chooseFiles(run.run_id, kept)));
  }
  return h("div", { class: "buttons" }, shown);
}

function targets(rows, run) {
  const went = run.dry_run ? [] : [["Deleted", "num"], ["Freed", "num"]];
  return smallTable("Targets of the run", [["Target", ""], ["Scanned", "num"], ["Expired", "num"], ...went],
    rows.map((one) => [
      h("span", {}, one.target, one.failed_files ? h("span", { class: "sub bad" }, `${counted(one.failed_files, thingsAt([one]))} failed`) : null, one.message ? h("span", { class: "sub" }, one.message) : null),
      number(one.scanned_files), number(one.expired_files), ...(run.dry_run ? [] : [number(one.deleted_files), bytes(one.freed_bytes)]),
    ]));
}

function audit(rows) {
  return smallTable("Audit of the run", [["Data type", ""], ["Deleted", "num"], ["Freed", "num"], ["Skipped", "num"], ["Outcome", ""]],
    rows.map((row) => [
      h("span", {}, word(row.data_type), row.message ? h("span", { class: "sub" }, row.message) : null),
      number(row.records_deleted), bytes(row.space_freed), number(row.records_skipped), outcome(row.outcome),
    ]));
}

function backups(sets) {
  return smallTable("Backups of the run", [["Target", ""], [capitalized(thingsAt(sets)), "num"], ["Size", "num"], ["Expire", ""]],
    sets.map((set) => [h("span", {}, set.target, h("span", { class: "sub" }, path(set.directory))), number(set.files), bytes(set.bytes), moment(set.expires_at)]));
}

/** Ask, and then start a restore. Resolves to true when it was started. */
async function startRestore(title, body, request) {
  const key = newKey();
  const done = await ask({ title, body, go: "Restore", action: () => launch(api("restore"), { ...request, dry_run: false }, key) });
  if (!done) return false;
  toast("The restore has been started.");
  follow(done.run_id);
  return done.run_id;
}

const RULES = "Each backup is verified before it is used, and nothing that exists is replaced.";
const HELD = "so that the next run does not delete it again. The hold can be removed under Holds.";

/** Put back everything that a run deleted. */
export async function undo(run, sets = []) {
  const kept = sets.reduce((sum, set) => [sum[0] + set.files, sum[1] + set.bytes], [0, 0]);
  const what = kept[0] ? `${amount(...kept, thingsAt(sets))} come back from the backups.` : "Everything that this run deleted comes back from its backups.";
  const started = await startRestore(`Undo this run?`, [h("p", {}, what), h("p", {}, `${RULES} Everything in the directories that it came from is held for a while, ${HELD}`)], { run_id: run.run_id });
  if (started) void openRun(started);
}

/** Show the files of a run's backups in the drawer, to restore some of them. */
export function chooseFiles(runId, sets) {
  const what = thingsAt(sets);
  return openDrawer(`${capitalized(what)} of the backups`, async () => {
    const chosen = new Set();
    const restore = operatorOnly(button("Restore none yet", () => void restoreChosen(), "primary small-button"));
    restore.disabled = true;
    const place = h("div");
    const update = () => {
      restore.textContent = chosen.size ? `Restore ${counted(chosen.size, what)}…` : "Restore none yet";
      if (restore.title === "") restore.disabled = !chosen.size || chosen.size > SELECTED_AT_MOST;
    };
    async function restoreChosen() {
      const names = [...chosen];
      const list = h("ul", { class: "small" }, names.slice(0, 8).map((name) => h("li", {}, path(name))), names.length > 8 ? h("li", {}, `and ${number(names.length - 8)} more`) : null);
      const started = await startRestore(`Restore ${counted(names.length, what)}?`, [list, h("p", {}, `${RULES} What comes back is held for a while, ${HELD}`)], { run_id: runId, paths: names });
      if (started) void openRun(started);
    }
    const box = (file) => {
      const input = h("input", { type: "checkbox", "aria-label": `Choose ${file.path}`, checked: chosen.has(file.path) });
      input.addEventListener("change", () => {
        if (input.checked) chosen.add(file.path);
        else chosen.delete(file.path);
        update();
      });
      return operatorOnly(input);
    };
    serverTable(place, {
      caption: "Files of the backups",
      filters: [{ name: "q", label: "Search paths", kind: "search" }],
      extra: restore,
      columns: [
        { title: "Choose", kind: "", cell: box },
        { title: "Path", kind: "col-path", cell: (file) => [path(file.path), h("span", { class: "sub" }, file.data_type)] },
        { title: "Size", kind: "num", cell: (file) => bytes(file.bytes) },
      ],
      load: async (query) => {
        const found = await get(api(`backups/${encodeURIComponent(runId)}/files`), { q: query.q, page: query.page, per_page: query.per_page });
        return { rows: found.files, matching: found.matching };
      },
      empty: () => h("div", { class: "empty" }, h("strong", {}, "This run has no backups any more.")),
    });
    return [h("div", { class: "buttons" }, button("Back to the run", () => void openRun(runId), "small-button")), place];
  });
}
