"""Projects, datasets, images, collections and versions."""

from collections.abc import Mapping
from typing import Any

from ..ecosystem import whole_list
from ..storage.datasets import TOP_LEVEL
from ..storage.images import NewImage
from ..storage.sql.errors import InvalidRequestError
from ..storage.sql.listing import Condition, Listing
from ..storage.versions import COMMITTED
from ..store import Store
from .fields import Fields, Method, Methods


def _edit(resource: str) -> Method:
    def edit(store: Store, f: Fields) -> Any:
        records = getattr(store, resource)
        records.edit(f.integer("id"), f)
        return records.info(f.integer("id"), f.extra() if resource == "collections" else None)

    return edit


def _add_project(store: Store, f: Fields) -> Any:
    type_ = f.get("type") or "images"
    if type_ != "images":
        raise InvalidRequestError(f"type {type_!r}: this instance has projects of images only")
    names = ("description", "readme", "settings", "customData", "importSettings")
    id_ = store.projects.create(
        f.text("name"),
        workspace_id=f.integer("workspaceId"),
        **{name: f.get(name) for name in names},
    )
    return store.projects.info(id_)


def _remove_projects(store: Store, f: Fields) -> Any:
    projects = f.objects("projects")
    if any(project.get("archiveUrl") is not None for project in projects):
        raise InvalidRequestError("archiveUrl: this instance has no project backups")
    return store.projects.remove([project.integer("id") for project in projects])


def _list_datasets(store: Store, f: Fields) -> Any:
    listing = Listing.from_request(f)
    has_parent = any(each.get("field") == "parentId" for each in listing.filters)
    conditions = [] if f.get("recursive") or has_parent else [TOP_LEVEL]
    return store.datasets.page(
        listing, conditions, extra=f.extra(), projectId=f.integer("projectId")
    )


def _add_dataset(store: Store, f: Fields) -> Any:
    id_ = store.datasets.create(
        f.integer("projectId"),
        f.text("name"),
        f.optional_integer("parentId"),
        description=f.get("description"),
        custom_data=f.get("customData"),
    )
    return store.datasets.info(id_)


def _list_images(store: Store, f: Fields) -> Any:
    return store.images.select(
        Listing.from_request(f),
        project_id=f.optional_integer("projectId"),
        dataset_id=f.optional_integer("datasetId"),
        is_recursive=bool(f.get("recursive")),
        filters=f.get("filters") or (),
    )


def _add_images(store: Store, f: Fields) -> Any:
    images = [_new_image(store, each) for each in f.objects("images")]
    return store.images.infos(store.images.add(f.integer("datasetId"), images))


def _new_image(store: Store, f: Fields) -> NewImage:
    """An image with stored contents: by hash, or those of another image."""
    name = str(f.get("title") or f.get("name") or "")
    if f.get("hash"):
        source: Mapping[str, Any] = {"hash": str(f["hash"])}
    elif f.get("imageId") is not None:
        source = store.images.info(f.integer("imageId"))
    else:
        raise InvalidRequestError(
            f"{name}: neither hash nor imageId; this instance has no linked images, upload the file"
        )
    return NewImage(
        name=name,
        hash_=source["hash"],
        meta=source.get("meta") or {} if f.get("meta") is None else f["meta"],
        description=f.get("description") or source.get("description") or "",
    )


def _list_collections(store: Store, f: Fields) -> Any:
    type_ = f.get("type") or "default"
    conditions = [] if type_ == "all" else [Condition("c.type = ?", (type_,))]
    return store.collections.page(
        Listing.from_request(f), conditions, extra=f.extra(), projectId=f.integer("projectId")
    )


def _add_collection(store: Store, f: Fields) -> Any:
    fields = {key: f.get(key) for key in ("description", "type", "meta", "options")}
    id_ = store.collections.create(f.integer("projectId"), f.text("name"), **fields)
    return store.collections.info(id_, ())


def _add_items(store: Store, f: Fields) -> Any:
    if f.get("entityItems") is not None:
        items = f.list_of("entityItems")
    else:
        items = [{"entityId": id_} for id_ in f.integers("entityIds")]
    added, missing = store.collections.add_items(f.integer("collectionId"), items)
    return {"items": added, "missing": missing}


def _remove_items(store: Store, f: Fields) -> Any:
    ids = f.integers("entityIds")
    removed, missing = store.collections.remove_items(f.integer("collectionId"), ids)
    return {"items": removed, "missing": missing}


METHODS: Methods = {
    "projects.info": lambda store, f: store.projects.info(f.integer("id")),
    "projects.list": lambda store, f: store.projects.page(
        Listing.from_request(f),
        workspaceId=f.optional_integer("workspaceId"),
        teamId=f.optional_integer("groupId"),
    ),
    "projects.add": _add_project,
    "projects.editInfo": _edit("projects"),
    "projects.archive": lambda store, f: store.projects.archive(f.integer("id")),
    "projects.remove.permanently": _remove_projects,
    "projects.meta": lambda store, f: store.projects.meta(f.integer("id")),
    "projects.meta.update": lambda store, f: store.projects.set_meta(
        f.integer("id"), f.required("meta")
    ),
    "projects.stats": lambda store, f: store.projects.statistics(f.integer("id")),
    "projects.settings.update": lambda store, f: store.projects.update_settings(
        f.integer("id"), f.required("settings")
    ),
    "advanced.object_classes.list": lambda store, f: whole_list(
        store.projects.meta_items(f.integer("projectId"), "classes", f.get("filter") or ())
    ),
    "tags.list": lambda store, f: whole_list(
        store.projects.meta_items(f.integer("projectId"), "tags", f.get("filter") or ())
    ),
    "projects.versions.reserve": lambda store, f: store.versions.reserve(
        f.integer("projectId"), f.task_id
    ),
    "projects.versions.commit": lambda store, f: store.versions.commit(
        f.integer("id"), f.text("commitToken"), f
    ),
    "projects.versions.cancel-reservation": lambda store, f: store.versions.cancel(
        f.integer("id"), f.text("commitToken")
    ),
    "projects.versions.list": lambda store, f: store.versions.page(
        Listing.from_request(f), [COMMITTED], projectId=f.integer("projectId")
    ),
    "datasets.info": lambda store, f: store.datasets.info(f.integer("id")),
    "datasets.list": _list_datasets,
    "datasets.add": _add_dataset,
    "datasets.editInfo": _edit("datasets"),
    "datasets.archive": lambda store, f: store.datasets.archive(f.integer("id")),
    "datasets.remove.permanently": lambda store, f: store.datasets.remove(
        [each.integer("id") for each in f.objects("datasets")]
    ),
    "images.info": lambda store, f: store.images.info(f.integer("id")),
    "images.list": _list_images,
    "images.bulk.add": _add_images,
    "images.editInfo": _edit("images"),
    "images.bulk.remove": lambda store, f: store.images.remove(f.integers("imageIds")),
    "entities-collections.list": _list_collections,
    "entities-collections.info": lambda store, f: store.collections.info(
        f.integer("id"), f.extra()
    ),
    "entities-collections.add": _add_collection,
    "entities-collections.editInfo": _edit("collections"),
    "entities-collections.remove": lambda store, f: store.collections.remove([f.integer("id")]),
    "entities-collections.items.bulk.add": _add_items,
    "entities-collections.items.bulk.remove": _remove_items,
}
