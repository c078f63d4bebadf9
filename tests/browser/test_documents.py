"""The page's copy of the app's data, with changes that arrive during a request."""

import asyncio
import threading

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from supervisely_integration.gui.libraries import PACKAGES, WEB, missing_libraries

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing_libraries()), reason="no page libraries: make page"),
]
PAGE = """<!doctype html><link rel="icon" href="data:,">
<script src="./packages/fast-json-patch/dist/fast-json-patch.min.js"></script>
<script type="module">
  import { Documents } from "./web/documents.js";
  window.view = { data: null, state: null };
  window.documents = new Documents(window.view);
  window.documents.connect();
</script>"""


class ChangingApp:
    """A server with the SDK's protocol whose data change during the first request."""

    def __init__(self):
        self.data = {"rows": ["first"], "status": "training", "chosen": [1, 2]}
        self.sockets = []
        self.asked = 0
        self.app = Starlette(
            routes=[
                Route("/", lambda request: HTMLResponse(PAGE)),
                Route("/sly/data", self.send_data, methods=["POST"]),
                Route("/sly/state", lambda request: JSONResponse({}), methods=["POST"]),
                WebSocketRoute("/sly/ws", self.listen),
                Mount("/packages", StaticFiles(directory=PACKAGES)),
                Mount("/web", StaticFiles(directory=WEB)),
            ]
        )

    async def listen(self, socket):
        await socket.accept()
        self.loop = asyncio.get_running_loop()
        self.sockets.append(socket)
        await socket.receive()

    async def change(self, *patch):
        for socket in self.sockets:
            await socket.send_json({"data": patch})

    async def send_data(self, request):
        self.asked += 1
        answer = JSONResponse(self.data)  # before the change
        if self.asked == 1:
            self.data = {**self.data, "rows": ["first", "second"], "status": "done"}
            await self.change(
                {"op": "add", "path": "/rows/1", "value": "second"},
                {"op": "replace", "path": "/status", "value": "done"},
            )
            await asyncio.sleep(0.2)  # the change arrives before the response
        return answer


@pytest.fixture
def changing():
    """The app, and its address."""
    app = ChangingApp()
    config = uvicorn.Config(app.app, port=0, log_level="warning", lifespan="off", ws="websockets")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    app.address = "http://{}:{}".format(*server.servers[0].sockets[0].getsockname())
    yield app
    server.should_exit = True
    thread.join(10)


def test_change_during_a_request_is_kept(changing, new_page):
    page = new_page()
    page.goto(changing.address)
    page.wait_for_function("window.view?.data?.status === 'done'")
    assert page.evaluate("window.view.data.rows") == ["first", "second"]
    assert page.evaluate("window.documents.base.data") == changing.data
    assert page.evaluate("window.view.connection") == "open"
    assert changing.asked == 2
    page.goto("about:blank")  # the page would report the stopped app


def test_unchanged_values_keep_their_identity(changing, new_page):
    changing.asked = 1  # no change during the first request
    page = new_page()
    page.goto(changing.address)
    page.wait_for_function("window.view?.connection === 'open'")
    page.evaluate("window.before = {...window.view.data}")
    patch = [
        {"op": "add", "path": "/rows/1", "value": {"number": 2}},
        {"op": "move", "from": "/status", "path": "/state"},
    ]
    asyncio.run_coroutine_threadsafe(changing.change(*patch), changing.loop).result(5)
    page.wait_for_function("window.view.data.state === 'training'")
    rows = ["first", {"number": 2}]
    expected = {"rows": rows, "state": "training", "chosen": [1, 2]}
    assert page.evaluate("window.view.data") == expected
    assert page.evaluate("before.rows") == ["first"]
    kept = "Object.keys(before).filter((key) => before[key] === view.data[key])"
    assert page.evaluate(kept) == ["chosen"]
    # The page's own changes do not affect the base copy.
    page.evaluate("window.view.data.rows[1].number = 3")
    assert page.evaluate("window.documents.base.data.rows") == rows
    page.goto("about:blank")  # the page would report the stopped app


def test_failed_patch_keeps_the_text_of_other_widgets(changing, new_page):
    page = new_page()
    page.goto(changing.address)
    page.wait_for_function("window.view.state && window.documents.isFetching === false")
    kept = page.evaluate(
        """() => {
          const { view, documents } = window;
          documents.base.state = { editor: { text: "old" }, table: { rows: [1, 2] } };
          view.state = { editor: { text: "typed" }, table: {} };  // the rows are deselected
          documents.pending = [{ state: [{ op: "replace", path: "/table/rows/1", value: 3 }] }];
          documents.flush();
          return view.state;
        }"""
    )
    assert kept == {"editor": {"text": "typed"}, "table": {"rows": [1, 3]}}
    page.goto("about:blank")  # the page would report the stopped app


def test_changes_of_the_app_are_told_from_those_of_a_person(changing, new_page):
    page = new_page()
    page.goto(changing.address)
    page.wait_for_function("window.view.state && window.documents.isFetching === false")
    changed = page.evaluate(
        """() => {
          const { view, documents } = window;
          documents.base.state = { split: { ids: [1] }, name: { text: "a" } };
          view.state = { split: { ids: [1] }, name: { text: "a" } };
          documents.pending = [{ state: [{ op: "add", path: "/split/ids/1", value: 2 }] }];
          documents.flush();
          view.state.name.text = "b";
          const isChanged = ["split", "name", "other"].map((name) => documents.isChanged(name));
          return [view.state.split.ids, ...isChanged];
        }"""
    )
    assert changed == [[1, 2], False, True, True]
    page.goto("about:blank")  # the page would report the stopped app
