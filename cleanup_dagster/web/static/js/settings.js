// The configuration in force, to be read.

import { api, get } from "./api.js";
import { byId, facts, h } from "./dom.js";
import { bytes, number } from "./format.js";

const label = (key) => key.replaceAll("_", " ");

function text(key, value) {
  if (value === true) return "yes";
  if (value === false) return "no";
  if (Array.isArray(value)) return value.length ? value.map(String).join(", ") : "none";
  if (typeof value === "number" && /bytes|reserve/.test(key)) return bytes(value);
  if (key === "max_share") return `${value * 100} %`;
  if (typeof value === "number") return number(value);
  return value === null ? "" : String(value);
}

const isGroup = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

function group(values) {
  return facts(Object.entries(values).filter(([, value]) => !isGroup(value)).map(([key, value]) => [label(key), text(key, value)]));
}

function target(one) {
  return h("details", {}, h("summary", {}, `${one.name} `, h("span", { class: "path muted" }, one.root)), group(one),
    Object.entries(one).filter(([, value]) => isGroup(value)).map(([key, value]) => [h("h3", { class: "minor" }, label(key)), group(value)]));
}

function sections(settings) {
  const { targets = [], ...rest } = settings;
  return [
    group(rest),
    h("h3", { class: "minor" }, "targets"),
    targets.length ? targets.map(target) : h("p", { class: "muted" }, "No target is configured, so nothing can be cleaned. Name directories in cleanup.yaml."),
    ...Object.entries(rest).filter(([, value]) => isGroup(value)).map(([key, value]) => [h("h3", { class: "minor" }, label(key)), group(value)]),
  ].flat();
}

export function startSettings() {
  byId("open-settings").addEventListener("click", async () => {
    const body = byId("settings-body");
    body.replaceChildren(h("p", { class: "muted" }, "Loading…"));
    byId("settings").showModal();
    byId("settings-title").focus();
    try {
      const { settings } = await get(api("settings"));
      body.replaceChildren(...sections(settings).flat());
    } catch (problem) {
      body.replaceChildren(h("div", { class: "notice notice-bad", role: "alert" }, problem.message));
    }
  });
}
