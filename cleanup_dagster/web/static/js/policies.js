// The policies, edited in place. A change is a draft with its consequences beside it until somebody saves it.

import { api, change, post } from "./api.js";
import { ask } from "./dialogs.js";
import { amount } from "./activity.js";
import { button, byId, changed, h, isOperator, nothing, notice, operatorOnly, path, toast, word } from "./dom.js";
import { age, bytes, count, counted, moment, number, things } from "./format.js";

const TYPING_MS = 300;
const KEEP_MAX = 2 ** 31 - 1;
const NEWEST = "The newest of each pipeline stay, however old they are.";
const drafts = new Map(); // data type -> the draft's row
let shown = [];
let lastScan = [[], false]; // what it found for each of them, and whether there was one

/** Show the policies with what the last scan, if any, found for each. Drafts that are being edited stay. */
export function showPolicies(policies, stats, scanned) {
  shown = policies;
  lastScan = [stats, scanned];
  if (drafts.size) return;
  const byType = new Map(stats.map((stat) => [stat.data_type, stat]));
  const place = byId("policies");
  if (!policies.length) {
    place.replaceChildren(nothing("There are no policies, so everything is kept.", h("p", {}, "Reset to defaults brings them back.")));
    return;
  }
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  const without = policies.every((policy) => !policy.targets?.length);
  place.replaceChildren(
    ...(without ? [notice("warn", h("strong", {}, "No target is configured."), " Nothing can be cleaned until ", h("code", {}, "cleanup.yaml"), " names directories under ", h("code", {}, "targets"), ".")] : []),
    h("table", { class: "data policies" },
      h("caption", { class: "visually-hidden" }, "Retention policies"),
      h("thead", {}, h("tr", {},
        h("th", { scope: "col" }, "Data type"), h("th", { scope: "col" }, "On"), h("th", { scope: "col" }, "Kept for", h("span", { class: "narrow-only" }, "days")), h("th", { scope: "col", title: NEWEST }, "Newest kept"),
        h("th", { scope: "col", class: "num medium-only" }, "Expired now"), h("th", { scope: "col", class: "num medium-only" }, "Size"),
        h("th", { scope: "col", class: "wide-only" }, "Last cleanup"), h("th", { scope: "col", class: "num wide-only" }, "Freed so far"))),
      h("tbody", {}, policies.map((policy) => row(policy, byType.get(policy.data_type) ?? {}, scanned)))));
  if (focused) again(place, focused)?.focus();
}

/** Return what stands in the new table where `control` stood in the old one. */
function again(place, control) {
  const type = control.closest("tr")?.dataset.type;
  return [...place.querySelectorAll(`input[name="${control.name}"]`)].find((input) => input.closest("tr").dataset.type === type);
}

function row(policy, stat, scanned) {
  const name = policy.data_type;
  const toggle = h("input", { type: "checkbox", name: "enabled", role: "switch", "aria-label": `Policy ${name}`, checked: policy.enabled });
  const days = h("input", {
    type: "number", name: "days", inputmode: "numeric", min: policy.minimum, max: policy.maximum, step: 1,
    value: policy.retention_days, "aria-label": `Days that ${name} are kept`,
  });
  const newest = h("input", {
    type: "number", name: "keep", inputmode: "numeric", min: 0, max: KEEP_MAX, step: 1, value: policy.keep_last,
    title: NEWEST, "aria-label": `Newest ${name} of each pipeline that always stay`,
  });
  const controls = { toggle, days, newest };
  for (const control of Object.values(controls)) operatorOnly(control);
  const [cell, below] = expired(policy, stat, scanned);
  const line = h("tr", { "data-type": name },
    h("th", { scope: "row" }, word(name), h("span", { class: "sub" }, policy.description), below,
      policy.problem || stat.problem ? h("span", { class: "sub bad" }, policy.problem || stat.problem) : null),
    h("td", {}, h("span", { class: "switch" }, toggle, h("span", { "aria-hidden": "true" }))),
    h("td", {}, h("span", { class: "policy-days" }, days, h("span", { class: "unit muted" }, "days"))),
    h("td", {}, newest),
    cell,
    h("td", { class: "num medium-only" }, policy.targets?.length && scanned ? bytes(stat.expired_bytes) : "–"),
    h("td", { class: "wide-only nowrap" }, moment(stat.last_cleanup)),
    h("td", { class: "num wide-only" }, bytes(stat.space_saved)));
  if (isOperator) watch(policy, line, controls);
  return line;
}

