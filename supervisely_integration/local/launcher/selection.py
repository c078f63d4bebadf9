"""Convert command-line options to the settings that the app's page would send."""

import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtdetrv2.training.data_extent import DataExtent
from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError

from ...settings.default_split import DefaultSplit, default_split
from ..emulator.storage.sql.listing import MAX_PER_PAGE, Listing
from ..emulator.store import Store

EXPORTS = {
    "onnx": "ONNXRuntime",
    "tensorrt": "TensorRT",
}  # name on the command line -> name in the SDK

_SPLIT = re.compile(r"random:0*[1-9]\d?|(datasets|tags):[^:]+:.+")
_IMPORTED_FROM = "importedFrom"  # in a project's custom data


@dataclass(frozen=True)
class Project:
    """The properties of a project that settings depend on."""

    id: int
    name: str
    classes: tuple[str, ...]
    datasets: Mapping[str, int]  # id by path, "parent/child"
    num_images: Mapping[int, int]  # by id of the dataset
    extent: DataExtent
    collections: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # id, number of images


def find_project(store: Store, name_or_id: str) -> Project:
    """Find a project by name, else by id: a project may be named "2".

    Raises:
        DatasetError: if there is none; the message lists the projects.
    """
    projects = store.projects.page(Listing(per_page=MAX_PER_PAGE))["entities"]
    ids = {str(p["id"]): p["id"] for p in projects} | {p["name"]: p["id"] for p in projects}
    if name_or_id not in ids:
        names = ", ".join(f"{p['name']} ({p['id']})" for p in projects) or "none"
        raise DatasetError(f"no project {name_or_id!r}; projects: {names}")
    return read_project(store, ids[name_or_id])


def read_project(store: Store, id_: int) -> Project:
    """Return the project with this id.

    Raises:
        NotFoundError: if there is none.
    """
    datasets = store.datasets.page(Listing(per_page=MAX_PER_PAGE), projectId=id_)["entities"]
    collections = store.collections.page(Listing(per_page=MAX_PER_PAGE), projectId=id_)["entities"]
    longest_side, most_objects, mean_objects = store.projects.extent(id_)
    return Project(
        id=id_,
        name=store.projects.info(id_)["name"],
        classes=tuple(c["title"] for c in store.projects.meta(id_)["classes"]),
        datasets={path: id_ for id_, path in store.datasets.paths(id_).items()},
        num_images={dataset["id"]: dataset["imagesCount"] for dataset in datasets},
        extent=DataExtent(
            longest_side=longest_side, max_boxes=most_objects, mean_boxes=mean_objects
        ),
        collections={each["name"]: (each["id"], each["itemsCount"]) for each in collections},
    )


