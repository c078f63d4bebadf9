"""Routes that check a request before they accept it.

The SDK's routes (supervisely/nn/inference/inference.py, cache.py) answer 200 and fail in the
background, where only the log shows the reason.
"""

import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from fastapi import BackgroundTasks, FastAPI, Form, HTTPException, Request, Response, UploadFile
from supervisely.nn.inference.inference import Inference

from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.text import counted, parse_json

logger = logging.getLogger(__name__)

_MAX_FRAMES = 100_000  # of a request
_STARTED = {"message": "Cache task started."}


def check_cache_state(state: object) -> int:
    """Check which images, frames or video a request wants to be loaded ahead.

    Returns:
        The number of files.

    Raises:
        ConfigError: naming the key.
    """
    if not isinstance(state, Mapping):
        raise ConfigError("state: give an object")
    for key, kind in (("image_ids", int), ("image_hashes", str)):
        if key in state:
            return len(_list_of(state, key, kind))
    if "video_id" not in state:
        raise ConfigError("state: give image_ids, image_hashes or video_id")
    _whole_number(state, "video_id")  # the name of a file
    if "frame_ranges" in state:
        ranges = _list_of(state, "frame_ranges", list)
        if not all([type(n) is int for n in pair] == [True, True] for pair in ranges):
            raise ConfigError("frame_ranges: give a list of [first, last]")
        count = sum(abs(first - last) + 1 for first, last in ranges)
    elif "frame_indexes" in state:
        count = len(_list_of(state, "frame_indexes", int))
    else:
        return 1
    if count > _MAX_FRAMES:
        raise ConfigError(f"{count:,} frames; load at most {_MAX_FRAMES:,} in a request")
    return count


def _list_of(state: Mapping[str, Any], key: str, kind: type) -> list[Any]:
    values = state[key]
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise ConfigError(f"{key} = {values!r}: give a list of {kind.__name__}")
    return values


def _whole_number(state: Mapping[str, Any], key: str) -> int:
    value = state[key]
    if type(value) is not int:
        raise ConfigError(f"{key} = {value!r}: give an integer")
    return value


def replace_unchecked_routes(
    server: FastAPI, model: Inference, remove: Callable[[list[str]], list[Any]]
) -> None:
    """Replace the SDK's routes.

    Args:
        server: of the app.
        model: that it serves.
        remove: removes the routes of paths and returns them.
    """
    remove(["/smart_cache", "/smart_cache_files"])
    (project_route,) = remove(["/inference_project_id_async"])
    (video_route,) = remove(["/inference_video_async"])
    remove(["/get_model_meta", "/get_output_classes_and_tags"])

    @server.post("/smart_cache")
    def cache(request: Request, task: BackgroundTasks) -> Any:
        state = request.state.state
        check_cache_state(state)
        api = _api(model, request)
        task.add_task(_logged, model.cache.cache_task, api=api, state=state)
        return _STARTED

    @server.post("/smart_cache_files")
    def cache_files(
        task: BackgroundTasks, files: list[UploadFile], settings: str = Form("{}")
    ) -> Any:
        state = parse_json(settings)
        count = check_cache_state(state)
        if count != len(files):
            raise HTTPException(400, f"{counted(len(files), 'file')} for {counted(count, 'image')}")
        task.add_task(_logged, model.cache.cache_files_task, files=files, state=state)
        return _STARTED

    @server.post("/inference_project_id_async")
    def project(response: Response, request: Request) -> Any:
        state = request.state.state
        model.validate_inference_state(state)
        key = "projectId" if "projectId" in state else "project_id"
        if key not in state:
            raise ConfigError("projectId: give the id of a project")
        number = _whole_number(state, key)
        if _api(model, request).project.get_info_by_id(number) is None:
            raise ConfigError(
                f"{key} = {number}: no such project, or no access to it; give another id"
            )
        return project_route.endpoint(response=response, request=request)

    @server.post("/inference_video_async")
    def video(files: list[UploadFile], settings: str = Form("{}"), state: str = Form("{}")) -> Any:
        # The SDK stores the file under this name.
        suffix = PurePosixPath(files[0].filename or "").suffix
        files[0].filename = secrets.token_hex(16) + (suffix if suffix[1:].isalnum() else "")
        return video_route.endpoint(files=files, settings=settings, state=state)

    @server.post("/get_model_meta")
    @server.post("/get_output_classes_and_tags")
    @model._check_serve_before_call
    def meta() -> Any:
        return model.model_meta.to_json()


def _api(model: Inference, request: Request) -> Any:
    api = model.api_from_request(request)
    if api is None:
        raise ConfigError("api_token: give server_address and api_token of the platform")
    return api


def _logged(function: Callable[..., None], **arguments: Any) -> None:
    """Call a function after the response was sent; an exception would close the connection."""
    try:
        function(**arguments)
    except Exception:  # noqa: BLE001 (the platform or a decoder)
        logger.warning("Images could not be loaded ahead", exc_info=True)
