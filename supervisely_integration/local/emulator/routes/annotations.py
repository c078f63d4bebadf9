"""Annotations and tags of images."""

from fastapi import APIRouter

from ..public_api import API
from ..storage.listing import Listing
from .common import SUCCESS, Fields, Json, StoreOf, integer, integers, items, required

router = APIRouter(prefix=API)


@router.post("/annotations.info")
def annotation_info(store: StoreOf, fields: Fields) -> Json:
    """The annotation of one image."""
    return store.annotations.get([integer(fields, "imageId")])[0]


@router.post("/annotations.bulk.info")
def annotation_infos(store: StoreOf, fields: Fields) -> list[Json]:
    """The annotations of several images."""
    return store.annotations.get(integers(fields, "imageIds"))


@router.post("/annotations.list")
def list_annotations(store: StoreOf, fields: Fields) -> Json:
    """The annotations of a dataset, by image."""
    page = store.images.page(Listing.from_request(fields), dataset_id=integer(fields, "datasetId"))
    ids = [image["id"] for image in page["entities"]]
    return {**page, "entities": store.annotations.get(ids)}


@router.post("/annotations.bulk.add")
def set_annotations(store: StoreOf, fields: Fields) -> Json:
    """Replace the annotations of images, all or none."""
    annotations = items(fields, "annotations")
    with store.transaction():
        for each in annotations:
            store.annotations.set(integer(each, "imageId"), required(each, "annotation"))
    return SUCCESS


@router.post("/image-tags.bulk.add-to-image")
def tag_images(store: StoreOf, fields: Fields) -> Json:
    """Add one tag to several images."""
    store.annotations.tag_images(
        integers(fields, "ids"), integer(fields, "tagId"), fields.get("value")
    )
    return SUCCESS


@router.post("/tags.entities.bulk.add")
def tag_entities(store: StoreOf, fields: Fields) -> list[Json]:
    """Add tags to images, each its own."""
    tags = [{**each, "entityId": integer(each, "entityId")} for each in items(fields, "tags")]
    ids = store.annotations.tag_entities(integer(fields, "projectId"), tags)
    return [{"id": id_} for id_ in ids]
