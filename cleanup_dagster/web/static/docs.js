// The description of the API, with a session's CSRF token in whatever is tried out from it.
const session = fetch("/api/cleanup/session").then((answer) => answer.json());

window.addEventListener("DOMContentLoaded", () => {
  window.SwaggerUIBundle({
    dom_id: "#docs",
    url: "/openapi.json",
    deepLinking: true,
    validatorUrl: null,
    requestInterceptor: async (request) => {
      const { csrf_token: token } = await session;
      if (token && request.method && request.method !== "GET") request.headers["X-CSRF-Token"] = token;
      return request;
    },
  });
});
