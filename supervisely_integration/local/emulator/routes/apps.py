"""The apps that this instance knows: ours, and those that the SDK links to."""

from fastapi import APIRouter

from ..ecosystem import find_module, search_modules, training_app
from ..public_api import API
from ..storage.errors import NotFoundError
from .common import Fields, Json, integer, whole_list

router = APIRouter(prefix=API)


@router.post("/ecosystem.list")
def list_modules(fields: Fields) -> Json:
    """All apps, or those that fulfil filters, a search, or categories."""
    found = search_modules(
        filters=fields.get("filter") or (),
        search=fields.get("search"),
        categories=fields.get("categories") or (),
        needs_all=fields.get("categoriesOperation") == "and",
    )
    return whole_list(found)


@router.post("/ecosystem.info")
def module_info(fields: Fields) -> Json:
    """One app."""
    if fields.get("slug"):
        return find_module("slug", fields["slug"])
    return find_module("id", integer(fields, "id"))


@router.post("/apps.info")
def app_info(fields: Fields) -> Json:
    """Our app as it is added to a team; the id is that of its module."""
    id_ = integer(fields, "id")
    module = training_app()
    if id_ != module["id"]:
        raise NotFoundError("app", id_)
    return {
        **module,
        "moduleId": module["id"],
        "teamId": 1,
        "createdBy": 1,
        "userLogin": "local",
        "disabled": False,
        "isShared": False,
        "tasks": [],
    }


@router.post("/apps.list")
def list_apps(fields: Fields) -> Json:
    """Our app."""
    apps = [app_info({"id": training_app()["id"]})]
    for each in fields.get("filter") or ():
        if each.get("field") in ("moduleId", "id", "name", "slug"):
            apps = [app for app in apps if app[each["field"]] == each.get("value")]
    return whole_list(apps)
