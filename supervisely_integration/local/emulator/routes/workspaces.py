"""Workspaces."""

from fastapi import APIRouter

from ..public_api import API
from ..storage.listing import Listing
from .common import SUCCESS, Fields, Json, StoreOf, integer, integers, text

router = APIRouter(prefix=f"{API}/workspaces")


@router.post(".list")
def list_workspaces(store: StoreOf, fields: Fields) -> Json:
    """Those of a team."""
    return store.workspaces.page(integer(fields, "teamId"), Listing.from_request(fields))


@router.post(".info")
def workspace_info(store: StoreOf, fields: Fields) -> Json:
    """One workspace."""
    return store.workspaces.info(integer(fields, "id"))


@router.post(".add")
def add_workspace(store: StoreOf, fields: Fields) -> Json:
    """A new workspace."""
    id_ = store.workspaces.create(
        integer(fields, "teamId"), text(fields, "name"), fields.get("description") or ""
    )
    return store.workspaces.info(id_)


@router.post(".editInfo")
def edit_workspace(store: StoreOf, fields: Fields) -> Json:
    """Change name or description."""
    id_ = integer(fields, "id")
    store.workspaces.edit(id_, fields)
    return store.workspaces.info(id_)


@router.post(".visibility.set")
def set_visibility(store: StoreOf, fields: Fields) -> Json:
    """Show or hide in lists for people."""
    store.workspaces.set_hidden(integer(fields, "id"), bool(fields.get("hidden")))
    return SUCCESS


@router.post(".archive")
def archive_workspace(store: StoreOf, fields: Fields) -> Json:
    """Hide a workspace everywhere."""
    store.workspaces.archive(integer(fields, "id"))
    return SUCCESS


@router.post(".remove.permanently")
def remove_workspaces(store: StoreOf, fields: Fields) -> Json:
    """Remove workspaces; done when this answers, though the platform makes it a task."""
    store.workspaces.remove(integers(fields, "workspacesIds"))
    return {"taskId": None, **SUCCESS}
