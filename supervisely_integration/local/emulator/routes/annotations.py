"""Annotations, figures and tags of images."""

from collections.abc import Callable
from typing import Any

from ..storage.listing import Listing
from ..store import Store
from .fields import Fields
from .platform import SUCCESS


def _list_annotations(store: Store, f: Fields) -> Any:
    page = store.images.page(Listing.from_request(f), datasetId=f.integer("datasetId"))
    ids = [image["id"] for image in page["entities"]]
    return {**page, "entities": store.annotations.get(ids)}


def _set_annotations(store: Store, f: Fields) -> Any:
    with store.transaction():
        for each in f.objects("annotations"):
            store.annotations.set(each.integer("imageId"), each.required("annotation"))
    return SUCCESS


def _list_figures(store: Store, f: Fields) -> Any:
    page = store.annotations.page(
        Listing.from_request(f),
        datasetId=f.optional_integer("datasetId"),
        projectId=f.optional_integer("projectId"),
    )
    if "geometry" not in (f.get("fields") or ["geometry"]):
        for figure in page["entities"]:
            del figure["geometry"]
    return page


def _add_figures(store: Store, f: Fields) -> Any:
    owner = {"entityId": f.get("entityId")}
    figures = [
        {**each, "entityId": Fields({**owner, **each}).integer("entityId")}
        for each in f.objects("figures")
    ]
    return _ids(store.annotations.add_figures(figures))


def _remove_figures(store: Store, f: Fields) -> Any:
    store.annotations.remove(f.integers("figureIds"))
    return SUCCESS


def _tag_images(store: Store, f: Fields) -> Any:
    tag = {"tagId": f.integer("tagId"), "value": f.get("value")}
    store.annotations.tag_images([{**tag, "entityId": id_} for id_ in f.integers("ids")])
    return SUCCESS


def _tag_entities(store: Store, f: Fields) -> Any:
    tags = [{**each, "entityId": each.integer("entityId")} for each in f.objects("tags")]
    return _ids(store.annotations.tag_images(tags))


def _tag_figures(store: Store, f: Fields) -> Any:
    tags = [{**each, "figureId": each.integer("figureId")} for each in f.objects("tags")]
    return _ids(store.annotations.tag_figures(tags))


def _ids(ids: list[int]) -> list[dict[str, int]]:
    return [{"id": id_} for id_ in ids]


METHODS: dict[str, Callable[[Store, Fields], Any]] = {
    "annotations.info": lambda store, f: store.annotations.get([f.integer("imageId")])[0],
    "annotations.bulk.info": lambda store, f: store.annotations.get(f.integers("imageIds")),
    "annotations.list": _list_annotations,
    "annotations.bulk.add": _set_annotations,
    "image-tags.bulk.add-to-image": _tag_images,
    "tags.entities.bulk.add": _tag_entities,
    "figures.list": _list_figures,
    "figures.info": lambda store, f: store.annotations.info(f.integer("id")),
    "figures.bulk.remove": _remove_figures,
    "figures.bulk.add": _add_figures,
    "figures.tags.bulk.add": _tag_figures,
}
