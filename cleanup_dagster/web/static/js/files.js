// Every file of the last scan with its verdict, and why.

import { api, get } from "./api.js";
import { fileColumns } from "./cleanup.js";
import { openDrawer } from "./dialogs.js";
import { button, byId, facts, h, nothing, notice, operatorOnly, path, smallTable } from "./dom.js";
import { DATA_TYPES, REASON_OPTIONS, age, counted, exact, moment, number } from "./format.js";
import { addHold } from "./holds.js";
import { serverTable } from "./table.js";

let table = null;

function opener(file) {
  return h("button", { type: "button", class: "link-button path", onclick: () => void explain(file.file_path) }, file.file_path);
}

export function showFiles() {
  if (table) {
    void table.reload();
    return;
  }
  table = serverTable(byId("files"), {
    caption: "Files of the last scan",
    sort: "-age",
    filters: [
      { name: "verdict", label: "Verdict", kind: "segments", options: [["", "All"], ["delete", "Goes"], ["keep", "Stays"]] },
      { name: "q", label: "Search paths", kind: "search" },
      { name: "data_type", label: "Data type", kind: "select", options: [["", "All data types"], ...DATA_TYPES.map((type) => [type, type])] },
      { name: "reason", label: "Reason", kind: "select", options: [["", "All reasons"], ...REASON_OPTIONS] },
    ],
    columns: fileColumns(opener),
    load: async (query) => {
      const found = await get(api("files"), query);
      return { ...found, rows: found.operations, matchingBytes: found.matching_bytes };
    },
    about: (found) => byId("files-scanned").replaceChildren(...(found.scanned_at ? [`${counted(found.total_files, found.things)}, scanned `, moment(found.scanned_at)] : [])),
    empty: () => nothing("Nothing was scanned yet.", h("p", {}, "The overview's Scan again, or a dry run, fills this list.")),
  });
}

/** Open the drawer on one file: what governs it, and until when. */
function explain(name) {
  return openDrawer("Why?", async () => {
    const found = await get(api("explain"), { path: name });
    const copies = found.backups ?? [];
    return [
      h("p", {}, path(found.path)),
      notice(found.would_delete ? "warn" : "good", h("strong", {}, found.would_delete ? "A live run would delete it: " : "It stays: "), found.reason),
      facts([
        ["Target", found.target], ["Policy", found.data_type], ["Kept for", found.retention_days ? `${number(found.retention_days)} days${found.enabled === false ? ", policy off" : ""}` : ""],
        ["Age", found.age_days == null ? "" : `${age(found.age_days)}, by its ${found.age_from}`],
        ["Due", found.due_at ? h("span", {}, moment(found.due_at), h("span", { class: "muted" }, ` · ${exact(found.due_at)}`)) : ""],
      ]),
      h("div", { class: "buttons" }, operatorOnly(button("Hold this file…", () => void holdIt(found.path)))),
      ...(copies.length ? [h("h3", { class: "minor" }, "Backups"), smallTable("Backups of the file", [["Copy", ""], ["Expires", ""]], copies.map((copy) => [path(copy.copy), moment(copy.expires_at)]))] : []),
    ];
  });
}

async function holdIt(name) {
  if (await addHold(name)) void explain(name); // what the drawer says of it is no longer so
}
