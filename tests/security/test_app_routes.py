"""Attacks on each route of both apps, which are enumerated from the running apps."""

import contextlib
import json
import re
import socket
from types import SimpleNamespace

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from supervisely_integration.paths import SERVE, TRAIN
from tests.app.real_app import RunningApp, create_training_task, make_project
from tests.conftest import ROOT
from tests.sdk import import_sdk

import_sdk()

from supervisely_integration.local.instance import LocalInstance  # noqa: E402

EVIL = "http://evil.example"
# Lists the routes that answer without the page's cookie, and who calls them.
DECISION = ROOT / "docs" / "decisions" / "0021-access-policy-of-the-apps.md"
# Their error does not depend on the state: no model is deployed, or no token is sent.
WITHOUT_MODEL = {
    "/get_model_meta",
    "/get_output_classes_and_tags",
    "/smart_cache",
}
PREFIX = "/net/7"  # all routes answer with and without it
NO_POST = ("/debug", "/sly/ws", "/sly-app-ws")
JSON = {"Content-Type": "application/json"}


class ListedApp(RunningApp):
    """An app that writes its routes to a file."""

    def _start(self, module, environment):
        return super()._start(["tests.security.listed_app", *module[1:]], environment)


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    with LocalInstance(tmp_path_factory.mktemp("attacked")) as running:
        yield running


