"""The page of the apps, without an app."""

import http.server
import threading

import pytest

from tests.sdk import import_sdk

import_sdk()


@pytest.fixture
def web(tmp_path):
    """A web server for the test's folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path)

        def log_message(self, *args):
            """Do not log requests."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
