"""Pages of the serving app, without a model."""

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from supervisely_integration.gui import libraries
from tests.sdk import import_sdk

import_sdk()

from supervisely_integration.serve.pages import serve_pages  # noqa: E402


@pytest.fixture
def client(monkeypatch, tmp_path):
    """A client of a server whose model was deployed from the command line."""
    monkeypatch.setattr(libraries, "PACKAGES", tmp_path)
    server = FastAPI(openapi_url=None)
    server.get("/")(lambda: "page of the SDK")
    serve_pages(server, has_app_page=False)
    return TestClient(server)


def test_api_page_without_libraries_tells_how_to_get_them(client):
    text = client.get("/docs").text
    assert "make page" in text
    assert '<a href="./openapi.json">' in text
    assert client.get("/openapi.json").json()["openapi"] == "3.1.0"


def test_try_page_is_the_home_page_if_there_is_no_other(client):
    answer = client.get("/")
    assert answer.text == client.get("/try").text
    assert "<h1>Try an image</h1>" in answer.text
    assert '<a href="./">' not in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert client.get("/gui/web/try.js").status_code == 200
