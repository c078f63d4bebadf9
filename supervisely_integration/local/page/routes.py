"""The page of an instance and its JSON API.

Names from users and datasets are sent as JSON only; the page inserts them as text, never as HTML.
"""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import Response

from ..emulator.routes.contents import StoreOf
from ..emulator.storage.resource import Json
from ..emulator.storage.sql.errors import NotFoundError
from ..emulator.storage.sql.listing import MAX_PER_PAGE, Condition, Listing
from ..emulator.store import TEAM_ID, Store
from .experiments import ROOT, experiment, experiments
from .task_list import recent_tasks
from .thumbnails import colors_of, drawing_of, thumbnail

router = APIRouter()

_STATIC = Path(__file__).parent
_SCRIPTS = ("page", "views", "cards", "viewer", "dom")
_FILES = {"page.css": "text/css", **{f"{name}.js": "text/javascript" for name in _SCRIPTS}}
_PROJECTS_PER_PAGE = 24
_IMAGES_PER_PAGE = 48
_COVERS = 4
_CLASSES_SHOWN = 12
_HEADERS = {
    # Only files of this server and no inline scripts, so that injected code does not run.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_PLACEHOLDER = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 3"><rect width="4" height="3" '
    b'fill="#8883"/><path d="M1.6 1.1l.8.8m0-.8l-.8.8" stroke="#888" stroke-width=".12"/></svg>'
)


@router.get("/")
def index() -> Response:
    """Send the page."""
    return _static("index.html", "text/html")


@router.get("/favicon.ico")
def icon() -> Response:
    """Send no icon; browsers always request one."""
    return Response(status_code=204)


@router.get("/page/{name}")
def static_file(name: str) -> Response:
    """Send the style sheet or a script."""
    if name not in _FILES:
        raise HTTPException(404, "no such file")
    return _static(name, _FILES[name])


def _static(name: str, mime: str) -> Response:
    content = (_STATIC / name).read_bytes()
    return Response(content, media_type=f"{mime}; charset=utf-8", headers=_HEADERS)


@router.get("/page/api/live")
def live(store: StoreOf) -> Json:
    """Return the tasks, and stamps that change with projects and experiments."""
    return {"tasks": recent_tasks(store), "stamps": _stamps(store)}


def _stamps(store: Store) -> Json:
    projects = store.database.row(
        "SELECT count(*), max(updated_at), (SELECT count(*) FROM collections),"
        " (SELECT max(updated_at) FROM collections) FROM projects WHERE archived_at IS NULL"
    )
    files = store.database.row(
        "SELECT count(*), max(updated_at) FROM files WHERE team_id = ? AND path > ? AND path < ?",
        (TEAM_ID, f"{ROOT}/", f"{ROOT}0"),
    )
    return {"projects": str(tuple(projects or ())), "experiments": str(tuple(files or ()))}


@router.get("/page/api/projects")
def projects(store: StoreOf, page: int = 1) -> Json:
    """Return projects with a few of their images, newest first."""
    listing = Listing(is_descending=True, page=max(page, 1), per_page=_PROJECTS_PER_PAGE)
    found = store.projects.page(listing)
    return {
        "total": found["total"],
        "pages": found["pagesCount"],
        "projects": [_project(store, record) for record in found["entities"]],
    }


def _project(store: Store, record: Json) -> Json:
    covers = store.images.page(Listing(per_page=_COVERS), projectId=record["id"])["entities"]
    colors = colors_of(store, record["id"])
    classes = [{"title": title, "color": color} for title, color in colors.items()]
    return {
        "id": record["id"],
        "name": record["name"],
        "description": record["description"],
        "images": record["imagesCount"],
        "datasets": record["datasetsCount"],
        "updatedAt": record["updatedAt"],
        "classes": classes[:_CLASSES_SHOWN],
        "numClasses": len(classes),
        "covers": [_image(each) for each in covers],
    }


