"""Classes, tags, settings and statistics of a project."""

from fastapi import APIRouter

from ..public_api import API
from .common import SUCCESS, Fields, Json, StoreOf, integer, required, whole_list

router = APIRouter()

_PROJECTS = f"{API}/projects"


@router.post(f"{_PROJECTS}.meta")
def get_meta(store: StoreOf, fields: Fields) -> Json:
    """Classes and tags with ids."""
    return store.projects.meta(integer(fields, "id"))


@router.post(f"{_PROJECTS}.meta.update")
def set_meta(store: StoreOf, fields: Fields) -> Json:
    """Replace classes and tags."""
    return store.projects.set_meta(integer(fields, "id"), required(fields, "meta"))


@router.post(f"{_PROJECTS}.stats")
def statistics(store: StoreOf, fields: Fields) -> Json:
    """How often classes and tags are used."""
    return store.statistics(integer(fields, "id"))


@router.post(f"{_PROJECTS}.settings.update")
def update_settings(store: StoreOf, fields: Fields) -> Json:
    """Merge settings into those of the project."""
    id_ = integer(fields, "id")
    return store.projects.update_settings(id_, required(fields, "settings"))


def _filtered(items: list[Json], fields: Json) -> Json:
    for each in fields.get("filter") or ():
        items = [item for item in items if item.get(each.get("field")) == each.get("value")]
    return whole_list(items)


@router.post(f"{API}/advanced.object_classes.list")
def list_classes(store: StoreOf, fields: Fields) -> Json:
    """The classes of a project, as records."""
    project_id = integer(fields, "projectId")
    dates = _dates(store.projects.info(project_id))
    classes = store.projects.meta(project_id)["classes"]
    records = [{"description": "", "settings": {}, **c, "name": c["title"]} for c in classes]
    return _filtered([{**each, **dates} for each in records], fields)


@router.post(f"{API}/tags.list")
def list_tags(store: StoreOf, fields: Fields) -> Json:
    """The tags of a project, as records."""
    project_id = integer(fields, "projectId")
    common = {"projectId": project_id, **_dates(store.projects.info(project_id))}
    tags = store.projects.meta(project_id)["tags"]
    return _filtered([{"settings": {}, **tag, **common} for tag in tags], fields)


def _dates(project: Json) -> Json:
    return {key: project[key] for key in ("createdAt", "updatedAt")}


@router.post(f"{_PROJECTS}.classes.remove")
def remove_class(store: StoreOf, fields: Fields) -> Json:
    """Remove a class with its figures."""
    store.projects.remove_meta_item(integer(fields, "projectId"), "classes", integer(fields, "id"))
    return SUCCESS


@router.post(f"{_PROJECTS}.tags.remove")
def remove_tag(store: StoreOf, fields: Fields) -> Json:
    """Remove a tag everywhere."""
    store.projects.remove_meta_item(integer(fields, "projectId"), "tags", integer(fields, "id"))
    return SUCCESS