def folder_fingerprint(folder: Path) -> str:
    """Return a hash of the names, sizes and times of the files in a folder.

    Raises:
        DatasetError: if it is not a folder.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; give the folder of a data set")
    digest = hashlib.sha256(os.fsencode(folder.resolve()))
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        status = path.stat()
        digest.update(os.fsencode(path.relative_to(folder)))
        digest.update(f"|{status.st_size}|{status.st_mtime_ns}".encode())
    return digest.hexdigest()


def find_import(store: Store, fingerprint: str) -> int | None:
    """Return the project imported from a folder with this fingerprint, or None."""
    for project in store.projects.page(Listing(per_page=MAX_PER_PAGE))["entities"]:
        if project["customData"].get(_IMPORTED_FROM) == fingerprint:
            return int(project["id"])
    return None


def note_import(store: Store, project_id: int, fingerprint: str) -> None:
    """Record the fingerprint of the folder that a project was imported from."""
    custom_data = store.projects.info(project_id)["customData"]
    store.projects.edit(project_id, {"customData": {**custom_data, _IMPORTED_FROM: fingerprint}})


def choose_classes(project: Project, names: str | None) -> list[str]:
    """Return the classes to train: those named, separated by commas, or all.

    Raises:
        ConfigError: if the project has no class of that name.
    """
    if names is None:
        return list(project.classes)
    check_classes(names, project.classes)
    return _listed(names)


def check_classes(names: str | None, known: Sequence[str]) -> None:
    """Check the names of `choose_classes`.

    Raises:
        ConfigError: if one is unknown.
    """
    if names is None:
        return
    unknown = [name for name in _listed(names) or [names] if name not in known]
    if unknown:
        raise ConfigError(
            f"--classes {names!r}: the project has no class {unknown}; it has {', '.join(known)}"
        )


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def check_split(text: str | None) -> None:
    """Check the syntax of a split, see `choose_split`.

    Raises:
        ConfigError: if it is invalid.
    """
    if text is not None and not _SPLIT.fullmatch(text):
        raise ConfigError(
            f"--split {text!r}: use random:80 (percent for training), datasets:NAMES:NAMES or "
            "tags:TAG:TAG (training, then validation)"
        )


def choose_split(project: Project, text: str | None) -> tuple[dict[str, Any], int, int]:
    """Return the split, the number of training images and the number of validation images.

    Args:
        project: of the images.
        text: `random:80`, `datasets:a,b/c:d` or `tags:a:b` (training, then validation; "b/c" is a
            nested dataset). None uses the split that the names of the datasets decide, else that
            of the import, else a random 80 % for training.

    Raises:
        ConfigError: if the text is invalid, or names missing datasets.
        DatasetError: without a text, if the project has only a test split.
    """
    total = sum(project.num_images.values())
    if text is None:
        default = _default_split(project)
        if not default.settings:
            raise DatasetError(f"project {project.name!r}: {default.note}")
        return dict(default.settings), default.num_train, default.num_val
    check_split(text)
    method, _, value = text.partition(":")
    if method == "random":
        train = round(total * int(value) / 100)
        return {"method": "random", "split": "train", "percent": int(value)}, train, total - train
    train_names, _, val_names = value.partition(":")
    if method == "datasets":
        train_ids, val_ids = (_dataset_ids(project, n) for n in (train_names, val_names))
        split = {"method": "datasets", "train_datasets": train_ids, "val_datasets": val_ids}
        counts = [sum(project.num_images[i] for i in ids) for ids in (train_ids, val_ids)]
        return split, counts[0], counts[1]
    split = {
        "method": "tags",
        "train_tag": train_names,
        "val_tag": val_names,
        "untagged_action": "ignore",
    }
    return split, total, total  # upper bounds: the app reads the tags


def split_note(project: Project) -> str:
    """Return which split `choose_split` uses by default, and why."""
    return _default_split(project).note


def _default_split(project: Project) -> DefaultSplit:
    counts = project.num_images
    datasets = {path: (id_, counts.get(id_, 0)) for path, id_ in project.datasets.items()}
    return default_split(datasets, project.collections)


def _dataset_ids(project: Project, names: str) -> list[int]:
    chosen = [name.strip() for name in names.split(",")]
    unknown = [name for name in chosen if name not in project.datasets]
    if unknown:
        raise ConfigError(
            f"--split: the project has no dataset {unknown}; it has {', '.join(project.datasets)}"
        )
    return [project.datasets[name] for name in chosen]


def app_state(
    *,
    model: str,
    classes: Sequence[str],
    split: Mapping[str, Any],
    hyperparameters: str,
    experiment_name: str | None = None,
    benchmark: bool = False,
    speed_test: bool = False,
    exports: Collection[str] = (),
) -> dict[str, Any]:
    """Return the settings in the format of the SDK.

    Args:
        model: name in the app's table of models.
        classes: to train.
        split: from `choose_split`.
        hyperparameters: YAML text.
        experiment_name: None lets the app choose.
        benchmark: whether to evaluate the best checkpoint and upload a report.
        speed_test: whether the report includes a speed test.
        exports: export formats, keys of `EXPORTS`.
    """
    state: dict[str, Any] = {
        "model": {"source": "Pretrained models", "model_name": model},
        "classes": list(classes),
        "train_val_split": dict(split),
        "hyperparameters": hyperparameters,
        "options": {
            "convert_class_shapes": True,
            "cache_project": False,
            "model_benchmark": {"enable": benchmark or speed_test, "speed_test": speed_test},
            "export": {
                "enable": bool(exports),
                **{runtime: format_ in exports for format_, runtime in EXPORTS.items()},
            },
        },
        "start_training": True,
    }
    if experiment_name is not None:
        state["experiment_name"] = experiment_name
    return state