@router.get("/page/api/projects/{id_}")
def project(store: StoreOf, id_: int) -> Json:
    """Return a project with its datasets, its collections and object counts by class."""
    statistics = store.projects.statistics(id_)
    colors = colors_of(store, id_)
    objects = [
        {
            "title": each["objectClass"]["title"],
            "shape": each["objectClass"].get("shape"),
            "color": colors[each["objectClass"]["title"]],
            "objects": each["total"],
        }
        for each in statistics["objects"]["items"]
    ]
    return {
        **_project(store, store.projects.info(id_)),
        "classes": objects,
        "objects": statistics["objects"]["total"],
        "datasetList": _datasets(store, id_),
        "collections": _collections(store, id_),
    }


def _datasets(store: Store, project_id: int) -> list[Json]:
    """Datasets of a project, sorted by path."""
    listing = Listing(per_page=MAX_PER_PAGE)
    records = store.datasets.page(listing, projectId=project_id)["entities"]
    paths = store.datasets.paths(project_id)
    found = [{"id": r["id"], "path": paths[r["id"]], "images": r["imagesCount"]} for r in records]
    return sorted(found, key=lambda each: str(each["path"]))


def _collections(store: Store, project_id: int) -> list[Json]:
    """Collections of a project, sorted by name."""
    listing = Listing(sort="name", per_page=MAX_PER_PAGE)
    records = store.collections.page(listing, projectId=project_id)["entities"]
    return [
        {
            "id": each["id"],
            "name": each["name"],
            "description": each["description"],
            "images": each["itemsCount"],
        }
        for each in records
    ]


@router.get("/page/api/projects/{id_}/images")
def images(
    store: StoreOf,
    id_: int,
    dataset: int | None = None,
    collection: int | None = None,
    page: int = 1,
) -> Json:
    """Return a page of the images of a project, or of one of its datasets or collections."""
    listing = Listing(page=max(page, 1), per_page=_IMAGES_PER_PAGE)
    conditions = []
    if collection is not None:
        inside = "i.id IN (SELECT image_id FROM collection_items WHERE collection_id = ?)"
        conditions.append(Condition(inside, (collection,)))
    found = store.images.page(listing, conditions, projectId=id_, datasetId=dataset)
    names = {tag["id"]: tag["name"] for tag in store.projects.meta(id_)["tags"]}
    return {
        "total": found["total"],
        "pages": found["pagesCount"],
        "images": [
            {**_image(record), "tags": [names[tag["tagId"]] for tag in record["tags"]]}
            for record in found["entities"]
        ],
    }


def _image(record: Json) -> Json:
    return {
        "id": record["id"],
        "name": record["name"],
        "width": record["width"],
        "height": record["height"],
        "objects": record["labelsCount"],
        # Part of the thumbnail's address, so that browsers cache it until it changes.
        "version": record["updatedAt"],
    }


@router.get("/page/api/images/{id_}")
def image(store: StoreOf, id_: int) -> Json:
    """Return an image with its objects."""
    (record,) = store.annotations.get([id_])
    tags: list[Any] = record["annotation"]["tags"]
    return {
        **_image(store.images.info(id_)),
        "tags": [str(tag.get("name")) for tag in tags],
        "drawing": drawing_of(store, id_),
    }


@router.get("/page/thumbnails/{id_}")
def image_thumbnail(store: StoreOf, id_: int) -> Response:
    """Send a thumbnail of an image with its objects."""
    jpeg = thumbnail(store, id_)
    headers = {"cache-control": "private, max-age=604800", "x-content-type-options": "nosniff"}
    if jpeg is None:
        return Response(_PLACEHOLDER, media_type="image/svg+xml", headers=headers)
    return Response(jpeg, media_type="image/jpeg", headers=headers)


@router.get("/page/api/experiments")
def all_experiments(store: StoreOf) -> Json:
    """Return experiments with their metrics."""
    return {"experiments": experiments(store)}


@router.get("/page/api/experiments/{id_}")
def one_experiment(store: StoreOf, id_: int) -> Json:
    """Return an experiment with its curves, parameters and files."""
    found = experiment(store, id_)
    try:
        name = store.projects.info(int(found["projectId"]))["name"]
    except (NotFoundError, TypeError, ValueError):
        name = None
    return {**found, "projectName": name}
