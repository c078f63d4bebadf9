"""Versions of a project."""

from fastapi import APIRouter

from ..public_api import API
from ..storage.listing import Listing
from .common import SUCCESS, Fields, Json, StoreOf, integer, text

router = APIRouter(prefix=f"{API}/projects.versions")


@router.post(".reserve")
def reserve(store: StoreOf, fields: Fields) -> Json:
    """Begin a version."""
    return store.versions.reserve(integer(fields, "projectId"))


@router.post(".commit")
def commit(store: StoreOf, fields: Fields) -> Json:
    """Finish a version."""
    store.versions.commit(integer(fields, "id"), text(fields, "commitToken"), fields)
    return SUCCESS


@router.post(".cancel-reservation")
def cancel(store: StoreOf, fields: Fields) -> Json:
    """Give a reservation back."""
    store.versions.cancel(integer(fields, "id"), text(fields, "commitToken"))
    return SUCCESS


@router.post(".list")
def list_versions(store: StoreOf, fields: Fields) -> Json:
    """Those of a project."""
    return store.versions.page(integer(fields, "projectId"), Listing.from_request(fields))


@router.post(".update")
def edit_version(store: StoreOf, fields: Fields) -> Json:
    """Change name, description or preview."""
    store.versions.edit(integer(fields, "id"), fields)
    return SUCCESS