@pytest.fixture(scope="module", params=["train", "serve"])
def app(request, instance, tmp_path_factory):
    """A running app, its routes, and a browser that has opened its page."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "train":
        project_id = make_project(instance.store, folder / "digits", name="attacked")
        task_id = create_training_task(instance.store)
        options = {"project_id": project_id, "app_dir": TRAIN, "variable": "train"}
    else:
        task_id = instance.store.tasks.create(app={"id": 2, "name": "Serve", "version": "1"})
        options = {"app_dir": SERVE, "variable": "model"}
    running = ListedApp(
        server_address=instance.address,
        token=instance.token,
        data_dir=folder / "data",
        task_id=task_id,
        environment={"SUPERVISELY_SERVER_PATH_PREFIX": PREFIX.strip("/")},
        **options,
    )
    with running:
        running.wait_until_ready()
        routes = json.loads((running.data_dir / "routes.json").read_text())
        assert len(routes) > 25
        running.client.get("/").raise_for_status()
        yield SimpleNamespace(
            name=request.param, running=running, routes=routes, token=instance.token
        )
        assert running.process.poll() is None  # no attack ended the app


def http_routes(app):
    """Yield method and path of each route; of a folder, a file that exists."""
    for method, path in app.routes:
        if method == "STATIC":
            yield "GET", f"{path}/__init__.py"
        elif method != "WEBSOCKET":
            yield method, re.sub(r"{[^}]+}", "1", path)


ATTACKS = {
    "foreign origin": {"Origin": EVIL},
    "opaque origin": {"Origin": "null"},
    "other port": {"Origin": "http://127.0.0.1:1"},
    "rebinding": {"Host": "evil.example"},
    "rebinding with its origin": {"Host": "evil.example", "Origin": EVIL},
    "rebinding with a port": {"Host": "localhost.evil.example:8000"},
    "image or form without origin": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "frame": {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "iframe",
    },
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_foreign_pages_reach_no_route(app, attack):
    client = app.running.client  # with the cookie of the page
    for method, path in http_routes(app):
        answer = client.request(method, path, headers=ATTACKS[attack])
        assert answer.status_code in (403, 404), (method, path)
        assert app.token not in answer.text
        if answer.status_code == 404:
            assert path == "/debug" or path.endswith(".py"), path


def url_of(app, path):
    return app.running.address + re.sub(r"{[^}]+}", "1", path)


def posts(app):
    """Yield the paths of routes that may change something."""
    return [path for method, path in app.routes if method not in ("GET", "HEAD", "STATIC")]


def test_page_routes_need_the_cookie_of_the_page(app):
    port = app.running.client.base_url.port
    open_routes = set()
    with httpx.Client() as client:
        for path in posts(app):
            statuses = {
                # Open routes refuse this body before they act.
                client.post(url_of(app, path), content=b"[", headers={**JSON, **cookie}).status_code
                for cookie in ({}, {"Cookie": f"app_page_{port}=wrong"})
            }
            if path in NO_POST:
                continue
            assert statuses in ({403}, {400}), path
            open_routes |= {path} if statuses == {400} else set()
    listed = set(re.findall(r"`(/[^`]*)`", DECISION.read_text(encoding="utf-8")))
    assert open_routes <= listed, sorted(open_routes - listed)
    assert not any(path.startswith(("/sly/", "/ButtonAutoId")) for path in open_routes)


def test_session_info_answers_only_the_page(app):
    path = "/sly/session-info"
    assert httpx.post(app.running.address + path).status_code == 403
    assert app.running.client.post(path).status_code in (200, 500)
    # 500: the SDK wants to run in Docker in production; nothing else refused the request.


def test_page_cookie_is_for_this_site_only(app):
    for path in ("/", "/try") if app.name == "serve" else ("/",):
        answer = httpx.get(app.running.address + path)
        assert re.search(
            r"app_page_\d+=[0-9a-f]{64}; HttpOnly; Path=/; SameSite=Strict",
            answer.headers["set-cookie"],
        )
        assert answer.headers["x-frame-options"] == "SAMEORIGIN"
        assert app.token not in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "path",
    [
        "/sly/css/__init__.py",
        "/sly/css/app/fastapi/subapp.py",
        "/sly/css/app/fastapi/index.html",
        "/gui/web/package.json",
        "/gui/web/.npmrc",
        "/sly/css/nn/../__init__.py",
    ],
)
def test_static_routes_serve_static_files_only(app, path):
    assert app.running.client.get(path).status_code == 404
    assert app.running.client.get("/sly/css/app/widgets/text/style.css").status_code in (200, 404)
    assert app.running.client.get("/gui/web/main.js").status_code == 200


def test_only_uploads_take_other_bodies_than_json(app):
    uploads = set()
    for path in posts(app):
        if path in NO_POST or path.startswith("/tensorboard"):
            continue
        for kind in ("text/plain", "text/plain; application/json", "", "application/jsonp"):
            answer = app.running.client.post(
                url_of(app, path), content=b"{}", headers={"Content-Type": kind}
            )
            assert answer.status_code in (415, 422), (path, kind)
            uploads |= {path} if answer.status_code == 422 else set()
    assert all(path.startswith(("/inference_", "/smart_cache_files")) for path in uploads)


BODIES = {
    "deep": (b'{"state": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "more than 64 levels"),
    "deeper than copies": (b'{"state": {"a":' + b"[" * 200 + b"]" * 200 + b"}}", "64 levels"),
    "no JSON": (b"{", "the body is not JSON"),
    "no text": (b"\xff\xfe{", "the body is not JSON"),
    "half a surrogate": (b'{"state": {"a": "\\ud800"}}', "the body is not JSON"),
    "NaN": (b'{"state": {"a": NaN}}', "the body is not JSON"),
    "list": (b"[]", "the body is a list"),
    "null": (b"null", "the body is a NoneType"),
    "state": (b'{"state": null}', "state is a NoneType; send an object"),
    "context": (b'{"context": 5}', "context is a int; send an object"),
    "token": (b'{"api_token": [], "state": {}}', "api_token is a list; send a string"),
}


@pytest.mark.parametrize("body", BODIES)
def test_malformed_bodies_are_refused_by_every_route(app, body):
    content, message = BODIES[body]
    for path in posts(app):
        if path in NO_POST:
            continue
        answer = app.running.client.post(url_of(app, path), content=content, headers=JSON)
        assert answer.status_code == 400, path
        assert message in answer.json()["message"]


def test_missing_state_is_a_client_error(app):
    failed = {}
    with httpx.Client(timeout=60) as client:  # without the page's cookie: open routes only
        for path in set(posts(app)) - WITHOUT_MODEL:
            for body in ({}, {"json": {}}, {"json": {"state": {}}}):
                answer = client.post(url_of(app, path), **body)
                if answer.status_code >= 500 and path != "/is_ready":  # 503: no model
                    failed[path] = answer.text
    assert failed == {}


def test_large_body_is_refused_before_it_is_read(app):
    """With the length in the header, and in chunks."""
    head = "POST /is_ready HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    address = ("127.0.0.1", app.running.client.base_url.port)
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(f"{head}Content-Length: 120000000\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 413")  # although nothing was sent
    sent = 0
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        client.settimeout(0)
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        answer = b""
        while not answer and sent < 120_000_000:
            client.settimeout(5)
            client.sendall(chunk)
            sent += 65536
            client.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                answer = client.recv(1000)
        assert answer.startswith(b"HTTP/1.1 413")
    assert sent < 40 * 2**20


def test_websockets_are_for_the_page_only(app):
    address = app.running.address.replace("http", "ws")
    cookie = "; ".join(f"{k}={v}" for k, v in app.running.client.cookies.items())
    sockets = [path for kind, path in app.routes if kind == "WEBSOCKET"]
    assert "/sly/ws" in sockets
    for path in sockets:
        for headers, origin in (
            ({}, None),
            ({}, app.running.address),
            ({"Cookie": cookie}, EVIL),
        ):
            with pytest.raises(InvalidStatus, match="403"):
                connect(address + path, additional_headers=headers, origin=origin)
        rebound = socket.create_connection(("127.0.0.1", app.running.client.base_url.port))
        with rebound, pytest.raises(InvalidStatus, match="403"):
            connect(
                f"ws://evil.example{path}",
                sock=rebound,
                origin=EVIL,
                additional_headers={"Cookie": cookie},
            )
        own = {"Cookie": cookie}
        connect(address + path, additional_headers=own, origin=app.running.address).close()


def test_links_open_the_page(app):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = httpx.get(app.running.address, headers={**link, "Sec-Fetch-Dest": "document"})
    assert answer.status_code == 200


def test_routes_answer_and_are_protected_below_the_prefix(app):
    client = app.running.client
    for path in ("/", "/gui/web/main.js", "/livez"):
        assert client.get(PREFIX + path).status_code == 200, path
        assert client.get(PREFIX + path).content == client.get(path).content, path
    assert client.get("/net/77/livez").status_code == 404
    assert len(client.post(f"{PREFIX}/sly/data").json()) > 10
    address = app.running.address.replace("http", "ws")
    own = {"Cookie": "; ".join(f"{k}={v}" for k, v in client.cookies.items())}
    socket_path = f"{PREFIX}/sly/ws"
    connect(address + socket_path, additional_headers=own, origin=app.running.address).close()

    assert httpx.post(f"{app.running.address}{PREFIX}/sly/data", json={}).status_code == 403
    assert client.get(f"{PREFIX}/debug").status_code == 404
    assert client.get(f"{PREFIX}/sly/css/__init__.py").status_code == 404
    assert client.get(f"{PREFIX}/livez", headers={"Origin": EVIL}).status_code == 403
    if app.name == "serve":
        deployment = {"state": {"deploy_params": {}}}
        answer = client.post(f"{PREFIX}/deploy_from_api", json=deployment)
        assert (answer.status_code, "model_source" in answer.text) == (400, True)
