// What backups there are, and until when.

import { amount } from "./activity.js";
import { api, get, looks } from "./api.js";
import { button, byId, h, nothing, path, renew } from "./dom.js";
import { bytes, capitalized, moment, number, thingsAt } from "./format.js";
import { chooseFiles, openRun } from "./rundetails.js";

const look = looks();

function row(set) {
  return h("tr", {},
    h("th", { scope: "row" }, h("button", { type: "button", class: "link-button", onclick: () => void openRun(set.run_id) }, moment(set.made_at)),
      h("span", { class: "sub" }, `run ${set.run_id.slice(0, 8)}`)),
    h("td", {}, set.target, h("span", { class: "sub medium-only" }, path(set.root))),
    h("td", { class: "num" }, number(set.files)),
    h("td", { class: "num medium-only" }, bytes(set.bytes)),
    h("td", { class: "nowrap" }, moment(set.expires_at)),
    h("td", { class: "num" }, button(`${capitalized(thingsAt([set]))}…`, () => void chooseFiles(set.run_id, [set]), "small-button")));
}

export async function showBackups() {
  const isLatest = look();
  const place = byId("backups");
  if (!place.childElementCount) place.replaceChildren(h("div", { class: "empty" }, "Loading…"));
  try {
    const { backups } = await get(api("backups"));
    if (!isLatest()) return;
    if (!backups.length) {
      place.replaceChildren(nothing("There are no backups.", h("p", {}, "A live run makes one of every file before it deletes it.")));
      return;
    }
    const newest = [...backups].sort((one, other) => (one.made_at < other.made_at ? 1 : -1));
    const total = backups.reduce((sum, set) => [sum[0] + set.files, sum[1] + set.bytes], [0, 0]);
    renew(place, h("div", { class: "toolbar" }, h("span", {}, `${amount(...total, thingsAt(backups))} held`)),
      h("table", { class: "data" },
        h("caption", { class: "visually-hidden" }, "Backups"),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Made"), h("th", { scope: "col" }, "Target"), h("th", { scope: "col", class: "num" }, capitalized(thingsAt(backups))),
          h("th", { scope: "col", class: "num medium-only" }, "Size"), h("th", { scope: "col" }, "Expires"), h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "Actions")))),
        h("tbody", {}, newest.map(row))));
  } catch (problem) {
    if (!isLatest()) return;
    place.replaceChildren(h("div", { class: "empty", role: "alert" }, h("strong", {}, "The backups could not be loaded."), problem.message));
  }
}