/** Return what the last scan found expired: a cell of its own, and where that has no room a line below the name. */
function expired(policy, stat, scanned) {
  if (!policy.targets?.length) {
    const none = () => h("span", { class: "chip", title: "cleanup.yaml names no directory for this data type" }, "no target");
    return [h("td", { class: "num medium-only" }, none()), h("span", { class: "sub narrow-only" }, none())];
  }
  if (!scanned) return [h("td", { class: "num medium-only", title: "not scanned yet" }, "–"), null];
  const below = `${number(stat.expired_files)} expired${stat.expired_files ? `, ${bytes(stat.expired_bytes)}` : ""}`;
  return [h("td", { class: "num medium-only" }, number(stat.expired_files)), h("span", { class: "sub narrow-only" }, below)];
}

function watch(policy, line, controls) {
  const draft = () => void consider(policy, line, controls);
  controls.toggle.addEventListener("change", draft);
  for (const control of [controls.days, controls.newest]) {
    control.addEventListener("input", draft);
    control.addEventListener("keydown", (event) => {
      if (event.key === "Escape") drafts.get(policy.data_type)?.discard();
    });
  }
}

/** Return why a control's text is no whole number from `low` to `high`, or an empty text; mark the control. */
function problem(control, what, low, high) {
  const value = control.value.trim();
  const valid = /^[0-9]+$/.test(value) && Number(value) >= low && Number(value) <= high;
  control.setAttribute("aria-invalid", String(!valid));
  return valid ? "" : `Write a whole number of ${what} from ${number(low)} to ${number(high)}.`;
}

/** Return which of the controls show something else than the policy. */
function edits(policy, { toggle, days, newest }) {
  return {
    enabled: toggle.checked !== policy.enabled,
    retention_days: days.value.trim() !== String(policy.retention_days),
    keep_last: newest.value.trim() !== String(policy.keep_last),
  };
}

/** Compare the controls with the policy, and show or take away the draft. */
async function consider(policy, line, controls) {
  if (drafts.get(policy.data_type)?.isSaving()) return; // what is typed meanwhile is considered then
  const { toggle, days, newest } = controls;
  const wanted = { data_type: policy.data_type };
  const isEdited = edits(policy, controls);
  if (isEdited.enabled) wanted.enabled = toggle.checked;
  if (isEdited.retention_days) wanted.retention_days = Number(days.value);
  if (isEdited.keep_last) wanted.keep_last = Number(newest.value);
  const draft = drafts.get(policy.data_type) ?? open(policy, line, controls);
  if (Object.keys(wanted).length === 1) {
    draft.discard();
    return;
  }
  const wrong = [
    problem(days, "days", policy.minimum ?? 1, policy.maximum ?? 36500),
    problem(newest, "items that always stay", 0, KEEP_MAX),
  ].filter(Boolean);
  if (wrong.length) draft.refuse([h("span", { class: "bad" }, wrong.join(" "))]);
  else await draft.preview(wanted);
}

function open(policy, line, controls) {
  const { toggle, days, newest } = controls;
  const name = policy.data_type;
  const said = h("div", { role: "status" });
  const save = button("Save", null, "primary small-button");
  const discard = button("Discard", () => close(true), "small-button");
  const area = h("tr", { class: "change" }, h("td", { colspan: 8 },
    h("div", { class: "change-box" }, said, h("div", { class: "buttons" }, save, discard))));
  let asked = 0;
  let conflict = "";
  let isSaving = false;

  line.classList.add("changed");
  line.after(area);

  function close(focus) {
    asked += 1;
    toggle.checked = policy.enabled;
    days.value = policy.retention_days;
    newest.value = policy.keep_last;
    for (const control of [days, newest]) control.removeAttribute("aria-invalid");
    line.classList.remove("changed");
    area.remove();
    drafts.delete(name);
    if (focus) days.focus();
  }

  function say(content, saving, label = "Save") {
    said.replaceChildren(...(conflict ? [h("p", { class: "bad", role: "alert" }, conflict)] : []), ...content);
    save.disabled = !saving;
    save.textContent = label;
    save.onclick = saving;
  }

  async function preview(wanted) {
    const mine = ++asked;
    say([h("span", { class: "muted" }, "Working out what this would change…")], null);
    await new Promise((resolve) => { setTimeout(resolve, TYPING_MS); }); // more may be typed
    if (mine !== asked) return;
    try {
      const found = await post(api("policies/preview"), wanted);
      if (mine !== asked) return;
      say(consequences(policy, wanted, found), () => void store(wanted), found.newly_expired.files ? `Save: ${counted(found.newly_expired.files, things([name]))} more expire` : "Save");
    } catch (problem) {
      if (mine !== asked) return;
      const known = problem.status !== 422;
      say([h("span", { class: "bad" }, `${sentence(policy, wanted)} What it would expire is not known: ${problem.message}`)], known ? () => void store(wanted) : null, "Save anyway");
    }
  }

  function saving(is) {
    isSaving = is;
    save.disabled = is;
    discard.disabled = is;
  }

  const typed = () => JSON.stringify([toggle.checked, days.value, newest.value]);

  async function store(wanted) {
    const before = typed();
    saving(true);
    try {
      const { message, policy: saved } = await change(api("policies"), wanted, policy.version);
      Object.assign(policy, saved); // before the table is drawn anew, this line may be edited again
      saving(false);
      conflict = "";
      void consider(policy, line, controls); // what was typed meanwhile is a draft, what was saved is one no more
      if (!drafts.has(name) && document.activeElement === document.body) days.focus(); // it was on a button that is gone
      toast(message);
      changed();
    } catch (problem) {
      saving(false);
      if (problem.status === 412) rebase(problem);
      else if (typed() !== before) {
        conflict = problem.message;
        void consider(policy, line, controls);
      } else say([h("span", { class: "bad", role: "alert" }, problem.message)], () => void store(wanted));
    }
  }

  /** Begin anew from the policy as somebody else left it: what was not edited here follows, what was stays a draft. */
  function rebase(problem) {
    const isEdited = edits(policy, controls);
    Object.assign(policy, problem.body.policy);
    if (!isEdited.enabled) toggle.checked = policy.enabled;
    if (!isEdited.retention_days) days.value = policy.retention_days;
    if (!isEdited.keep_last) newest.value = policy.keep_last;
    conflict = `${problem.message}. Nothing was saved; save again to change that.`;
    void consider(policy, line, controls);
    if (drafts.has(name)) return;
    toast(problem.message); // it is as it was wanted already
    changed();
  }

  function refuse(content) {
    asked += 1; // whatever is being worked out is about another value
    say(content, null);
  }

  const draft = { refuse, preview, isSaving: () => isSaving, discard: () => { if (!isSaving) close(false); } };
  drafts.set(name, draft);
  return draft;
}

