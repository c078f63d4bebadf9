"""Projects: lists, records, their end."""

from fastapi import APIRouter

from ..public_api import API
from ..storage.errors import InvalidRequestError
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

router = APIRouter(prefix=f"{API}/projects")


@router.post(".info")
def project_info(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """One project."""
    return with_urls(store.projects.info(integer(fields, "id")))


@router.post(".list")
def list_projects(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """Those of a workspace or of a team."""
    page = store.projects.page(
        Listing.from_request(fields),
        workspace_id=optional_integer(fields, "workspaceId"),
        team_id=optional_integer(fields, "groupId"),
    )
    return with_urls(page)


@router.post(".list.all")
def list_all_projects(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """Those of all teams."""
    return with_urls(store.projects.page(Listing.from_request(fields)))


@router.post(".add")
def add_project(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """A new project."""
    type_ = fields.get("type") or "images"
    if type_ != "images":
        raise InvalidRequestError(f"type {type_!r}: this instance keeps projects of images only")
    names = ("description", "readme", "settings", "customData", "importSettings")
    id_ = store.projects.create(
        integer(fields, "workspaceId"),
        text(fields, "name"),
        **{name: fields.get(name) for name in names},
    )
    return with_urls(store.projects.info(id_))


@router.post(".editInfo")
def edit_project(store: StoreOf, fields: Fields, with_urls: WithUrls) -> Json:
    """Change fields of a project."""
    id_ = integer(fields, "id")
    store.projects.edit(id_, fields)
    return with_urls(store.projects.info(id_))


@router.post(".workspace.set")
def move_project(store: StoreOf, fields: Fields) -> Json:
    """Put a project into another workspace."""
    store.projects.move(integer(fields, "id"), integer(fields, "workspaceId"))
    return SUCCESS


@router.post(".archive")
def archive_project(store: StoreOf, fields: Fields) -> Json:
    """Hide a project."""
    store.projects.archive(integer(fields, "id"))
    return SUCCESS


@router.post(".remove.permanently")
def remove_projects(store: StoreOf, fields: Fields) -> Json:
    """Remove projects, or only their contents, if it is said where a backup is."""
    gone = []
    for project in items(fields, "projects"):
        id_ = integer(project, "id")
        if project.get("archiveUrl") is None:
            gone.append(id_)
            continue
        backup = {
            "url": project["archiveUrl"],
            "annotationsUrl": project.get("annotationsArchiveUrl"),
        }
        store.projects.keep_card(id_, backup)
    store.projects.remove(gone)
    return SUCCESS


@router.get(".images.get-backup-archive")
def backup_archive(store: StoreOf, id: int) -> Json:  # noqa: A002 - the name in the query
    """Where the backup of a project is; empty if there is none."""
    return store.projects.info(id)["backupArchive"] or {}
