"""Who may ask, and how the instance says no."""

import errno
import logging
import sqlite3
import stat

import httpx
import pytest
import requests

from supervisely_integration.local.emulator.authorization import COOKIE, instance_token
from supervisely_integration.local.emulator.storage.blobs import Incoming
from supervisely_integration.local.instance import LocalInstance

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
def test_without_the_token_nothing_is_answered(instance, headers, verb, path):
    response = httpx.request(verb, instance.address + path, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"].startswith("the token is missing or wrong")
    assert response.json()["details"]["message"] == response.json()["error"]


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}])
@pytest.mark.parametrize("path", ["/", "/?token=wrong"])
def test_people_without_the_token_read_how_to_get_in(instance, headers, path):
    response = httpx.get(instance.address + path, headers=headers)
    assert response.status_code == 401
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "This instance needs its token" in response.text
    assert instance.token not in response.text


def test_a_refused_upload_leaves_nothing(instance):
    httpx.post(
        f"{instance.address}/public/api/v3/file-storage.upload?teamId=1&path=/stolen", content=b"x"
    )
    assert instance.store.files.entries(1, "/stolen") == []


def test_the_sdk_gets_a_401_as_an_error(instance):
    import supervisely as sly

    with pytest.raises(requests.HTTPError) as caught:
        sly.Api(instance.address, "a" * 64).team.get_list()
    assert caught.value.response.status_code == 401


def test_the_page_address_hands_the_token_over_as_a_cookie(instance):
    with httpx.Client(base_url=instance.address) as browser:
        answer = browser.get("/", params={"token": instance.token})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert f"{COOKIE}={instance.token}" in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert browser.post(METHOD, json={}).json()["total"] == 1


def test_a_cookie_from_a_page_of_another_server_is_refused(instance):
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


def test_a_broken_cookie_is_no_token(instance):
    response = httpx.post(
        instance.address + METHOD, json={}, headers={"Cookie": f"{COOKIE}=x; [a]=b"}
    )
    assert response.status_code == 401


def test_the_token_is_made_once_and_only_for_the_owner(tmp_path):
    token = instance_token(tmp_path)
    assert len(token) >= 40
    assert instance_token(tmp_path) == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_two_instances_have_different_tokens(tmp_path):
    assert instance_token(tmp_path / "a") != instance_token(tmp_path / "b")


def test_the_environment_sets_the_token(tmp_path, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "from the environment")
    with LocalInstance(tmp_path) as instance:
        assert instance.token == "from the environment"
        assert instance.api().team.get_list()[0].id == 1
    assert not (tmp_path / "token").exists()


def test_an_unknown_method_is_a_404_and_a_line_in_the_log(instance, caplog):
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
        ("projects.info", {"id": "x"}, "projects.info: id = 'x': has to be a whole number"),
        ("images.bulk.add", {"datasetId": 1, "images": 3}, "field 'images' has to be a list"),
        ("teams.list", {"page": 0, "per_page": -1}, "per_page = -1: has to be a whole number"),
        ("teams.list", {"filter": [{"field": "a", "value": 1}]}, "cannot filter or sort by 'a'"),
        ("teams.list", {"filter": [{"field": "id", "operator": "~"}]}, "unknown filter operator"),
        ("teams.list", {"after": "???"}, "is no token of this instance"),
        ("datasets.add", {"projectId": 1, "name": " "}, "has to be a text that is not empty"),
        ("images.list", {}, "images.list needs projectId or datasetId"),
        ("images.list", [1], "images.list: body"),
        ("teams.list", {"filter": 5}, "teams.list: a value has a wrong form (TypeError: 'int'"),
        ("teams.info", {"id": 10**30}, "(OverflowError: Python int too large"),
        ("projects.remove.permanently", {"projects": [5]}, "(AttributeError: 'int' object"),
        ("workflow.node.add-input", {"node": {"type": "task"}}, "(KeyError: 'id')"),
        ("datasets.list", {"projectId": 1, "sort": [1]}, "(TypeError: unhashable type"),
        ("file-storage.v2.list", {"teamId": 1, "path": "/", "limit": "x"}, "(ValueError: invalid"),
        ("projects.add", {"workspaceId": 1, "name": "n", "description": [1]}, "ProgrammingError"),
    ],
)
def test_a_wrong_request_is_a_400_with_a_sentence(instance, method, body, message):
    response = httpx.post(
        f"{instance.address}/public/api/v3/{method}",
        json=body,
        headers={"x-api-key": instance.token},
    )
    assert response.status_code == 400
    assert message in response.json()["error"]
    assert response.json()["details"]["message"] == response.json()["error"]


def test_a_body_that_is_no_json_is_a_400(instance):
    response = httpx.post(
        instance.address + METHOD,
        content=b"{",
        headers={"x-api-key": instance.token, "Content-Type": "application/json"},
    )
    assert response.status_code == 400
    assert "JSON decode error" in response.json()["error"]


def test_a_full_disk_is_said_at_once(instance, monkeypatch):
    def full(self, chunk):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Incoming, "write", full)
    response = httpx.post(
        f"{instance.address}/public/api/v3/file-storage.upload",
        params={"teamId": 1, "path": "/x"},
        content=b"x",
        headers={"x-api-key": instance.token},
    )
    assert response.status_code == 507  # none of those that the SDK tries again
    assert "no space is left on the disk" in response.json()["error"]
    assert list((instance.store.root / "blobs" / "incoming").iterdir()) == []


def test_a_busy_database_is_a_503(instance, monkeypatch):
    def locked(*arguments):
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(instance.store.teams, "page", locked)
    response = httpx.post(instance.address + METHOD, headers={"x-api-key": instance.token})
    assert response.status_code == 503
    assert "the database cannot be used (database is locked)" in response.json()["error"]