function sentence(policy, wanted) {
  const parts = [];
  if (wanted.enabled !== undefined) parts.push(wanted.enabled ? "Switched on" : "Switched off");
  if (wanted.retention_days !== undefined) parts.push(`${count(policy.retention_days, "day")} → ${count(wanted.retention_days, "day")}`);
  if (wanted.keep_last !== undefined) parts.push(`newest that always stay: ${number(policy.keep_last)} → ${number(wanted.keep_last)}`);
  return `${parts.join(", ").replace(/^./, (first) => first.toUpperCase())}.`;
}

function consequences(policy, wanted, found) {
  const { newly_expired: more, no_longer_expired: fewer } = found;
  const what = things([policy.data_type]);
  const content = [h("strong", {}, sentence(policy, wanted)), " "];
  if (more.files) content.push(h("span", {}, `${amount(more.files, more.bytes, what)} more would expire, and go at the next live run. `));
  if (fewer.files) content.push(h("span", {}, `${amount(fewer.files, fewer.bytes, what)} that are expired now would stay. `));
  if (!more.files && !fewer.files) content.push(h("span", {}, `By the last scan, no ${what.slice(0, -1)} changes sides. `));
  content.push(h("span", { class: "muted" }, "Scanned ", moment(found.scanned_at), "."));
  if (more.files && found.examples?.length) {
    content.push(h("details", {}, h("summary", {}, "Examples"), h("ul", { class: "small" }, found.examples.slice(0, 5).map((file) => (
      h("li", {}, path(file.file_path), h("span", { class: "muted" }, ` ${age(file.age_days)}, ${bytes(file.file_size)}`)))))));
  }
  return content;
}

/** Bring the defaults back, after showing which policies that changes. */
export async function resetPolicies() {
  const body = document.getElementById("reset-template").content.cloneNode(true);
  for (const line of body.querySelectorAll("tr[data-type]")) {
    const policy = shown.find((one) => one.data_type === line.dataset.type);
    const same = policy && String(policy.retention_days) === line.dataset.days && String(policy.enabled) === line.dataset.enabled && String(policy.keep_last ?? 0) === line.dataset.keep;
    const now = policy ? `${count(policy.retention_days, "day")}, ${policy.enabled ? "on" : "off"}${policy.keep_last ? `, newest ${policy.keep_last} stay` : ""}` : "missing";
    line.querySelector("[data-now]").replaceChildren(same ? h("span", { class: "muted" }, now) : h("strong", {}, now));
  }
  const done = await ask({ title: "Reset the policies to their defaults?", body: [body], go: "Reset", danger: true, action: () => post(api("policies/reset")) });
  if (!done) return;
  for (const draft of [...drafts.values()]) draft.discard();
  showPolicies(done.policies, ...lastScan); // they can be edited before the overview has been loaded anew
  toast(done.message);
  changed();
}
