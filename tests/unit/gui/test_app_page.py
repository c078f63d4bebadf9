import asyncio

import pytest
import supervisely as sly
from async_asgi_testclient import TestClient as SDKClient
from fastapi import FastAPI
from starlette.testclient import TestClient

from supervisely_integration.gui import app_page, documents, libraries

SECRET = "token-of-a-test"


@pytest.fixture
def server(monkeypatch):
    """A server with the platform's page, for an instance on this machine."""
    monkeypatch.setenv("SERVER_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("API_TOKEN", SECRET)
    monkeypatch.setenv("APP_NAME", "Train <me>")
    handlers = list(sly.logger.handlers)
    server = FastAPI()

    @server.get("/")
    def platform_page():
        return "platform"

    yield server
    sly.logger.handlers[:] = handlers


@pytest.fixture
def built(monkeypatch, tmp_path):
    """Installed libraries, as empty files."""
    monkeypatch.setattr(libraries, "PACKAGES", tmp_path)
    monkeypatch.setattr(documents, "PACKAGES", tmp_path)
    for name in (*libraries.SCRIPTS, *libraries.STYLES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("/* library */")


def test_page_loads_only_files_of_the_app(server, built):
    assert app_page.serve_own_page(server)
    client = TestClient(server)
    answer = client.get("/")
    assert "Train &lt;me&gt;" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    addresses = page_addresses(answer.text)
    assert len(addresses) == len(libraries.SCRIPTS) + len(libraries.STYLES) + 2
    assert all(address.startswith("./gui/") for address in addresses)
    assert {client.get(address[1:]).status_code for address in addresses} == {200}
    assert client.get("/gui/web/../app_page.py").status_code == 404
    assert client.get("/", params={"ping": "1"}).json() == {"message": "App is running"}


def test_page_is_not_rendered_for_the_requests_of_the_sdk(server, built):
    assert app_page.serve_own_page(server)
    answer = asyncio.run(SDKClient(server).get("/"))
    assert (answer.status_code, answer.json()) == (200, {"message": "This page is not stored"})


def page_addresses(html: str) -> list[str]:
    words = html.replace("'", '"').split('"')
    pairs = zip(words, words[1:], strict=False)
    return [v for k, v in pairs if k.endswith(("src=", "href=")) and not v.startswith("data:")]


def test_page_without_libraries_shows_instructions(server, monkeypatch, tmp_path):
    monkeypatch.setattr(libraries, "PACKAGES", tmp_path)
    assert app_page.serve_own_page(server)
    answer = TestClient(server).get("/")
    assert "make page" in answer.text
    assert "npm" in answer.text


def test_platform_keeps_its_page(server, built, monkeypatch):
    monkeypatch.setenv("SERVER_ADDRESS", "https://platform.example")
    monkeypatch.setattr("supervisely_integration.gui.choice.is_reachable", lambda address: True)
    assert not app_page.serve_own_page(server)
    assert TestClient(server).get("/").json() == "platform"


def test_own_page_on_a_platform_contains_no_token(server, built, monkeypatch):
    monkeypatch.setenv("SERVER_ADDRESS", "https://platform.example")
    monkeypatch.setattr("supervisely_integration.gui.choice.is_reachable", lambda address: False)
    assert app_page.serve_own_page(server)
    text = TestClient(server).get("/").text
    assert 'data-instance=""' in text
    assert SECRET not in text


def test_platform_keeps_its_page_without_libraries(server, monkeypatch, tmp_path):
    monkeypatch.setenv("SERVER_ADDRESS", "https://platform.example")
    monkeypatch.setattr(libraries, "PACKAGES", tmp_path)
    monkeypatch.setattr("supervisely_integration.gui.choice.is_reachable", lambda address: False)
    assert not app_page.serve_own_page(server)
    assert TestClient(server).get("/").json() == "platform"


def test_address_without_a_scheme(server, built, web, tmp_path, monkeypatch):
    monkeypatch.setenv("SERVER_ADDRESS", f"{web.removeprefix('http://')}/")
    picture = tmp_path / "page" / "thumbnails" / "7"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"picture")
    assert app_page.serve_own_page(server)
    client = TestClient(server)
    text = client.get("/").text
    assert f'data-instance="{web}"' in text
    assert f'data-instance-page="{web}/?token={SECRET}"' in text
    assert client.get("/gui/thumbnails/7").content == b"picture"


def test_log_lines_and_an_unreachable_instance(server, built):
    assert app_page.serve_own_page(server)
    sly.logger.info("a line for the window")
    client = TestClient(server)
    lines = client.get("/gui/logs").json()
    assert [line["text"] for line in lines][-1] == "a line for the window"
    assert client.get("/gui/logs", params={"after": lines[-1]["number"]}).json() == []
    assert client.get("/gui/logs", params={"after": "x"}).json() == lines
    assert client.get("/gui/thumbnails/1").status_code == 502
