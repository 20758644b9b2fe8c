"""Nobody gets in without a token, a viewer changes nothing, and no foreign page makes a browser do it."""

import time
from typing import Any

import pytest
from httpx import Client
from web_helpers import API, OPERATOR, ORIGIN, VIEWER, Platform, asking, bearer, log_in

from cleanup_dagster.web.app import create_app
from cleanup_dagster.web.auth import Rates
from cleanup_dagster.web.tokens import tokens_of

CHANGE = {"data_type": "dbt_logs", "retention_days": 9}
#: What a change looks like, with every kind of body.
CHANGES: list[tuple[str, str, Any]] = [
    ("POST", f"{API}/policies", CHANGE),
    ("POST", f"{API}/policies/preview", CHANGE),
    ("POST", f"{API}/policies/reset", {}),
    ("POST", f"{API}/run", {"dry_run": True}),
    ("POST", f"{API}/plans/1a2b/apply", {}),
    ("POST", f"{API}/restore", {"run_id": "1a2b"}),
    ("POST", f"{API}/files/refresh", {}),
    ("POST", f"{API}/holds", {"pattern": "/srv/*", "reason": "audit"}),
    ("DELETE", f"{API}/holds/1", None),
]


def days_of(client: Client, data_type: str = "dbt_logs") -> int:
    answered = client.get(f"{API}/policies", headers=bearer(VIEWER)).json()
    return next(row["retention_days"] for row in answered["policies"] if row["data_type"] == data_type)


def test_every_address_but_a_few_needs_a_token(client: Client, platform: Platform) -> None:
    """Taken from the routes themselves, so that a new endpoint cannot be forgotten here."""
    del platform
    addresses = client.get("/openapi.json", headers=bearer(VIEWER)).json()["paths"]
    asked = 0
    for path, methods in addresses.items():
        for method in methods:
            answered = client.request(
                method, path.replace("{", "").replace("}", ""), json={} if method == "post" else None
            )
            public = path in {"/healthz", "/readyz", "/login"}
            assert (answered.status_code == 401) != public or path == "/login", (method, path, answered.text)
            asked += 1
    assert asked > 20
    for path in ("/openapi.json", "/docs", "/pipeline-management", "/"):
        assert client.get(path).headers["location"] == "/login"


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_a_viewer_changes_nothing(client: Client, method: str, path: str, body: object) -> None:
    answered = client.request(method, path, json=body, headers=bearer(VIEWER))
    assert answered.status_code == 403
    assert answered.json()["error"] == "the role viewer changes nothing; log in as operator"


def test_a_wrong_token_is_nobody(client: Client) -> None:
    answered = client.get(f"{API}/stats", headers=bearer("wrong"))
    assert answered.status_code == 401
    assert answered.headers["www-authenticate"] == "Bearer"
    assert client.get(f"{API}/stats", headers={"Authorization": f"Basic {OPERATOR}"}).status_code == 401


@pytest.mark.parametrize(
    "host",
    ["evil.com", "127.0.0.1.evil.com", "localhost:80@evil.com", "localhost.evil.com:80", "", "[::1", "localhost:x"],
)
def test_another_host_name_is_not_answered(client: Client, host: str) -> None:
    answered = client.get(f"{API}/stats", headers={"Host": host, **bearer(OPERATOR)})
    assert answered.status_code == 400
    assert "not known by that name" in answered.json()["error"]


@pytest.mark.parametrize("host", ["localhost", "localhost:3001", "127.0.0.1:3001", "[::1]:3001", "Page.Example.Org"])
def test_its_own_host_names_are(platform: Platform, host: str) -> None:
    platform.configure(web={"allowed_hosts": ["page.example.org"]})
    with asking(platform.app(), ORIGIN) as client:
        assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_session_changes_with_its_csrf_token_only(client: Client) -> None:
    csrf = log_in(client)
    assert client.get(f"{API}/session").json() == {"success": True, "role": "operator", "csrf_token": csrf}
    for headers in ({}, {"X-CSRF-Token": "guessed"}):
        assert client.post(f"{API}/policies", json=CHANGE, headers=headers).status_code == 403
    assert days_of(client) == 7
    assert client.post(f"{API}/policies", json=CHANGE, headers={"X-CSRF-Token": csrf}).status_code == 200
    assert days_of(client) == 9


