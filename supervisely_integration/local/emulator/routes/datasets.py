"""Datasets."""

from fastapi import APIRouter

from ..public_api import API
from ..storage.listing import Listing
from .common import (
    SUCCESS,
    Fields,
    Json,
    StoreOf,
    WithUrls,
    integer,
    items,
    optional_integer,
    text,
)

router = APIRouter(prefix=f"{API}/datasets")


@router.post(".info")
def dataset_info(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """One dataset."""
    return with_urls(store.datasets.info(integer(fields, "id")))


@router.post(".list")
def list_datasets(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """Those of a project; without `recursive` only those at the top."""
    listing = Listing.from_request(fields)
    is_of_parent = any(each.get("field") == "parentId" for each in listing.filters)
    page = store.datasets.page(
        listing,
        project_id=integer(fields, "projectId"),
        is_recursive=bool(fields.get("recursive")) or is_of_parent,
        with_custom_data="customData" in (fields.get("extraFields") or []),
    )
    return with_urls(page)


@router.post(".list.all")
def list_all_datasets(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """Those of all projects."""
    with_custom_data = "customData" in (fields.get("extraFields") or [])
    page = store.datasets.page(Listing.from_request(fields), with_custom_data=with_custom_data)
    return with_urls(page)


@router.post(".add")
def add_dataset(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """A new dataset."""
    id_ = store.datasets.create(
        integer(fields, "projectId"),
        text(fields, "name"),
        parent_id=optional_integer(fields, "parentId"),
        description=fields.get("description"),
        customData=fields.get("customData"),
    )
    return with_urls(store.datasets.info(id_))


@router.post(".editInfo")
def edit_dataset(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """Change name, description or custom data."""
    id_ = integer(fields, "id")
    store.datasets.edit(id_, fields)
    return with_urls(store.datasets.info(id_))


@router.post(".move")
def move_dataset(store: StoreOf, fields: Fields) -> Json:
    """Put a dataset into another one."""
    store.datasets.move(integer(fields, "srcId"), optional_integer(fields, "destId"))
    return SUCCESS


@router.post(".archive")
def archive_dataset(store: StoreOf, fields: Fields) -> Json:
    """Hide a dataset with all that lies in it."""
    store.datasets.archive(integer(fields, "id"))
    return SUCCESS


@router.post(".remove.permanently")
def remove_datasets(store: StoreOf, fields: Fields) -> Json:
    """Remove datasets for ever."""
    store.datasets.remove([integer(each, "id") for each in items(fields, "datasets")])
    return SUCCESS
