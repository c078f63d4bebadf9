"""Annotations, figures and tags of images."""

from typing import Any

from ..storage.resource import Json
from ..storage.sql.listing import Listing
from ..store import Store
from .fields import Fields, Methods


def _list_annotations(store: Store, f: Fields) -> Any:
    page = store.images.page(Listing.from_request(f), datasetId=f.integer("datasetId"))
    ids = [image["id"] for image in page["entities"]]
    return {**page, "entities": store.annotations.get(ids)}


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


def _tag_images(store: Store, f: Fields) -> None:
    tag = {"tagId": f.integer("tagId"), "value": f.get("value")}
    store.annotations.tag_images([{**tag, "entityId": i} for i in f.integers("ids")])


def _tags(f: Fields, owner: str) -> list[Json]:
    return [{**each, owner: each.integer(owner)} for each in f.objects("tags")]


def _ids(ids: list[int]) -> list[dict[str, int]]:
    return [{"id": id_} for id_ in ids]


METHODS: Methods = {
    "annotations.info": lambda store, f: store.annotations.get([f.integer("imageId")])[0],
    "annotations.bulk.info": lambda store, f: store.annotations.get(f.integers("imageIds")),
    "annotations.list": _list_annotations,
    "annotations.bulk.add": lambda store, f: store.annotations.set_all(
        {a.integer("imageId"): a.required("annotation") for a in f.objects("annotations")}
    ),
    "image-tags.bulk.add-to-image": _tag_images,
    "image-tags.bulk.remove-from-images": lambda store, f: store.annotations.untag_images(
        f.integers("tagIds"), f.integers("ids")
    ),
    "tags.entities.bulk.add": lambda store, f: _ids(
        store.annotations.tag_images(_tags(f, "entityId"))
    ),
    "figures.list": _list_figures,
    "figures.info": lambda store, f: store.annotations.info(f.integer("id")),
    "figures.bulk.remove": lambda store, f: store.annotations.remove(f.integers("figureIds")),
    "figures.bulk.add": _add_figures,
    "figures.tags.bulk.add": lambda store, f: _ids(
        store.annotations.tag_figures(_tags(f, "figureId"))
    ),
}
