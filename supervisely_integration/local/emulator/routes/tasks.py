"""Tasks and what they took in and gave out."""

from fastapi import APIRouter

from ..public_api import API
from ..storage.listing import Listing
from .common import (
    SUCCESS,
    Fields,
    Json,
    StoreOf,
    integer,
    items,
    optional_integer,
    required,
    text,
)

router = APIRouter(prefix=API)


@router.post("/tasks.info")
def task_info(store: StoreOf, fields: Fields) -> Json:
    """One task."""
    return store.tasks.info(integer(fields, "id"))


@router.post("/tasks.list")
def list_tasks(store: StoreOf, fields: Fields) -> Json:
    """Those of a workspace."""
    workspace_id = optional_integer(fields, "workspaceId")
    return store.tasks.page(Listing.from_request(fields), workspace_id=workspace_id)


@router.post("/tasks.status.update")
def set_status(store: StoreOf, fields: Fields) -> Json:
    """Note how far a task is."""
    store.tasks.set_status(integer(fields, "id"), text(fields, "status"))
    return SUCCESS


@router.post("/tasks.meta.update")
def update_meta(store: StoreOf, fields: Fields) -> Json:
    """Merge values into the meta of a task."""
    changes = {key: value for key, value in fields.items() if key != "id"}
    store.tasks.update_meta(integer(fields, "id"), changes)
    return SUCCESS


@router.post("/tasks.output.set")
def set_output(store: StoreOf, fields: Fields) -> Json:
    """What a task shows as its result."""
    return store.tasks.set_output(integer(fields, "taskId"), required(fields, "output"))


@router.post("/tasks.app-v2.data.set")
def set_content(store: StoreOf, fields: Fields) -> Json:
    """A change of the page of a task: a patch of its data, or its new state."""
    payload = fields.get("payload") or {}
    store.tasks.apply_content(
        integer(fields, "taskId"), payload.get("data") or [], payload.get("state")
    )
    return SUCCESS


@router.post("/tasks.data.get")
def get_fields(store: StoreOf, fields: Fields) -> Json:
    """Values of the page of a task."""
    names = [str(name) for name in items(fields, "fields")]
    return {"result": store.tasks.fields(integer(fields, "taskId"), names)}


@router.post("/tasks.data.set")
def set_fields(store: StoreOf, fields: Fields) -> Json:
    """Set values of the page of a task."""
    store.tasks.set_fields(integer(fields, "taskId"), items(fields, "fields"))
    return SUCCESS


@router.post("/workflow.node.add-input")
def add_input(store: StoreOf, fields: Fields) -> Json:
    """A task took something in."""
    return store.workflow.add("input", fields)


@router.post("/workflow.node.add-output")
def add_output(store: StoreOf, fields: Fields) -> Json:
    """A task gave something out."""
    return store.workflow.add("output", fields)
