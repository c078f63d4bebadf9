"""Images: lists and records; their contents are in `image_contents`."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter

from ..public_api import API
from ..storage.errors import InvalidRequestError
from ..storage.images import NewImage
from ..storage.listing import Listing
from ..store import Store
from .common import (
    SUCCESS,
    Fields,
    Json,
    StoreOf,
    WithUrls,
    integer,
    integers,
    items,
    optional_integer,
)

router = APIRouter(prefix=f"{API}/images")


@router.post(".info")
def image_info(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """One image."""
    return with_urls(store.images.info(integer(fields, "id")))


@router.post(".list")
def list_images(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """Those of a dataset or of a project."""
    page = store.images.page(
        Listing.from_request(fields),
        project_id=optional_integer(fields, "projectId"),
        dataset_id=optional_integer(fields, "datasetId"),
        is_recursive=bool(fields.get("recursive")),
        filters=fields.get("filters") or (),
    )
    return with_urls(page)


@router.post(".bulk.add")
def add_images(store: StoreOf, fields: Fields, with_urls: WithUrls) -> list[Json]:
    """New images with contents that the instance has: by hash, or those of another image."""
    images = [_new_image(store, each) for each in items(fields, "images")]
    ids = store.images.add(integer(fields, "datasetId"), images)
    return [with_urls(record) for record in store.images.infos(ids)]


def _new_image(store: Store, fields: Mapping[str, Any]) -> NewImage:
    name = str(fields.get("title") or fields.get("name") or "")
    if fields.get("hash"):
        source: Mapping[str, Any] = {"hash": str(fields["hash"])}
    elif fields.get("imageId") is not None:
        source = store.images.info(integer(fields, "imageId"))
    else:
        raise InvalidRequestError(
            f"{name}: has neither hash nor imageId; this instance takes no links, upload the file"
        )
    meta = fields.get("meta")
    description = fields.get("description") or source.get("description") or ""
    return NewImage(
        name=name,
        hash_=source["hash"],
        meta=source.get("meta") or {} if meta is None else meta,
        description=description,
    )


@router.post(".editInfo")
def edit_image(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """Change name, meta or description."""
    id_ = integer(fields, "id")
    store.images.edit(id_, fields)
    return with_urls(store.images.info(id_))


@router.post(".bulk.remove")
def remove_images(store: StoreOf, fields: Fields) -> Json:
    """Hide images."""
    store.images.remove(integers(fields, "imageIds"))
    return SUCCESS
