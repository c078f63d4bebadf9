"""Teams, the user, and the instance itself."""

from fastapi import APIRouter

from ..public_api import API
from ..storage.listing import Listing
from .common import SUCCESS, Fields, Json, StoreOf, integer, integers, text

router = APIRouter(prefix=API)

# The newest one that this SDK asks for (`versions.json`); older ones make it warn.
INSTANCE_VERSION = "6.18.3"
_USER: Json = {
    "id": 1,
    "login": "local",
    "name": "Local user",
    "email": None,
    "role": "admin",
    "roleId": 1,
    "logins": 1,
    "disabled": False,
    "lastLogin": None,
    "createdAt": None,
    "updatedAt": None,
}


@router.post("/instance.version")
def instance_version() -> Json:
    """Which version of the platform this instance stands for."""
    return {"version": INSTANCE_VERSION}


@router.post("/users.me")
def me() -> Json:
    """The only user."""
    return _USER


@router.post("/teams.list")
def list_teams(store: StoreOf, fields: Fields) -> Json:
    """All teams."""
    return store.teams.page(Listing.from_request(fields))


@router.post("/teams.info")
def team_info(store: StoreOf, fields: Fields) -> Json:
    """One team."""
    return store.teams.info(integer(fields, "id"))


@router.post("/teams.add")
def add_team(store: StoreOf, fields: Fields) -> Json:
    """A new team."""
    id_ = store.teams.create(text(fields, "name"), fields.get("description") or "")
    return store.teams.info(id_)


@router.post("/teams.archive")
def archive_team(store: StoreOf, fields: Fields) -> Json:
    """Hide a team."""
    store.teams.archive(integer(fields, "id"))
    return SUCCESS


@router.post("/teams.remove.permanently")
def remove_teams(store: StoreOf, fields: Fields) -> Json:
    """Remove teams; done when this answers, though the platform makes it a task."""
    store.teams.remove(integers(fields, "teamsIds"))
    return {"taskId": None, **SUCCESS}