@pytest.mark.parametrize(
    "foreign",
    [
        {"Origin": "http://evil.com"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.com"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_a_page_of_another_origin_changes_nothing(client: Client, foreign: dict[str, str]) -> None:
    csrf = log_in(client)
    headers = {"X-CSRF-Token": csrf, **foreign}
    answered = client.post(f"{API}/policies", json=CHANGE, headers=headers)
    assert (answered.status_code, answered.json()["error"]) == (403, "the request comes from a page of another origin")
    assert client.post("/login", json={"token": OPERATOR}, headers=foreign).status_code == 403
    assert days_of(client) == 7


def test_only_json_changes_something(client: Client) -> None:
    body = '{"data_type": "dbt_logs", "retention_days": 9}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        headers = {**bearer(OPERATOR), "Content-Type": kind}
        assert client.post(f"{API}/policies", content=body, headers=headers).status_code == 415
    assert days_of(client) == 7


def test_a_cookie_tells_scripts_and_other_sites_nothing(client: Client, platform: Platform) -> None:
    cookie = client.post("/login", json={"token": VIEWER}).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=28800"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    encrypted = asking(platform.app(), "https://localhost")
    assert "Secure" in encrypted.post("/login", json={"token": VIEWER}).headers["set-cookie"]


def test_a_login_ends_the_session_before_it(client: Client) -> None:
    log_in(client)
    first = client.cookies["cleanup_session"]
    log_in(client)
    assert client.cookies["cleanup_session"] != first
    client.cookies.set("cleanup_session", first)
    assert client.get(f"{API}/stats").status_code == 401


def test_logging_out_ends_the_session(client: Client) -> None:
    csrf = log_in(client, VIEWER)
    kept = client.cookies["cleanup_session"]
    assert client.post("/logout").status_code == 403
    assert client.post("/logout", headers={"X-CSRF-Token": csrf}).status_code == 200
    client.cookies.set("cleanup_session", kept)
    assert client.get(f"{API}/stats").status_code == 401


def test_a_session_ends_after_eight_hours(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(client)
    late = time.monotonic() + 8 * 3_600 + 1
    monkeypatch.setattr("cleanup_dagster.web.auth.time.monotonic", lambda: late)
    assert client.get(f"{API}/stats").status_code == 401


def test_five_wrong_tokens_a_minute(client: Client) -> None:
    for _ in range(5):
        assert client.post("/login", json={"token": "wrong"}).status_code == 401
    answered = client.post("/login", json={"token": OPERATOR})
    assert answered.status_code == 429
    assert 0 < int(answered.headers["retry-after"]) <= 60
    # Scripts with the right token go on; wrong ones are told to wait.
    assert client.get(f"{API}/stats", headers=bearer(OPERATOR)).status_code == 200
    assert client.get(f"{API}/stats", headers=bearer("wrong")).status_code == 429


def test_changes_are_counted(platform: Platform) -> None:
    with asking(platform.app(Rates(changes=3)), ORIGIN, headers=bearer(OPERATOR)) as client:
        codes = [client.post(f"{API}/policies", json=CHANGE).status_code for _ in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        assert client.get(f"{API}/stats").status_code == 200


def test_every_answer_carries_the_headers(client: Client) -> None:
    answers = [
        client.get("/healthz"),
        client.get(f"{API}/stats"),
        client.get("/nothing", headers=bearer(VIEWER)),
        client.get("/healthz", headers={"Host": "evil.com"}),
        client.get("/login"),
        client.get("/docs", headers=bearer(VIEWER)),
    ]
    for answered in answers:
        policy = answered.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'")
        assert "unsafe" not in policy
        assert answered.headers["x-content-type-options"] == "nosniff"
        assert answered.headers["referrer-policy"] == "no-referrer"
        assert answered.headers["cross-origin-resource-policy"] == "same-origin"
        assert answered.headers["cache-control"] == "no-store"
        assert "server" not in answered.headers
    assert client.get("/static/docs.js").headers["cache-control"] == "no-cache"


def test_a_body_is_bounded(operator: Client) -> None:
    def endless() -> "object":
        for _ in range(100):
            yield b" " * 1024

    headers = {"Content-Type": "application/json"}
    assert operator.post(f"{API}/policies", content=b" " * 65_537, headers=headers).status_code == 413
    assert operator.post(f"{API}/policies", content=endless(), headers=headers).status_code == 413  # pyright: ignore[reportArgumentType]
    assert operator.post(f"{API}/policies", content=b" " * 65_000, headers=headers).status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        '{"data_type": "dbt_logs", "retention_days": true}',
        '{"data_type": "dbt_logs", "retention_days": "7"}',
        '{"data_type": "dbt_logs", "retention_days": 7.0}',
        '{"data_type": "dbt_logs", "retention_days": 0}',
        '{"data_type": "dbt_logs", "retention_days": 1e400}',
        '{"data_type": "dbt_logs", "retention_days": NaN}',
        '{"data_type": "dbt_logs", "retention_days": 1' + "0" * 400 + "}",
        '{"data_type": "dbt_logs", "retention_days": 1' + "0" * 5_000 + "}",
        '{"data_type": "dbt_logs", "enabled": 1}',
        '{"data_type": "dbt_logs", "enabled": "false"}',
        '{"data_type": "dbt_logs", "retention_days": 9, "days": 9}',
        '{"data_type": "dbt_logs\\n", "retention_days": 9}',
        '{"data_type": "nothing", "retention_days": 9}',
        '{"data_type": "dbt_logs"}',
        '{"data_type": "dbt_logs", "keep_last": 99999999999}',
        '["dbt_logs"]',
        "[" * 30_000,
        '{"data_type": "dbt_logs", "retention_days": 9',
        "",
        "\xff",
    ],
)
def test_what_is_not_exactly_right_is_refused(operator: Client, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    answered = operator.post(f"{API}/policies", content=body.encode("latin-1"), headers=headers)
    assert answered.status_code in {400, 404, 422}, answered.text
    assert answered.json()["success"] is False
    assert "Traceback" not in answered.text
    assert days_of(operator) == 7


def test_no_answer_repeats_a_token(client: Client) -> None:
    for body in ({"token": {"x": "a-secret-of-somebody"}}, {"token": "a-secret-of-somebody" * 99}):
        answered = client.post("/login", json=body)
        assert answered.status_code == 422
        assert "a-secret" not in answered.text


def test_a_bug_is_answered_with_a_number(
    operator: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("postgresql://user:hunter2@db/x")

    monkeypatch.setattr("cleanup_dagster.web.routes.holds.of_hold", fail)
    monkeypatch.setattr("cleanup_dagster.web.platform.Platform.records", property(fail))
    answered = operator.get(f"{API}/holds")
    assert answered.status_code == 500
    assert "hunter2" not in answered.text
    assert answered.json()["error"].rsplit(" ", 1)[1] in caplog.text


def test_tokens_are_made_once_and_kept_for_us_alone(platform: Platform) -> None:
    for name in ("CLEANUP_WEB_OPERATOR_TOKEN", "CLEANUP_WEB_VIEWER_TOKEN"):
        del platform.environ[name]
    (platform.home / "state").mkdir(mode=0o700)
    first, second = tokens_of(platform.settings()), tokens_of(platform.settings())
    assert (len(first.fresh) >= 43, second.fresh, first.digests == second.digests) == (True, "", True)
    assert (platform.home / "state" / "web_tokens.json").stat().st_mode & 0o777 == 0o600
    with asking(create_app(platform.settings(), second), ORIGIN) as client:
        assert client.get(f"{API}/session", headers=bearer(first.fresh)).json()["role"] == "operator"


def test_nobody_overwrites_what_somebody_else_changed_meanwhile(operator: Client) -> None:
    def policy() -> dict[str, Any]:
        return next(p for p in operator.get(f"{API}/policies").json()["policies"] if p["data_type"] == "dbt_logs")

    def change(if_match: str, days: int) -> tuple[int, dict[str, Any]]:
        body = {"data_type": "dbt_logs", "retention_days": days}
        answered = operator.post(f"{API}/policies", json=body, headers={"If-Match": if_match})
        if answered.status_code == 200:
            assert answered.headers["ETag"] == f'"{policy()["version"]}"'
        return answered.status_code, answered.json()

    seen = policy()["version"]
    assert change(f'"{seen}"', 9)[0] == 200
    for stale in (f'"{seen}"', f'W/"{policy()["version"]}"', '""', "no version"):
        status, answered = change(stale, 11)
        assert (status, answered["success"], answered["policy"]) == (412, False, policy())
        assert answered["error"] == "dbt_logs was changed by somebody else meanwhile; now it is kept for 9 days, on"
    assert days_of(operator) == 9
    assert change(f'"{seen}", "{policy()["version"]}"', 12)[0] == 200
    assert change("*", 13)[0] == 200
    assert operator.post(f"{API}/policies", json=CHANGE).status_code == 200  # the last one wins, as before


def test_what_was_changed_names_who_changed_it(operator: Client, platform: Platform) -> None:
    operator.post(f"{API}/policies", json=CHANGE)
    csrf = log_in(operator)
    operator.headers.pop("Authorization")
    hold = {"pattern": f"{platform.ops}/**", "reason": "audit"}
    assert operator.post(f"{API}/holds", json=hold, headers={"X-CSRF-Token": csrf}).status_code == 201
    assert operator.get(f"{API}/holds").json()["holds"][0]["placed_by"] == "operator via login from testclient"
    settings = platform.settings()
    from sqlalchemy import create_engine, text

    engine = create_engine(f"sqlite:///{settings.state_dir / 'cleanup.db'}")
    with engine.connect() as conn:
        ((who, old, new),) = conn.execute(text("SELECT changed_by, old, new FROM cleanup_policy_changes"))
    engine.dispose()
    assert who == "operator via token from testclient"
    assert ('"retention_days":7' in old, '"retention_days":9' in new) == (True, True)
