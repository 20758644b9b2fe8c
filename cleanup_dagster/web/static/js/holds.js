// Holds: what stays, whatever the policies say.

import { api, get, looks, post, remove } from "./api.js";
import { ask } from "./dialogs.js";
import { button, byId, changed, h, nothing, operatorOnly, path, renew, toast } from "./dom.js";
import { DATA_TYPES, capitalized, moment } from "./format.js";

const look = looks();

function row(hold) {
  const only = [hold.data_type && `only ${hold.data_type}`, hold.pipeline && `only pipeline ${hold.pipeline}`].filter(Boolean).join(", ");
  return h("tr", {},
    h("th", { scope: "row", class: "col-path" }, path(hold.pattern), only ? h("span", { class: "sub" }, only) : null,
      hold.warning ? h("span", { class: "sub bad", title: hold.warning }, "Keeps nothing: no target is in its reach.") : null),
    h("td", {}, hold.reason, h("span", { class: "sub" }, hold.placed_by, " · ", moment(hold.placed_at))),
    h("td", { class: "nowrap" }, hold.active ? (hold.until ? moment(hold.until) : "for ever") : h("span", { class: "chip" }, "over")),
    h("td", { class: "num" }, operatorOnly(button("Remove…", () => void removeHold(hold), "small-button"))));
}

export async function showHolds() {
  const isLatest = look();
  const place = byId("holds");
  if (!place.childElementCount) place.replaceChildren(h("div", { class: "empty" }, "Loading…"));
  try {
    const { holds } = await get(api("holds"));
    if (!isLatest()) return;
    renew(place, holds.length ? h("table", { class: "data" },
      h("caption", { class: "visually-hidden" }, "Holds"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Path or pattern"), h("th", { scope: "col" }, "Reason"), h("th", { scope: "col" }, "Until"),
        h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "Actions")))),
      h("tbody", {}, holds.map(row))) : nothing("Nothing is held.", h("p", {}, "A hold protects a file, a directory or a pattern, for a time or for ever.")));
  } catch (problem) {
    if (!isLatest()) return;
    place.replaceChildren(h("div", { class: "empty", role: "alert" }, h("strong", {}, "The holds could not be loaded."), problem.message));
  }
}

async function removeHold(hold) {
  const done = await ask({
    title: "Remove this hold?", go: "Remove", danger: true,
    body: [h("p", {}, path(hold.pattern)), h("p", {}, `${hold.reason}. Without it, the policies decide at the next run.`)],
    action: () => remove(api(`holds/${encodeURIComponent(hold.id)}`)).catch((problem) => {
      if (problem.status === 404) return { gone: true };
      throw problem;
    }),
  });
  if (!done) return;
  toast(done.gone ? "The hold was removed by somebody else already." : "The hold is removed.");
  changed();
}

function field(label, input, help = "") {
  input.id = `hold-${input.name}`;
  const more = help ? h("span", { class: "muted small", id: `${input.id}-help` }, help) : null;
  if (more) input.setAttribute("aria-describedby", more.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, more);
}

/** Ask for a hold and place it; `pattern` fills the first field. Resolves to whether it was placed. */
export async function addHold(pattern = "") {
  const inputs = {
    pattern: h("input", { name: "pattern", value: pattern, spellcheck: "false", autocomplete: "off" }),
    reason: h("input", { name: "reason", autocomplete: "off", maxlength: 500 }),
    data_type: h("select", { name: "data_type" }, h("option", { value: "" }, "any"), DATA_TYPES.map((type) => h("option", { value: type }, type))),
    pipeline: h("input", { name: "pipeline", autocomplete: "off" }),
    until: h("input", { name: "until", type: "date" }),
  };
  const done = await ask({
    title: "Add a hold", go: "Add the hold",
    body: [
      field("Path or pattern", inputs.pattern, "An absolute path, a directory with everything in it, or a glob such as /srv/dbt/** or **/*.json."),
      field("Reason", inputs.reason, "Why it has to stay; whoever looks later reads this."),
      field("Only of this data type", inputs.data_type),
      field("Only of this pipeline", inputs.pipeline, "Empty means any."),
      field("Until", inputs.until, "Through that day, UTC. Empty means for ever."),
    ],
    action: () => {
      const wanted = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value.trim()]).filter(([, value]) => value));
      if (!wanted.pattern) throw new Error("Name a path or a pattern.");
      if (!wanted.reason) throw new Error("Give a reason.");
      if (wanted.until) wanted.until = `${wanted.until}T23:59:59Z`;
      return post(api("holds"), wanted);
    },
  });
  if (!done) return false;
  toast(done.warning ? `${capitalized(done.message)}.` : "The hold is placed.");
  changed();
  return true;
}

export function startHolds() {
  byId("add-hold").addEventListener("click", () => void addHold());
}
