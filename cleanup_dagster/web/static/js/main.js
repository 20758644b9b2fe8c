// Puts the page together: which view is shown stands in the address, and every view loads itself.

import { drawnInView, startActivity } from "./activity.js";
import { post } from "./api.js";
import { showBackups } from "./backups.js";
import { showCleanup, startCleanup } from "./cleanup.js";
import { startDialogs } from "./dialogs.js";
import { byId, operatorOnly, toast } from "./dom.js";
import { showFiles } from "./files.js";
import { refreshMoments } from "./format.js";
import { showHistory, startHistory } from "./history.js";
import { showHolds, startHolds } from "./holds.js";
import { showOverview, startOverview } from "./overview.js";
import { startSettings } from "./settings.js";
import { startTheme } from "./theme.js";

const OVERVIEW_MS = 15_000;
const VIEWS = { overview: () => {}, cleanup: showCleanup, history: showHistory, files: showFiles, holds: showHolds, backups: showBackups };

let figures = null; // of the last overview that came
let lookingAt = 0; // looks at the overview that are under way
let shown = "";

function place() {
  const [view, argument] = location.hash.slice(1).split("/");
  return view in VIEWS ? [view, argument] : [shown || "overview", undefined]; // "#main" is the skip link's
}

function show() {
  const [view, argument] = place();
  for (const name of Object.keys(VIEWS)) byId(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll(".top nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = byId(`title-${view}`);
  document.title = `${title.textContent} · Cleanup`;
  if (shown && shown !== view) {
    window.scrollTo(0, 0);
    title.focus();
  }
  shown = view;
  drawnInView([]);
  void load(view, argument);
}

async function load(view, argument, again = false) {
  const section = byId(`view-${view}`);
  section.setAttribute("aria-busy", "true");
  await VIEWS[view](argument, again);
  section.removeAttribute("aria-busy");
}

async function refresh() {
  lookingAt += 1;
  figures = (await showOverview()) ?? figures;
  lookingAt -= 1;
}

/** Look again, unless the last look has not been answered yet: a slow server is not asked ever more. */
function lookAgain() {
  if (!document.hidden && !lookingAt) void refresh();
}

function refreshAll() {
  void refresh();
  const [view, argument] = place();
  void load(view, argument, true);
}

byId("logout").addEventListener("click", async () => {
  try {
    await post("/logout");
    location.assign("/login");
  } catch (problem) {
    toast(problem.message);
  }
});
document.querySelectorAll("[data-operator]").forEach(operatorOnly);
window.addEventListener("hashchange", show);
document.addEventListener("cleanup:changed", refreshAll);
document.addEventListener("visibilitychange", lookAgain);
setInterval(lookAgain, OVERVIEW_MS);
setInterval(refreshMoments, 20_000);
startTheme();
startDialogs();
startOverview();
startCleanup(() => figures);
startHistory();
startHolds();
startSettings();
void refresh();
show();
startActivity();
