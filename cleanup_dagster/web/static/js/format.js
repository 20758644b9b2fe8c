// Numbers, sizes, ages and moments as people read them. In English throughout, as the server's sentences are.

import { h } from "./dom.js";

const NUMBER = new Intl.NumberFormat("en");
const ONE_DIGIT = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const EXACT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });
const MINUTE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", timeZoneName: "short" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "always" });
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const STEPS = [["year", 365 * 86400], ["month", 30 * 86400], ["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

export const number = (value) => NUMBER.format(value ?? 0);

export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

/** Return what the items of some data types are called, as the server does: `files`, `runs`, or `files and runs`. */
export const things = (types) => [...new Set(types.map((type) => (type === "dagster_runs" ? "runs" : "files")))].sort().join(" and ") || "files";

/** Return what the things are called that cleanups take or took, by the statistics of each data type. */
export const taken = (stats) => things(stats.filter((one) => one.total_cleaned || (one.enabled && one.targets.length)).map((one) => one.data_type));

/** Return what the things are called that a run dealt with. */
export const went = ({ audit = [] }) => things(audit.filter((row) => row.records_deleted || row.records_failed).map((row) => row.data_type));

/** Return what the things are called that lie in roots of targets or of their backups. */
export const thingsAt = (rows) => things(rows.map((one) => (one.root.startsWith("/dagster_runs/") ? "dagster_runs" : "")));

export const capitalized = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Return `file` for one of the `files`, else what they are called. */
export const named = (value, what) => (value === 1 && !what.includes(" ") ? what.slice(0, -1) : what);

/** Return `1 file`, `1,234 files` or `5 runs`. */
export const counted = (value, what = "files") => `${number(value)} ${named(value, what)}`;

/** Return a size in binary units, as the server writes it: `1.4 GiB`. */
export function bytes(value) {
  let size = value ?? 0;
  let unit = 0;
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit ? size.toFixed(1) : size} ${UNITS[unit]}`;
}

/** Return an age in days as people say it. */
export function age(days) {
  if (days < 0) return "in the future";
  if (days < 1) return count(Math.round(days * 24), "hour");
  return `${ONE_DIGIT.format(days)} days`;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

function relative(date) {
  const seconds = (date - Date.now()) / 1000;
  if (Math.abs(seconds) < 10) return "just now";
  const [unit, size] = STEPS.find(([, length]) => Math.abs(seconds) >= length);
  return RELATIVE.format(Math.trunc(seconds / size), unit);
}

/** Return a moment as `3 hours ago`, with the exact time on hovering, kept fresh by `refreshMoments`. */
export function moment(text, otherwise = "never") {
  const date = new Date(text ?? NaN);
  if (Number.isNaN(date.valueOf())) return otherwise;
  return h("time", { datetime: date.toISOString(), title: EXACT.format(date) }, relative(date));
}

export const exact = (text) => EXACT.format(new Date(text));

export const minute = (text) => MINUTE.format(new Date(text));

export const day = (date) => DAY.format(date);

/** Bring every relative time on the page up to date. */
export function refreshMoments() {
  for (const element of document.querySelectorAll("time[datetime]")) {
    element.textContent = relative(new Date(element.dateTime));
  }
}

export const DATA_TYPES = [
  "pipeline_operations", "dbt_logs", "failed_operations", "completed_operations", "system_logs", "temp_files", "dagster_runs",
];

const REASONS = {
  expired: "expired", not_expired: "not expired", held: "held", no_policy: "no policy", policy_disabled: "policy off",
  policy_invalid: "policy invalid", still_active: "still active", recently_modified: "recently modified",
  keep_last: "among the newest", put_back: "put back", unreadable_content: "not readable as an operation",
  symlink: "symbolic link", not_regular: "not a regular file", hard_linked: "hard linked", other_mount: "other mount",
  own_directory: "ours", too_deep: "too deep", unreadable: "unreadable",
};
export const reason = (value) => REASONS[value] ?? value;
export const REASON_OPTIONS = Object.entries(REASONS);

const OUTCOMES = { done: "good", failed: "bad", refused: "warn", interrupted: "bad", running: "live", queued: "live" };

export const outcome = (value) => h("span", { class: `chip chip-${OUTCOMES[value] ?? "plain"}` }, value);

export const isOver = (run) => run.status !== "running" && run.status !== "queued";

/** Return what a run is, in words. */
export function runTitle(run) {
  if (run.kind === "restore") return run.dry_run ? "Restore, dry" : "Restore";
  if (run.dry_run) return "Dry run";
  const type = capitalized(run.cleanup_type);
  return run.plan ? "Cleanup of a reviewed plan" : `${type} cleanup`;
}

/** Return how a run ended, in a sentence; `what` are the things it deleted. */
export function runResult(run, what = "files") {
  if (run.status === "refused" || run.status === "interrupted") return run.message || `It was ${run.status}.`;
  if (run.kind === "restore") return run.status === "done" ? "What was asked for is back in its place." : run.message;
  if (run.dry_run) return `${number(run.expired_files)} would go, ${bytes(run.expired_bytes)}.`;
  const failed = run.failed_files ? ` ${counted(run.failed_files, what)} could not be dealt with.` : "";
  return `${counted(run.deleted_files, what)} deleted, ${bytes(run.freed_bytes)}.${failed}`;
}
