"""The apps that the SDK looks up.

The training app comes from its manifest. The SDK links to the others in the experiment's report;
this instance does not run them.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ...paths import TRAIN_MANIFEST
from .storage.sql.errors import NotFoundError
from .storage.sql.listing import DEFAULT_PER_PAGE

Module = dict[str, Any]

TRAINING_APP_ID = 1
_OWNER = "supervisely-ecosystem"
_REPOSITORY = f"https://github.com/{_OWNER}/rt-detrv2"
_LINKED = {
    "Tensorboard Experiments Viewer": "tensorboard-experiments-viewer",
    "Predict": "apply-nn",
    "Apply NN to Images Project": "nn-image-labeling/project-dataset",
    "Apply NN to Videos Project": "apply-nn-to-videos-project",
}
_DATE = "2025-01-01T00:00:00.000Z"  # the manifests have no dates


@cache
def modules() -> tuple[Module, ...]:
    """Return all apps, the training app first."""
    linked = (
        _module(id_, name, f"{_OWNER}/{slug}", f"https://github.com/{_OWNER}/{slug}", {})
        for id_, (name, slug) in enumerate(_LINKED.items(), TRAINING_APP_ID + 1)
    )
    manifest = json.loads(TRAIN_MANIFEST.read_text(encoding="utf-8"))
    slug = f"{_OWNER}/rt-detrv2/supervisely_integration/train"
    return (_module(TRAINING_APP_ID, manifest["name"], slug, _REPOSITORY, manifest), *linked)


def _module(id_: int, name: str, slug: str, repository: str, config: Mapping[str, Any]) -> Module:
    return {
        "id": id_,
        "name": name,
        "slug": slug,
        "type": "app",
        "config": dict(config),
        "categories": list(config.get("categories", [])),
        "readme": "",
        "repo": repository,
        "repositoryModuleUrl": repository,
        "meta": {"releases": [config.get("version", "")]},
        "createdAt": _DATE,
        "updatedAt": _DATE,
    }


def training_app() -> Module:
    """Return the training app."""
    return modules()[0]


def find_module(field: str, value: object) -> Module:
    """Return the app with this `id` or `slug`.

    Raises:
        NotFoundError: if there is none.
    """
    for module in modules():
        if module[field] == value:
            return module
    raise NotFoundError("app", value)


def filter_modules(filters: Sequence[Mapping[str, Any]]) -> list[Module]:
    """Return the apps that meet the filters `{"field", "value"}` of `ecosystem.list`."""
    return [
        module
        for module in modules()
        if all(module.get(str(each.get("field"))) == each.get("value") for each in filters)
    ]


def app_record(id_: int) -> Module:
    """Return the training app as an app of the team; it has the id of its module.

    Raises:
        NotFoundError: for another id.
    """
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


def whole_list(entities: list[Module]) -> dict[str, Any]:
    """Return a list response of one page."""
    return {
        "total": len(entities),
        "perPage": max(DEFAULT_PER_PAGE, len(entities)),
        "pagesCount": 1,
        "entities": entities,
        "after": None,
    }
