import pytest
import supervisely as sly
from fastapi import FastAPI
from starlette.testclient import TestClient

from supervisely_integration.gui import libraries, page

SECRET = "token-of-a-test"


@pytest.fixture
def server(monkeypatch):
    """A server with a page of the platform's, on this machine's instance."""
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
    """Libraries that are there, as empty files."""
    monkeypatch.setattr(libraries, "PACKAGES", tmp_path)
    monkeypatch.setattr(page, "PACKAGES", tmp_path)
    for name in (*libraries.SCRIPTS, *libraries.STYLES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("/* library */")


def test_everything_that_the_page_loads_is_served_by_the_app(server, built):
    assert page.serve_own_page(server)
    client = TestClient(server)
    answer = client.get("/")
    assert "Train &lt;me&gt;" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    addresses = page_addresses(answer.text)
    assert len(addresses) == len(libraries.SCRIPTS) + len(libraries.STYLES) + 2
    assert all(address.startswith("./gui/") for address in addresses)
    assert {client.get(address[1:]).status_code for address in addresses} == {200}
    assert client.get("/gui/web/../page.py").status_code == 404
    assert client.get("/", params={"ping": "1"}).json() == {"message": "App is running"}


def page_addresses(html: str) -> list[str]:
    words = html.replace("'", '"').split('"')
    pairs = zip(words, words[1:], strict=False)
    return [v for k, v in pairs if k.endswith(("src=", "href=")) and not v.startswith("data:")]


def test_without_the_libraries_the_page_says_what_to_do(server, monkeypatch, tmp_path):
    monkeypatch.setattr(libraries, "PACKAGES", tmp_path)
    assert page.serve_own_page(server)
    answer = TestClient(server).get("/")
    assert "make page" in answer.text
    assert "npm" in answer.text


def test_the_platform_keeps_its_page(server, built, monkeypatch):
    monkeypatch.setenv("SERVER_ADDRESS", "https://platform.example")
    monkeypatch.setattr("supervisely_integration.gui.choice.is_reachable", lambda address: True)
    assert not page.serve_own_page(server)
    assert TestClient(server).get("/").json() == "platform"


def test_a_platform_out_of_reach_of_its_scripts_gets_ours_without_the_token(
    server, built, monkeypatch
):
    monkeypatch.setenv("SERVER_ADDRESS", "https://platform.example")
    monkeypatch.setattr("supervisely_integration.gui.choice.is_reachable", lambda address: False)
    assert page.serve_own_page(server)
    text = TestClient(server).get("/").text
    assert 'data-instance=""' in text
    assert SECRET not in text


def test_a_platform_keeps_its_page_if_there_is_no_other(server, monkeypatch, tmp_path):
    monkeypatch.setenv("SERVER_ADDRESS", "https://platform.example")
    monkeypatch.setattr(libraries, "PACKAGES", tmp_path)
    monkeypatch.setattr("supervisely_integration.gui.choice.is_reachable", lambda address: False)
    assert not page.serve_own_page(server)
    assert TestClient(server).get("/").json() == "platform"


def test_an_address_may_lack_its_scheme_as_the_sdk_allows(
    server, built, web, tmp_path, monkeypatch
):
    monkeypatch.setenv("SERVER_ADDRESS", f"{web.removeprefix('http://')}/")
    picture = tmp_path / "page" / "thumbnails" / "7"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"picture")
    assert page.serve_own_page(server)
    client = TestClient(server)
    text = client.get("/").text
    assert f'data-instance="{web}"' in text
    assert f'data-instance-page="{web}/?token={SECRET}"' in text
    assert client.get("/gui/thumbnails/7").content == b"picture"


def test_the_log_is_served_and_an_instance_that_is_gone_is_said(server, built):
    assert page.serve_own_page(server)
    sly.logger.info("a line for the window")
    client = TestClient(server)
    lines = client.get("/gui/logs").json()
    assert [line["text"] for line in lines][-1] == "a line for the window"
    assert client.get("/gui/logs", params={"after": lines[-1]["number"]}).json() == []
    assert client.get("/gui/logs", params={"after": "x"}).json() == lines
    assert client.get("/gui/thumbnails/1").status_code == 502
