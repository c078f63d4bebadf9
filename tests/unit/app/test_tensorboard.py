"""TensorBoard is started by the first request to it."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from supervisely_integration.sdk import tensorboard
from supervisely_integration.sdk.tensorboard import start_when_opened


class Board:
    """Stands in for `TrainApp.start_tensorboard`: listens, and adds the route of the SDK."""

    def __init__(self, server, error=None):
        self.server, self.error, self.ports, self.listener = server, error, [], None

    def start(self, port):
        self.ports.append(port)
        if self.error:
            raise self.error
        if self.listener is None:
            self.listener = socket.create_server(("127.0.0.1", port))

            @self.server.get("/tensorboard/{path:path}")
            def forward(path: str):
                return f"forwarded {path}"


@pytest.fixture
def board():
    server = FastAPI()
    made = Board(server)
    start_when_opened(server, made.start)
    yield made
    if made.listener is not None:
        made.listener.close()


def test_first_requests_start_it_once(board):
    client = TestClient(board.server)
    assert client.get("/other").status_code == 404
    assert board.ports == []
    with client, ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(client.get, [f"/tensorboard/a/{n}" for n in range(4)]))
    assert [answer.json() for answer in answers] == [f"forwarded a/{n}" for n in range(4)]
    assert len(board.ports) == 1
    assert client.get("/tensorboard/").json() == "forwarded "
    assert len(board.ports) == 1


def test_failed_start_is_reported_and_repeated(board):
    client = TestClient(board.server)
    board.error = FileNotFoundError("no tensorboard")
    answer = client.get("/tensorboard/")
    assert answer.status_code == 503
    assert answer.json()["message"] == "TensorBoard could not be started: no tensorboard"
    board.error = None
    assert client.get("/tensorboard/").json() == "forwarded "
    assert len(board.ports) == 2


def test_second_training_replaces_the_first(board):
    second = Board(board.server)
    start_when_opened(board.server, second.start)
    assert TestClient(board.server).get("/tensorboard/").json() == "forwarded "
    second.listener.close()
    assert (board.ports, len(second.ports)) == ([], 1)


def test_process_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(tensorboard, "_STARTUP_S", 0.2)
    server = FastAPI()
    start_when_opened(server, lambda port: None)
    answer = TestClient(server).get("/tensorboard/")
    assert answer.status_code == 503
    assert "no answer on port" in answer.json()["message"]
