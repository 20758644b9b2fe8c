// Elements from data. Strings become text nodes and nothing here parses markup: a file's name stays a name.

const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;

/** Return text with what turns other text around or hides in it written out: a file may say anything of itself. */
const seen = (text) => text.replace(UNSEEN, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** Return a new element. `on…` properties are listeners; null, undefined and false leave a property or child out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  const shown = children.flat(3).filter((child) => child !== null && child !== undefined && child !== false);
  element.append(...shown.map((child) => (child instanceof Node ? child : seen(String(child)))));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Whether this session may change things. The server decides again at every request. */
export const isOperator = document.querySelector('meta[name="role"]')?.content === "operator";

/** Return `button`, disabled with the reason for whoever may only look. */
export function operatorOnly(button) {
  if (isOperator) return button;
  button.disabled = true;
  button.title = "Only an operator may do this; you are logged in as a viewer.";
  button.setAttribute("aria-describedby", "viewer-reason");
  return button;
}

export function button(label, onclick, kind = "") {
  return h("button", { type: "button", class: `button ${kind}`, onclick }, label);
}

/** Return a link to elsewhere, or null unless it is one of http. */
export function outside(label, url) {
  if (!/^https?:\/\//.test(url ?? "")) return null;
  return h("a", { class: "button", href: url, target: "_blank", rel: "noopener noreferrer" }, label);
}

/** Return a snake_case word that may break after its underscores. */
export const word = (text) => h("span", {}, text.split(/(?<=_)/).map((part, index) => [index ? h("wbr") : null, part]));

export const path = (text) => h("span", { class: "path" }, text);

export const notice = (kind, ...children) => h("div", { class: `notice notice-${kind}` }, ...children);

export const nothing = (title, ...more) => h("div", { class: "empty" }, h("strong", {}, title), ...more);

/** Return a plain table of a few rows. A column is [title, "num" or ""]; a row's first cell names it. */
export function smallTable(caption, columns, rows) {
  return h("table", { class: "data compact" },
    h("caption", { class: "visually-hidden" }, caption),
    h("thead", {}, h("tr", {}, columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title)))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, index) => (
      index ? h("td", { class: columns[index][1] }, cell) : h("th", { scope: "row", class: columns[0][1] }, cell)))))));
}

/** Return a definition list of [term, value] pairs; an empty value leaves its term out. */
export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]));
}

/** Put new content into a place. What had the focus hands it to what is the same in the same row, else to the view's heading. */
export function renew(place, ...content) {
  const which = (control) => [control.closest("tr")?.cells[0].textContent, control.textContent, control.ariaLabel].join("\n");
  const focused = place.contains(document.activeElement) ? which(document.activeElement) : null;
  place.replaceChildren(...content);
  if (focused === null) return;
  const same = [...place.querySelectorAll("button, input")].find((control) => which(control) === focused);
  (same ?? document.querySelector(".view:not([hidden]) h2")).focus({ preventScroll: true });
}

/** Tell whoever is listening, seeing it or not, that something happened. */
export function toast(text) {
  const element = h("div", { class: "toast" }, text);
  byId("toasts").append(element);
  setTimeout(() => element.remove(), 8000);
}

/** Say something to screen readers only. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Let every view load anew, because what they show has changed. */
export function changed() {
  document.dispatchEvent(new Event("cleanup:changed"));
}
