// A table whose rows the server sorts, filters and pages. Only its body is made anew, so that the focus stays.

import { button, h, renew } from "./dom.js";
import { bytes, number } from "./format.js";

const PER_PAGE = 25;
const TYPING_MS = 250;
let ids = 0;

/**
 * Fill `place` with a table and return `{ reload, set }`.
 *
 * columns: [{ title, kind, sort, cell(row) }], of which `title` is a text or an element, `kind` are classes, and `sort` is
 * the server's key.
 * filters: [{ name, label, kind: "search" | "select" | "segments", options, value }].
 * load(query): resolves to { rows, matching, matchingBytes, perPage }; without `matching` the pages are unnumbered.
 * about(found): hears of what is shown.
 */
export function serverTable(place, { caption, columns, filters = [], sort = "", load, empty, extra = null, about = () => {} }) {
  const query = { page: 1, sort, ...Object.fromEntries(filters.map((filter) => [filter.name, filter.value ?? ""])) };
  const counted = h("span", { class: "count", role: "status" });
  const body = h("tbody");
  const table = h("table", { class: "data" }, h("caption", { class: "visually-hidden" }, caption));
  const wrap = h("div", { class: "table-wrap" }, table);
  const before = button("Previous", () => go(query.page - 1), "small-button");
  const after = button("Next", () => go(query.page + 1), "small-button");
  const page = h("span", { class: "muted small" });
  const pager = h("nav", { class: "pager", "aria-label": `Pages of ${caption}`, hidden: true }, page, before, after);
  let asked = 0;

  table.append(h("thead", {}, h("tr", {}, columns.map(heading))), body);
  place.replaceChildren(
    ...(filters.length || extra ? [h("div", { class: "toolbar" }, filters.map(control), extra, counted)] : []), wrap, pager);

  function heading(column) {
    const cell = h("th", { scope: "col", class: column.kind });
    if (!column.sort) {
      cell.append(column.title);
      return cell;
    }
    mark(cell, column);
    cell.append(h("button", {
      type: "button", class: "sort", onclick: () => {
        query.sort = query.sort === `-${column.sort}` || (query.sort !== column.sort && column.kind !== "num") ? column.sort : `-${column.sort}`;
        table.querySelectorAll("thead th").forEach((other, index) => mark(other, columns[index]));
        go(1);
      },
    }, column.title));
    return cell;
  }

  function mark(cell, column) {
    if (column.sort && query.sort === column.sort) cell.setAttribute("aria-sort", "ascending");
    else if (column.sort && query.sort === `-${column.sort}`) cell.setAttribute("aria-sort", "descending");
    else cell.removeAttribute("aria-sort");
  }

  function control(filter) {
    const change = (value) => {
      query[filter.name] = value;
      go(1);
    };
    if (filter.kind === "segments") return segments(filter, change);
    if (filter.kind === "select") {
      return h("select", { "aria-label": filter.label, onchange: (event) => change(event.target.value) },
        filter.options.map(([value, label]) => h("option", { value, selected: value === query[filter.name] }, label)));
    }
    let waiting;
    return h("input", {
      type: "search", "aria-label": filter.label, placeholder: filter.label, spellcheck: "false", oninput: (event) => {
        clearTimeout(waiting);
        waiting = setTimeout(() => change(event.target.value), TYPING_MS);
      },
    });
  }

  function segments(filter, change) {
    const name = `segments-${++ids}`;
    return h("div", { class: "segments", role: "radiogroup", "aria-label": filter.label },
      filter.options.map(([value, label]) => h("label", {},
        h("input", { type: "radio", name, value, checked: value === query[filter.name], onchange: () => change(value) }),
        h("span", {}, label))));
  }

  function go(to) {
    query.page = to;
    return reload();
  }

  async function reload() {
    const mine = ++asked;
    wrap.setAttribute("aria-busy", "true");
    try {
      const found = await load({ ...query, per_page: PER_PAGE });
      if (mine !== asked) return;
      show(found);
      about(found);
    } catch (problem) {
      if (mine === asked) failed(problem);
    } finally {
      if (mine === asked) wrap.removeAttribute("aria-busy");
    }
  }

  function show({ rows, matching, matchingBytes, perPage = PER_PAGE }) {
    const pages = matching === undefined ? undefined : Math.max(1, Math.ceil(matching / perPage));
    if (query.page > pages) { // the list has become shorter
      void go(pages);
      return;
    }
    const filtered = filters.some((filter) => query[filter.name] !== (filter.value ?? ""));
    renew(body, ...(rows.length ? rows.map(row) : [across(filtered ? nothingMatches() : empty())]));
    table.tHead.hidden = !rows.length;
    counted.textContent = matching === undefined ? "" : `${number(matching)} matching${matchingBytes === undefined ? "" : `, ${bytes(matchingBytes)}`}`;
    page.textContent = pages === undefined ? `Page ${query.page}` : `Page ${number(query.page)} of ${number(pages)}`;
    before.disabled = query.page <= 1;
    after.disabled = pages === undefined ? rows.length < perPage : query.page >= pages;
    pager.hidden = before.disabled && after.disabled;
  }

  function row(value) {
    return h("tr", {}, columns.map((column, index) => (
      index ? h("td", { class: column.kind }, column.cell(value)) : h("th", { scope: "row", class: column.kind }, column.cell(value)))));
  }

  const across = (content) => h("tr", {}, h("td", { colspan: columns.length }, content));

  const nothingMatches = () => h("div", { class: "empty" }, h("strong", {}, "Nothing matches these filters."));

  function failed(problem) {
    counted.textContent = "";
    pager.hidden = true;
    table.tHead.hidden = true;
    body.replaceChildren(across(h("div", { class: "empty", role: "alert" },
      h("strong", {}, "This could not be loaded."), h("p", {}, problem.message), button("Try again", () => void reload(), "small-button"))));
  }

  const skeleton = () => h("tr", {}, columns.map((column) => h("td", { class: column.kind }, h("span", { class: "skeleton" }))));
  body.replaceChildren(skeleton(), skeleton(), skeleton());
  void reload();
  return { reload };
}
