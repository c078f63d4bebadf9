"""Collections of images."""

from fastapi import APIRouter

from ..public_api import API
from ..storage.listing import Listing
from .common import SUCCESS, Fields, Json, StoreOf, integer, integers, items, text

router = APIRouter(prefix=f"{API}/entities-collections")


def _with_meta(fields: Json) -> bool:
    return "meta" in (fields.get("extraFields") or [])


@router.post(".list")
def list_collections(store: StoreOf, fields: Fields) -> Json:
    """Those of a project."""
    return store.collections.page(
        integer(fields, "projectId"),
        Listing.from_request(fields),
        type_=fields.get("type") or "default",
        with_meta=_with_meta(fields),
    )


@router.post(".info")
def collection_info(store: StoreOf, fields: Fields) -> Json:
    """One collection."""
    return store.collections.info(integer(fields, "id"), with_meta=_with_meta(fields))


@router.post(".add")
def add_collection(store: StoreOf, fields: Fields) -> Json:
    """A new collection."""
    id_ = store.collections.create(
        integer(fields, "projectId"),
        text(fields, "name"),
        **{key: fields.get(key) for key in ("description", "type", "meta", "options")},
    )
    return store.collections.info(id_)


@router.post(".editInfo")
def edit_collection(store: StoreOf, fields: Fields) -> Json:
    """Change name or description."""
    id_ = integer(fields, "id")
    store.collections.edit(id_, fields)
    return store.collections.info(id_)


@router.post(".remove")
def remove_collection(store: StoreOf, fields: Fields) -> Json:
    """Remove a collection; its images stay."""
    store.collections.remove(integer(fields, "id"))
    return SUCCESS


@router.post(".items.bulk.add")
def add_items(store: StoreOf, fields: Fields) -> Json:
    """Put images in."""
    if fields.get("entityItems") is not None:
        entities = items(fields, "entityItems")
    else:
        entities = [{"entityId": id_} for id_ in integers(fields, "entityIds")]
    added, missing = store.collections.add_items(integer(fields, "collectionId"), entities)
    return {"items": added, "missing": missing}


@router.post(".items.bulk.remove")
def remove_items(store: StoreOf, fields: Fields) -> Json:
    """Take images out."""
    removed, missing = store.collections.remove_items(
        integer(fields, "collectionId"), integers(fields, "entityIds")
    )
    return {"items": removed, "missing": missing}
