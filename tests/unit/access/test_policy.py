"""The policy on this machine and behind a platform."""

import pytest
from starlette.requests import HTTPConnection

from supervisely_integration.access.policy import AccessPolicy

PLATFORM = {
    "ENV": "production",
    "SERVER_ADDRESS": "https://platform.example",
    "APP_ALLOWED_HOSTS": "other.example, ",
}
LOCAL = {**PLATFORM, "SERVER_ADDRESS": "http://127.0.0.1:8765"}


def policy(environment):
    return AccessPolicy.from_environment(environment, lambda name: name == "Button1")


def status(environment, path="/is_ready", method="POST", **headers):
    """Return the status of the refusal, 200 if there is none."""
    headers = {"host": "10.0.0.5:8000", **headers}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ],
        "query_string": b"",
    }
    refusal = policy(environment).refusal(HTTPConnection(scope))
    return refusal.status if refusal else 200


@pytest.mark.parametrize(
    "path", ["/sly/session-info", "/sly/shutdown", "/Button1/clicked", "/sly/ws"]
)
def test_platform_calls_page_routes_without_a_cookie(path):
    for origin in ("https://platform.example", "https://other.example"):
        assert status(PLATFORM, path, host="task-7.internal", origin=origin) == 200
    forwarded = {"x_forwarded_host": "public.example", "origin": "https://public.example"}
    assert status(PLATFORM, path, host="task-7.internal", **forwarded) == 200
    assert status(PLATFORM, path, host="task-7.internal") == 200
    assert status(PLATFORM, path, host="task-7.internal", origin="https://evil.example") == 403
    assert status(LOCAL, path) == 403


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:8000", 200),
        ("app.localhost", 200),
        ("[::1]:8000", 200),
        ("192.168.0.7", 200),
        ("other.example", 200),
        ("OTHER.example:80", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_hosts_on_this_machine(host, expected):
    assert status(LOCAL, host=host) == expected


def test_origin_must_have_the_same_port():
    assert status(LOCAL, origin="http://10.0.0.5:8000") == 200
    assert status(LOCAL, origin="http://10.0.0.5:8001") == 403
    assert status(LOCAL, origin="http://[") == 403


@pytest.mark.parametrize("environment", [LOCAL, PLATFORM, {}])
def test_debugger_exists_only_with_the_flag(environment):
    for path in ("/debug", "/debug/"):
        assert status(environment, path) == 404
        assert status({**environment, "APP_DEBUG": "1"}, path) == 200
    for prefix in ("/net", "net", "net/"):
        prefixed = {**environment, "SUPERVISELY_SERVER_PATH_PREFIX": prefix}
        assert status(prefixed, "/net/debug") == 404
        assert status(prefixed, "/debug") == 404
        assert status(prefixed, "/netdebug") == 200  # no route


def test_cookie_is_the_same_after_a_restart_and_does_not_reveal_the_token():
    first, second = policy({"API_TOKEN": "secret"}), policy({"API_TOKEN": "secret"})
    assert first.page_token == second.page_token != policy({"API_TOKEN": "other"}).page_token
    assert "secret" not in first.page_token
    assert "page_token" not in repr(first)
    assert policy({}).page_token != policy({}).page_token
