"""OpenAPI description of the routes that clients of the serving app use.

FastAPI cannot derive it: the SDK's routes read their body from the request.
"""

import json
from typing import Any

from ..paths import SERVE_MANIFEST

_ABOUT = """Send requests to this app from here: **Execute** sends the example, which you can edit.

- Errors have a status of 400 or more and an explanation in `message`.
- Settings: `confidence_threshold`, `nms_iou`, `classes`. They are optional.
- The header `server-timing` of a prediction contains its duration in milliseconds.
- Boxes in `points.exterior` are left, top and right, bottom in pixels; the last row and column
  belong to the box."""
_SETTINGS = {"confidence_threshold": 0.5}
_UUID = {"inference_request_uuid": "from the response of an _async route"}

_DEPLOYMENT = {
    "model_source": "Custom models",
    "model_files": {"checkpoint": "/experiments/12_cells/34_RT-DETRv2/checkpoints/best.pth"},
    "model_info": {},
    "device": "cpu",
    "runtime": "PyTorch",
}
_FILE = {"type": "string", "format": "binary"}


def _json_body(**state: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"state": {"type": "object"}}}
    return {"application/json": {"schema": schema, "example": {"state": state}}}


def _form(files: dict[str, Any]) -> dict[str, Any]:
    state = {
        "type": "string",
        "description": "JSON object with optional settings",
        "default": json.dumps({"settings": _SETTINGS}),
    }
    properties = {"files": files, "state": state}
    schema = {"type": "object", "properties": properties, "required": ["files"]}
    return {"multipart/form-data": {"schema": schema}}


_ONE_FILE = _form(_FILE)
_FILES = _form({"type": "array", "items": _FILE})
# Group -> path -> summary and body of the example request.
OPERATIONS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "Predict": {
        "/inference_image": ("Detect objects in an uploaded image", _ONE_FILE),
        "/inference_batch": ("Detect objects in uploaded images", _FILES),
        "/inference_image_url": (
            "Detect objects in the image of a URL",
            _json_body(image_url="https://example.com/image.jpg", settings=_SETTINGS),
        ),
        "/inference_image_id": (
            "Detect objects in an image of the platform or local instance",
            _json_body(image_id=1, settings=_SETTINGS),
        ),
        "/inference_batch_ids": (
            "Detect objects in images of the platform or local instance",
            _json_body(batch_ids=[1, 2], settings=_SETTINGS),
        ),
    },
    "Predict in the background": {
        "/inference_batch_async": ("Start a prediction of uploaded images", _FILES),
        "/inference_batch_ids_async": (
            "Start a prediction of images of the platform or local instance",
            _json_body(batch_ids=[1, 2], settings=_SETTINGS),
        ),
        "/inference_project_id_async": (
            "Start a prediction of all images of a project",
            _json_body(project_id=1, settings=_SETTINGS),
        ),
        "/get_inference_progress": ("Get the progress of a prediction", _json_body(**_UUID)),
        "/pop_inference_results": ("Get the results since the last call", _json_body(**_UUID)),
        "/stop_inference": ("Stop a prediction", _json_body(**_UUID)),
    },
    "Model": {
        "/get_status": ("Get whether a model is deployed, and the used memory", _json_body()),
        "/get_session_info": ("Describe the deployed model", _json_body()),
        "/get_model_meta": ("Get the classes of the deployed model", _json_body()),
        "/get_custom_inference_settings": ("Get the default settings", _json_body()),
        "/list_pretrained_models": ("List the published models", _json_body()),
        "/deploy_from_api": ("Deploy a model", _json_body(deploy_params=_DEPLOYMENT)),
    },
}


def describe_api() -> dict[str, Any]:
    """Return the OpenAPI document."""
    responses = {
        "200": {"description": "Result", "content": {"application/json": {}}},
        "400": {"description": "Invalid request; `message` explains it"},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Serve RT-DETRv2",
            "version": json.loads(SERVE_MANIFEST.read_text(encoding="utf-8"))["version"],
            "description": _ABOUT,
        },
        "servers": [{"url": "."}],  # also below a path of the platform
        "paths": {
            path: {
                "post": {
                    "tags": [group],
                    "summary": summary,
                    "requestBody": {"content": body},
                    "responses": responses,
                }
            }
            for group, operations in OPERATIONS.items()
            for path, (summary, body) in operations.items()
        },
    }
