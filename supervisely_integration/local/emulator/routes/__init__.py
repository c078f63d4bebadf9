"""The methods of the API, one file a resource."""

from fastapi import APIRouter

from . import (
    annotations,
    apps,
    datasets,
    entity_collections,
    faults,
    figures,
    file_contents,
    files,
    image_contents,
    images,
    project_meta,
    projects,
    tasks,
    teams,
    versions,
    workspaces,
)

ROUTERS: tuple[APIRouter, ...] = (
    teams.router,
    workspaces.router,
    projects.router,
    project_meta.router,
    versions.router,
    datasets.router,
    images.router,
    image_contents.router,
    annotations.router,
    figures.router,
    entity_collections.router,
    files.router,
    file_contents.router,
    tasks.router,
    apps.router,
    faults.router,
)
