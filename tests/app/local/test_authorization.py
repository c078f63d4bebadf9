"""The token, and the error responses."""

import errno
import logging
import re
import sqlite3
import stat

import httpx
import pytest
import requests

from supervisely_integration.local.emulator.authorization import COOKIE, instance_token
from supervisely_integration.local.emulator.server import create_app
from supervisely_integration.local.emulator.storage.blobs import Incoming
from supervisely_integration.local.instance import LocalInstance
from supervisely_integration.local.page.routes import router as page_router

METHOD = "/public/api/v3/teams.list"


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, {"x-api-key": ""}])
@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("POST", METHOD),
        ("POST", "/public/api/v3/file-storage.upload?teamId=1&path=/x"),
        ("POST", "/public/api/v3/no.such.method"),
        ("GET", "/file-storage/1"),
        ("GET", "/page/page.js"),
        ("GET", "/image-storage/1"),
    ],
)
def test_requests_without_the_token_get_401(instance, headers, verb, path):
    response = httpx.request(verb, instance.address + path, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"].startswith("the token is missing or wrong")
    assert response.json()["details"]["message"] == response.json()["error"]


def test_every_route_needs_the_token(instance):
    routes = create_app(instance.store, instance.token, [page_router]).routes
    assert len(routes) > 20
    with httpx.Client(base_url=instance.address) as client:
        for route in routes:
            path = re.sub(r"{\w+}", "1", route.path)
            for verb in route.methods:
                assert client.request(verb, path).status_code == 401, path


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}])
@pytest.mark.parametrize("path", ["/", "/?token=wrong"])
def test_page_without_token_explains_access(instance, headers, path):
    response = httpx.get(instance.address + path, headers=headers)
    assert response.status_code == 401
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "This instance needs its token" in response.text
    assert instance.token not in response.text


def test_rejected_upload_stores_nothing(instance):
    httpx.post(
        f"{instance.address}/public/api/v3/file-storage.upload?teamId=1&path=/stolen", content=b"x"
    )
    assert instance.store.files.entries(1, "/stolen") == []


def test_sdk_raises_for_401(instance):
    import supervisely as sly

    with pytest.raises(requests.HTTPError) as caught:
        sly.Api(instance.address, "a" * 64).team.get_list()
    assert caught.value.response.status_code == 401


def test_page_address_sets_the_token_cookie(instance):
    with httpx.Client(base_url=instance.address) as browser:
        answer = browser.get("/", params={"token": instance.token})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert f"{COOKIE}={instance.token}" in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert browser.post(METHOD, json={}).json()["total"] == 1


def test_cookie_from_another_origin_is_rejected(instance):
    cookies = {"Cookie": f"{COOKIE}={instance.token}"}
    for origin, status in [
        ("http://127.0.0.1:1", 401),
        ("null", 401),
        (instance.address, 200),
    ]:
        response = httpx.post(
            instance.address + METHOD, json={}, headers={**cookies, "Origin": origin}
        )
        assert response.status_code == status, origin


def test_invalid_cookie_is_rejected(instance):
    response = httpx.post(
        instance.address + METHOD, json={}, headers={"Cookie": f"{COOKIE}=x; [a]=b"}
    )
    assert response.status_code == 401


def test_token_is_created_once_with_mode_0600(tmp_path):
    token = instance_token(tmp_path)
    assert len(token) >= 40
    assert instance_token(tmp_path) == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_instances_have_different_tokens(tmp_path):
    assert instance_token(tmp_path / "a") != instance_token(tmp_path / "b")


def test_environment_sets_the_token(tmp_path, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "from the environment")
    with LocalInstance(tmp_path) as instance:
        assert instance.token == "from the environment"
        assert instance.api().team.get_list()[0].id == 1
    assert not (tmp_path / "token").exists()


def test_unknown_method_is_a_logged_404(instance, caplog):
    caplog.set_level(logging.WARNING)
    response = httpx.post(
        f"{instance.address}/public/api/v3/videos.list",
        json={},
        headers={"x-api-key": instance.token},
    )
    assert response.status_code == 404
    assert response.json()["error"] == "videos.list: this instance does not have the method"
    assert "unknown method=videos.list verb=POST" in caplog.text


@pytest.mark.parametrize(
    ("method", "body", "message"),
    [
        ("projects.info", {}, "projects.info: field 'id' is missing"),
        ("projects.info", {"id": "x"}, "projects.info: id = 'x': must be an integer"),
        ("images.bulk.add", {"datasetId": 1, "images": 3}, "field 'images' must be a list"),
        ("teams.list", {"page": 0, "per_page": -1}, "per_page = -1: must be an integer from 1"),
        ("teams.list", {"filter": [{"field": "a", "value": 1}]}, "cannot filter or sort by 'a'"),
        ("teams.list", {"filter": [{"field": "id", "operator": "~"}]}, "unknown filter operator"),
        ("teams.list", {"after": "???"}, "is not a page token"),
        ("datasets.add", {"projectId": 1, "name": " "}, "must be a string that is not blank"),
        ("images.list", {}, "images.list needs projectId or datasetId"),
        ("images.list", [1], "images.list: body"),
        ("teams.list", {"filter": 5}, "teams.list: invalid value (TypeError: 'int'"),
        ("projects.meta", {"id": 10**30}, "(OverflowError: Python int too large"),
        ("projects.remove.permanently", {"projects": [5]}, "(TypeError: 'int' object"),
        ("workflow.node.add-input", {"node": {"type": "task"}}, "(KeyError: 'id')"),
        ("datasets.list", {"projectId": 1, "sort": [1]}, "(TypeError: unhashable type"),
        ("file-storage.v2.list", {"teamId": 1, "path": "/", "limit": "x"}, "(ValueError: invalid"),
        ("projects.add", {"workspaceId": 1, "name": "n", "description": [1]}, "ProgrammingError"),
    ],
)
def test_invalid_request_is_a_400_with_a_message(instance, method, body, message):
    response = httpx.post(
        f"{instance.address}/public/api/v3/{method}",
        json=body,
        headers={"x-api-key": instance.token},
    )
    assert response.status_code == 400
    assert message in response.json()["error"]
    assert response.json()["details"]["message"] == response.json()["error"]


def test_invalid_json_is_a_400(instance):
    response = httpx.post(
        instance.address + METHOD,
        content=b"{",
        headers={"x-api-key": instance.token, "Content-Type": "application/json"},
    )
    assert response.status_code == 400
    assert "JSON decode error" in response.json()["error"]


def test_full_disk_is_a_507(instance, monkeypatch):
    def full(self, chunk):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Incoming, "write", full)
    response = httpx.post(
        f"{instance.address}/public/api/v3/file-storage.upload",
        params={"teamId": 1, "path": "/x"},
        content=b"x",
        headers={"x-api-key": instance.token},
    )
    assert response.status_code == 507  # a status that the SDK does not retry
    assert "no space left on the instance's disk" in response.json()["error"]
    assert list((instance.store.root / "blobs" / "incoming").iterdir()) == []


def test_locked_database_is_a_503(instance, monkeypatch):
    def locked(*arguments):
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(instance.store.teams, "page", locked)
    response = httpx.post(instance.address + METHOD, headers={"x-api-key": instance.token})
    assert response.status_code == 503
    assert "database error (database is locked)" in response.json()["error"]
