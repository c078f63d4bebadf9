"""The apps that this instance knows.

Ours comes from its manifest. The others are looked up by the SDK while it makes links for the
experiment's report; they are not part of this instance.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ...paths import TRAIN_MANIFEST
from .storage.errors import InvalidRequestError, NotFoundError

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
# Opaque to the SDK; the manifests have no dates.
_DATE = "2025-01-01T00:00:00.000Z"


@cache
def modules() -> tuple[Module, ...]:
    """All apps, ours first."""
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
    """Ours."""
    return modules()[0]


def find_module(field: str, value: object) -> Module:
    """The app with this id or slug.

    Raises:
        NotFoundError: if there is none.
    """
    for module in modules():
        if module[field] == value:
            return module
    raise NotFoundError("app", value)


def search_modules(
    *,
    filters: Sequence[Mapping[str, Any]] = (),
    search: str | None = None,
    categories: Sequence[str] = (),
    needs_all: bool = False,
) -> list[Module]:
    """The apps that fulfil everything that is asked.

    Args:
        filters: `{"field", "operator": "=", "value"}` each.
        search: part of the name, in any case.
        categories: of the manifest.
        needs_all: an app needs all of the categories, else one of them.

    Raises:
        InvalidRequestError: for a filter on a field that apps do not have.
    """
    for each in filters:
        if each.get("field") not in ("id", "slug", "name", "type"):
            raise InvalidRequestError(f"cannot filter apps by {each.get('field')!r}")
    combine = all if needs_all else any
    return [
        module
        for module in modules()
        if all(module[each["field"]] == each.get("value") for each in filters)
        and (not search or search.lower() in module["name"].lower())
        and (not categories or combine(each in module["categories"] for each in categories))
    ]
