// The figures at the top, and what is wrong with the platform itself.

import { follow } from "./activity.js";
import { api, get, launch, looks } from "./api.js";
import { button, byId, changed, h, notice, renew, toast } from "./dom.js";
import { bytes, capitalized, counted, minute, moment, number, outcome } from "./format.js";
import { resetPolicies, showPolicies } from "./policies.js";
import { openRun } from "./rundetails.js";

function card(name, figure, more = "", words = false) {
  const place = byId(`card-${name}`);
  place.replaceChildren(figure);
  place.classList.toggle("words", words);
  byId(`card-${name}-more`).replaceChildren(...[more].flat());
}

function showCards(overview) {
  const scanned = Boolean(overview.scanned_at);
  const free = overview.free_bytes == null ? "" : `${bytes(overview.free_bytes)} free on the disk`;
  byId("card-files-title").textContent = `${capitalized(overview.things_to_clean ?? "files")} to clean`;
  if (scanned) {
    card("files", number(overview.files_to_clean), overview.files_to_clean ? "expired at the last scan" : "nothing is expired");
    card("bytes", bytes(overview.bytes_to_free), free);
  } else {
    card("files", "Not known yet", "nothing was scanned so far", true);
    card("bytes", "Not known yet", free, true);
  }
  card("freed", bytes(overview.space_freed), overview.held_by_backups ? `${bytes(overview.held_by_backups)} still held by backups` : "no backup holds space");
  showLast(overview.last_cleanup);
  showNext(overview);
  byId("scanned-at").replaceChildren(...(scanned ? ["Scanned ", moment(overview.scanned_at)] : ["Never scanned"]));
  byId("cards").removeAttribute("aria-busy");
}

let lastSaid = ""; // what the card says of the last cleanup: while that is the same, the button keeps the focus

function showLast(last) {
  const said = JSON.stringify(last);
  if (said === lastSaid) return;
  lastSaid = said;
  if (!last) {
    card("last", "Never", "no live run so far", true);
    return;
  }
  const details = h("button", { type: "button", class: "link-button", title: last.message, onclick: () => void openRun(last.run_id) }, "Details");
  card("last", moment(last.at), [h("span", {}, outcome(last.outcome), " ", details)], true);
}

function showNext(overview) {
  if (overview.next_run && overview.schedule_running) card("next", moment(overview.next_run), minute(overview.next_run), true);
  else if (!overview.dagster_reachable) card("next", "Not known", "Dagster does not answer", true);
  else card("next", "None", "the schedule is stopped in Dagster", true);
}

function showProblems(overview) {
  const problems = [];
  if (!overview.dagster_reachable) {
    problems.push(notice("warn", h("strong", {}, "Dagster does not answer."),
      " Everything can be looked at and policies changed, but no run can be started or undone. Start ",
      h("code", {}, "dagster-webserver"), " and ", h("code", {}, "dagster-daemon"), "; this page notices by itself."));
  }
  if (overview.scan_problem) {
    problems.push(notice("warn", h("strong", {}, "The newest scan cannot be shown."), ` ${capitalized(overview.scan_problem)}. `,
      overview.scanned_at ? "What is shown is an older one. " : "There is no older one. ", "A dry run makes a new one."));
  }
  renew(byId("platform-problems"), ...problems);
}

const look = looks();
let broken = ""; // why there is nothing to show

/** Load the overview. Without the database there is nothing to show but that. */
export async function showOverview() {
  const isLatest = look();
  try {
    const [{ stats, overview }, { policies }] = await Promise.all([get(api("stats")), get(api("policies"))]);
    if (!isLatest()) return null;
    showProblems(overview);
    showCards(overview);
    showPolicies(policies, stats, Boolean(overview.scanned_at));
    if (broken) {
      broken = "";
      changed(); // the other views come back, too
    }
    return overview;
  } catch (problem) {
    if (!isLatest()) return null;
    if (broken === problem.message) return null; // it is said already, and the focus may be on its button
    broken = problem.message;
    byId("cards").removeAttribute("aria-busy");
    for (const figure of document.querySelectorAll(".figure:has(.skeleton)")) figure.textContent = "–";
    byId("platform-problems").replaceChildren(h("div", { class: "notice notice-bad", role: "alert" },
      h("p", {}, h("strong", {}, "This page has nothing to show at the moment. "), problem.message),
      h("p", { class: "muted" }, "It tries again every few seconds."), button("Try again now", () => void showOverview(), "small-button")));
    return null;
  }
}

export function startOverview() {
  byId("reset-policies").addEventListener("click", () => void resetPolicies());
  byId("rescan").addEventListener("click", async (event) => {
    const control = event.currentTarget;
    control.disabled = true;
    try {
      const { run_id: runId } = await launch(api("files/refresh"), {});
      if (runId) follow(runId);
      toast("The scan has been started; the figures follow when it is done.");
    } catch (problem) {
      toast(problem.message);
    } finally {
      control.disabled = false;
    }
  });
}

export const foundNow = (overview) => (overview?.scanned_at ? `By the last scan, ${counted(overview.files_to_clean, overview.things_to_clean)} (${bytes(overview.bytes_to_free)}) are expired.` : "Nothing was scanned so far, so what it would take is not known.");
