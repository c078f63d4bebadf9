"""Requests that the SDK accepts unchecked: rejected by name, or stored under a safe name."""

from types import SimpleNamespace

import pytest
from fastapi import FastAPI, Form, Request, Response, UploadFile
from fastapi.responses import JSONResponse
from starlette.testclient import TestClient

from rtdetrv2_pytorch.src.misc.errors import ConfigError
from supervisely_integration.serve.checked_routes import (
    check_cache_state,
    replace_unchecked_routes,
)
from supervisely_integration.serve.routes import _bad_request, _remove

PATHS = ("/smart_cache", "/smart_cache_files", "/get_model_meta", "/get_output_classes_and_tags")


class Model:
    """The part of `Inference` that the routes use."""

    def __init__(self):
        self.calls, self.api, self.is_served = [], None, False
        self.cache = SimpleNamespace(cache_task=self.load, cache_files_task=self.load)
        self.model_meta = SimpleNamespace(to_json=lambda: {"classes": []})

    def load(self, **arguments):
        self.calls.append(arguments["state"])
        raise ConnectionError("the platform is gone")

    def validate_inference_state(self, state):
        pass

    def api_from_request(self, request):
        return self.api

    def _check_serve_before_call(self, function):
        def call():
            if not self.is_served:
                raise RuntimeError("The model has not yet been deployed.")
            return function()

        return call


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def client(model):
    server = FastAPI()
    for path in PATHS:
        server.post(path)(lambda: "SDK")

    @server.post("/inference_project_id_async")
    def project(response: Response, request: Request):
        return "started"

    @server.post("/inference_video_async")
    def video(files: list[UploadFile], settings: str = Form("{}"), state: str = Form("{}")):
        return [files[0].filename, settings, state]

    @server.middleware("http")
    async def read_state(request, call_next):
        is_json = "json" in request.headers.get("content-type", "")
        request.state.state = await request.json() if is_json else {}
        return await call_next(request)

    for kind in (ConfigError, RuntimeError, ValueError):
        server.add_exception_handler(kind, _bad_request)
    replace_unchecked_routes(server, model, lambda paths: _remove(server, paths))
    return TestClient(server)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ([], "state: give an object"),
        ({}, "give image_ids, image_hashes or video_id"),
        ({"image_ids": "1"}, "image_ids = '1': give a list of int"),
        ({"image_ids": [True]}, "give a list of int"),
        ({"image_hashes": [1]}, "give a list of str"),
        ({"video_id": "../a"}, "video_id = '../a': give an integer"),
        ({"video_id": 1, "frame_ranges": [[1]]}, "frame_ranges: give a list of"),
        ({"video_id": 1, "frame_ranges": [[0, 10**12]]}, "1,000,000,000,001 frames; load at most"),
        ({"video_id": 1, "frame_indexes": [0.5]}, "frame_indexes = "),
    ],
)
def test_bad_state_of_the_cache_is_rejected_by_name(client, model, state, reason):
    model.api = object()
    files = {"files": ("a.jpg", b"x")}
    answers = [client.post("/smart_cache", json=state)]
    answers.append(
        client.post("/smart_cache_files", files=files, data={"settings": JSONResponse(state).body})
    )
    for answer in answers:
        assert (answer.status_code, reason in answer.text) == (400, True), answer.text
    assert model.calls == []


def test_cache_needs_access_and_a_file_for_each_image(client, model):
    answer = client.post("/smart_cache", json={"image_ids": [1]})
    assert (answer.status_code, "api_token" in answer.text) == (400, True)
    files = {"files": ("a.jpg", b"x")}
    answer = client.post(
        "/smart_cache_files", files=files, data={"settings": '{"image_ids":[1,2]}'}
    )
    assert (answer.status_code, "1 file for 2 images" in answer.text) == (400, True)
    answer = client.post("/smart_cache_files", files=files, data={"settings": "{"})
    assert answer.status_code == 400


def test_failure_after_the_response_is_logged(client, model, caplog):
    model.api = object()
    for state, count in (
        ({"image_ids": [1, 2]}, 2),
        ({"video_id": 3, "frame_ranges": [[1, 2], [6, 5]]}, 4),
        ({"video_id": 3}, 1),
    ):
        assert client.post("/smart_cache", json=state).json()["message"] == "Cache task started."
        assert model.calls[-1] == state
        assert check_cache_state(state) == count
    assert "the platform is gone" in caplog.text


def test_project_must_exist(client, model):
    route = "/inference_project_id_async"
    model.api = SimpleNamespace(
        project=SimpleNamespace(get_info_by_id=lambda id_: {7: "project"}.get(id_))
    )
    assert client.post(route, json={"projectId": 7}).json() == "started"
    assert client.post(route, json={"project_id": 7}).json() == "started"
    for state, reason in (
        ({}, "projectId: give the id"),
        ({"projectId": "seven"}, "projectId = 'seven': give an integer"),
        ({"projectId": 8}, "projectId = 8: no such project"),
    ):
        answer = client.post(route, json=state)
        assert (answer.status_code, reason in answer.text) == (400, True), answer.text


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("../../etc/a.mp4", ".mp4"), ("a.b/c", ""), ("x.m\x00", ""), ("é.avi", ".avi")],
)
def test_videos_are_stored_under_a_name_of_the_app(client, name, suffix):
    sent = {"files": (name, b"x")}
    stored = [
        client.post("/inference_video_async", files=sent, data={"state": "{1}"}).json()
        for _ in range(2)
    ]
    assert stored[0][0] != stored[1][0]
    assert all(len(each[0]) == 32 + len(suffix) and each[0].endswith(suffix) for each in stored)
    assert stored[0][1:] == ["{}", "{1}"]


def test_classes_without_a_deployed_model_are_an_error_of_the_client(client, model):
    for path in ("/get_model_meta", "/get_output_classes_and_tags"):
        model.is_served = False
        answer = client.post(path)
        assert (answer.status_code, "not yet been deployed" in answer.text) == (400, True)
        model.is_served = True
        assert client.post(path).json() == {"classes": []}
