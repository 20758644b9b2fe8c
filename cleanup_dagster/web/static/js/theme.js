// Light, dark, or as the system says. ../theme.js applies the choice before the first paint.

import { byId, h } from "./dom.js";

const KEY = "cleanup-theme";
const CHOICES = ["system", "light", "dark"];
const SHAPES = {
  system: "M8 2.5a5.5 5.5 0 1 0 0 11zM8 2.5a5.5 5.5 0 0 1 0 11",
  light: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6M8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1",
  dark: "M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7z",
};

function drawn(shape) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const looks = { class: "icon", viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true", fill: "none", stroke: "currentColor", "stroke-width": 1.5, "stroke-linecap": "round", "stroke-linejoin": "round" };
  for (const [name, value] of Object.entries(looks)) svg.setAttribute(name, value);
  line.setAttribute("d", SHAPES[shape]);
  svg.append(line);
  return svg;
}

function current() {
  return document.documentElement.dataset.theme ?? "system";
}

function show() {
  const control = byId("theme");
  const label = `Theme: ${current()}`;
  control.setAttribute("aria-label", label);
  control.title = label;
  control.replaceChildren(drawn(current()));
}

function choose(choice) {
  if (choice === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // Storage is off: the choice lasts as long as the page.
  }
  show();
  document.dispatchEvent(new Event("cleanup:theme"));
}

export function startTheme() {
  byId("theme").addEventListener("click", () => choose(CHOICES[(CHOICES.indexOf(current()) + 1) % CHOICES.length]));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("cleanup:theme")));
  show();
}

/** Return the colour that a custom property stands for in the theme that is shown. */
export function colour(property) {
  const probe = h("span", { hidden: true });
  probe.style.color = `var(${property})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}
