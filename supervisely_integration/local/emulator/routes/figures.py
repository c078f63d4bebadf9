"""Figures: the shapes on images, and their tags."""

import json

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import StreamingResponse

from ..public_api import API
from ..storage.errors import InvalidRequestError
from ..storage.listing import Listing
from ..streaming import json_part, multipart_response
from .common import (
    SUCCESS,
    Fields,
    Json,
    StoreOf,
    integer,
    integers,
    items,
    optional_integer,
)
from .uploads import parsed_form

router = APIRouter(prefix=f"{API}/figures")


@router.post(".list")
def list_figures(store: StoreOf, fields: Fields) -> Json:
    """Those of a dataset or of a project."""
    page = store.annotations.figures(
        Listing.from_request(fields),
        dataset_id=optional_integer(fields, "datasetId"),
        project_id=optional_integer(fields, "projectId"),
    )
    if "geometry" not in (fields.get("fields") or ["geometry"]):
        for figure in page["entities"]:
            del figure["geometry"]
    return page


@router.post(".info")
def figure_info(store: StoreOf, fields: Fields) -> Json:
    """One figure."""
    return store.annotations.figure(integer(fields, "id"))


@router.post(".bulk.add")
def add_figures(store: StoreOf, fields: Fields) -> list[Json]:
    """New figures."""
    of_image = optional_integer(fields, "entityId")
    figures = [
        {**each, "entityId": integer({"entityId": of_image, **each}, "entityId")}
        for each in items(fields, "figures")
    ]
    return [{"id": id_} for id_ in store.annotations.add_figures(figures)]


@router.post(".bulk.remove")
def remove_figures(store: StoreOf, fields: Fields) -> Json:
    """Remove figures."""
    store.annotations.remove_figures(integers(fields, "figureIds"))
    return SUCCESS


@router.post(".tags.bulk.add")
def tag_figures(store: StoreOf, fields: Fields) -> list[Json]:
    """Add tags to figures."""
    tags = [{**each, "figureId": integer(each, "figureId")} for each in items(fields, "tags")]
    ids = store.annotations.tag_figures(integer(fields, "projectId"), tags)
    return [{"id": id_} for id_ in ids]


@router.post(".bulk.download.geometry")
def download_geometries(store: StoreOf, fields: Fields) -> StreamingResponse:
    """Shapes that are too large for an annotation: masks with alpha."""
    ids = integers(fields, "ids")
    return multipart_response([json_part(str(i), store.annotations.geometry(i)) for i in ids])


@router.post(".bulk.upload.geometry")
async def upload_geometries(store: StoreOf, request: Request) -> Json:
    """Set shapes: pairs of `figureId` and a file `geometry` with JSON."""
    async with parsed_form(request) as form:
        id_: int | None = None
        for name, value in form.multi_items():
            if name == "figureId":
                id_ = integer({name: value}, name)
            elif isinstance(value, UploadFile):
                if id_ is None:
                    raise InvalidRequestError("a geometry came before its figureId")
                geometry = json.loads(await value.read())
                await run_in_threadpool(store.annotations.set_geometry, id_, geometry)
    return SUCCESS
