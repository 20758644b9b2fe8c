// The token comes from the form, or from the fragment of the printed link, which no server log ever sees.

import { post } from "./api.js";
import { byId } from "./dom.js";

const form = byId("login");
const field = byId("token");
const error = byId("login-error");
const submit = form.querySelector("button");

async function logIn(token) {
  error.textContent = "";
  field.removeAttribute("aria-invalid");
  submit.disabled = true;
  try {
    await post("/login", { token });
    location.replace("/pipeline-management");
  } catch (problem) {
    error.textContent = problem.message;
    field.setAttribute("aria-invalid", "true");
    submit.disabled = false;
    field.focus();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const token = field.value.trim();
  if (token) void logIn(token);
  else {
    error.textContent = "Enter the token that cleanup-operations serve printed.";
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }
});

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  history.replaceState(null, "", location.pathname); // so that it stays in no address bar and no history
  void logIn(given);
} else field.focus();
