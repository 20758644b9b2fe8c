// The three dialogs: a question, the drawer with details, and whatever else is a <dialog>. The browser traps the focus,
// closes on Escape and gives the focus back.

import { button, byId, h } from "./dom.js";

/**
 * Ask before something is done, do it with the dialog open, and return its result; undefined when it was cancelled.
 * A failure is shown in the dialog, which stays. `typed` is a word to be typed first. Enter in a field confirms only what
 * is not dangerous, or what was typed.
 */
export function ask({ title, body, go, danger = false, typed = "", action }) {
  const dialog = byId("confirm");
  const error = byId("confirm-error");
  const confirm = byId("confirm-go");
  const content = byId("confirm-body");
  const heading = byId("confirm-title");
  const word = typed ? wordField(typed, confirm) : null;
  heading.textContent = title;
  content.replaceChildren(...[body].flat(), ...(word ? [word] : []));
  error.textContent = "";
  confirm.textContent = go;
  confirm.className = `button ${danger ? "danger" : "primary"}`;
  confirm.disabled = Boolean(typed);
  return new Promise((resolve) => {
    let result;
    confirm.onclick = async () => {
      if (dialog.hasAttribute("aria-busy")) return; // typing the word again enables the button
      const focused = document.activeElement;
      error.textContent = "";
      busy(dialog, true);
      try {
        result = await action();
      } catch (problem) {
        error.textContent = problem.message;
      }
      busy(dialog, false);
      confirm.disabled = Boolean(typed) && byId("confirm-word").value !== typed;
      if (result) dialog.close();
      else focused.focus();
    };
    content.onkeydown = (event) => {
      if (event.key !== "Enter" || !event.target.matches("input:not([type=checkbox])")) return;
      event.preventDefault();
      if ((!danger || typed) && !confirm.disabled) confirm.click();
    };
    dialog.oncancel = (event) => { if (dialog.hasAttribute("aria-busy")) event.preventDefault(); };
    dialog.onclose = () => {
      if (dialog.hasAttribute("aria-busy")) dialog.showModal(); // a second Escape closes whatever the first was told
      else resolve(result);
    };
    dialog.showModal();
    (content.querySelector("input:not([type=checkbox])") ?? heading).focus();
  });
}

/** While something is under way, it is neither begun again nor walked away from. */
function busy(dialog, is) {
  if (is) dialog.setAttribute("aria-busy", "true");
  else dialog.removeAttribute("aria-busy");
  byId("confirm-go").disabled = is;
  byId("confirm-cancel").disabled = is;
}

function wordField(typed, confirm) {
  const input = h("input", { id: "confirm-word", autocomplete: "off", autocapitalize: "none", spellcheck: "false" });
  input.addEventListener("input", () => { confirm.disabled = input.value !== typed; });
  return h("div", { class: "field" }, h("label", { for: "confirm-word" }, "Type ", h("code", {}, typed), " to confirm"), input);
}

let shown = 0;

/**
 * Open the drawer and fill it with what `load(name)` returns; a failure is shown in it, with a way to try again.
 * `name(title)` gives it another title, unless it shows something else by then.
 */
export async function openDrawer(title, load) {
  const dialog = byId("drawer");
  const body = byId("drawer-body");
  const number = ++shown;
  byId("drawer-title").textContent = title;
  body.replaceChildren(h("p", { class: "muted" }, "Loading…"));
  if (!dialog.open) dialog.showModal();
  byId("drawer-title").focus();
  try {
    const content = await load((text) => { if (number === shown) byId("drawer-title").textContent = text; });
    if (number === shown) body.replaceChildren(...[content].flat());
  } catch (problem) {
    if (number !== shown) return;
    body.replaceChildren(h("div", { class: "notice notice-bad", role: "alert" }, h("p", {}, problem.message),
      button("Try again", () => void openDrawer(title, load))));
  }
}

export function closeDrawer() {
  byId("drawer").close();
}

/** Let the close buttons close, and a click beside the drawer, too. */
export function startDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector("[data-close]")?.addEventListener("click", () => dialog.close());
  }
  const drawer = byId("drawer");
  drawer.addEventListener("click", (event) => { if (event.target === drawer) drawer.close(); });
  drawer.addEventListener("close", () => {
    shown += 1;
    byId("drawer-body").replaceChildren(); // what was in it may be waiting for a run's end, to show that
  });
}
