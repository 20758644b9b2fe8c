// The REST API as the page uses it: the session's cookie, a CSRF token on changes, and one kind of error.

const TOKEN = document.querySelector('meta[name="csrf-token"]')?.content ?? "";

const PATIENCE = 10; // seconds
const READ_MS = 60_000; // a connection that was lost unnoticed, such as by a machine that slept, never answers
const CHANGE_MS = 180_000; // to start a run, Dagster is asked several times, and may take its time

/** An answer that is no success. `status` is 0 when nothing answered; `body` is what came. */
export class ApiError extends Error {
  constructor(message, status, body = {}) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

async function request(method, path, { params = {}, body, key, version } = {}) {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== "" && value != null));
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-CSRF-Token"] = TOKEN;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  if (version) headers["If-Match"] = `"${version}"`;
  let answer;
  try {
    answer = await fetch(query.size ? `${path}?${query}` : path, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin",
      signal: AbortSignal.timeout(method === "GET" ? READ_MS : CHANGE_MS),
    });
  } catch {
    throw new ApiError("The page's server does not answer: it is stopped, or the network is down.", 0);
  }
  const content = await answer.json().catch(() => null);
  if (answer.ok && content) return content;
  if (answer.ok) throw new ApiError("The server's answer could not be read: the connection broke off, or something else answered.", 0);
  if (answer.status === 401 && path !== "/login") {
    location.assign("/login");
    return new Promise(() => {}); // the page is going
  }
  const wait = answer.headers.get("Retry-After");
  const said = content?.error ?? `The server answered with status ${answer.status}.`;
  throw new ApiError(wait ? `${said} (try again in ${wait} s)` : said, answer.status, content ?? {});
}

export const get = (path, params) => request("GET", path, { params });
export const post = (path, body = {}, key = "") => request("POST", path, { body, key });
/** Change what is still at `version`; else the answer is 412, and its body has what it is now. */
export const change = (path, body, version) => request("POST", path, { body, version });
export const remove = (path) => request("DELETE", path);

/** Start a run. While Dagster is still putting one away that has ended, this waits instead of failing. */
export async function launch(path, body, key = newKey()) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await post(path, body, key);
    } catch (problem) {
      const other = problem.status === 409 && problem.body.run_id;
      if (!other || attempt === PATIENCE) throw problem;
      const { run } = await get(api(`runs/${encodeURIComponent(other)}`));
      if (run.status === "running" || run.status === "queued") throw problem;
      await new Promise((resolve) => { setTimeout(resolve, 1000); });
    }
  }
}

/** Return a key that makes a repeated request start one run only. */
export function newKey() {
  // crypto.randomUUID is missing on pages without TLS; this is not.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Return a function that begins a look at something, and returns one that tells whether this is still the latest look.
 * The answer to an earlier one says how things were before, and is not to be drawn.
 */
export function looks() {
  let begun = 0;
  return () => {
    const mine = ++begun;
    return () => mine === begun;
  };
}

export const api = (path) => `/api/cleanup/${path}`;
