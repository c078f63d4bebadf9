"""From a few words on the command line to the settings of the app, as its page would have them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError

from .store import Store

_TRAIN_NAMES, _VAL_NAMES = ("train", "training"), ("val", "valid", "validation")
_RANDOM_PERCENT = 80


@dataclass(frozen=True)
class Project:
    """What has to be known of a project to choose settings for it."""

    id: int
    name: str
    classes: tuple[str, ...]
    datasets: Mapping[str, int]  # id by path, "parent/child"
    num_images: Mapping[int, int]  # by id of the dataset
    longest_side: int  # of an image, pixels
    most_objects: int  # in an image


def find_project(store: Store, name_or_id: str) -> Project:
    """Look a project up.

    Raises:
        DatasetError: if there is none, naming those that there are.
    """
    rows = store.database.rows("SELECT id, name FROM projects WHERE archived_at IS NULL")
    matching = [row for row in rows if name_or_id in (row["name"], str(row["id"]))]
    if not matching:
        names = ", ".join(f"{row['name']} ({row['id']})" for row in rows) or "none"
        raise DatasetError(f"no project {name_or_id!r}; there are: {names}")
    id_ = int(matching[0]["id"])
    datasets = _dataset_paths(store, id_)
    return Project(
        id=id_,
        name=matching[0]["name"],
        classes=tuple(c["title"] for c in store.projects.meta(id_)["classes"]),
        datasets=datasets,
        num_images=_count_images(store, list(datasets.values())),
        longest_side=_longest_side(store, id_),
        most_objects=_most_objects(store, id_),
    )


def _dataset_paths(store: Store, project_id: int) -> dict[str, int]:
    rows = store.database.rows(
        "SELECT id, parent_id, name FROM datasets WHERE project_id = ? AND archived_at IS NULL",
        (project_id,),
    )
    by_id = {row["id"]: row for row in rows}

    def path(id_: int) -> str:
        row = by_id[id_]
        above = f"{path(row['parent_id'])}/" if row["parent_id"] in by_id else ""
        return f"{above}{row['name']}"

    return {path(id_): id_ for id_ in by_id}


def _count_images(store: Store, dataset_ids: Sequence[int]) -> dict[int, int]:
    sql = "SELECT COUNT(*) AS n FROM images WHERE dataset_id = ? AND archived_at IS NULL"
    return {id_: int(store.database.rows(sql, (id_,))[0]["n"]) for id_ in dataset_ids}


def _longest_side(store: Store, project_id: int) -> int:
    row = store.database.row(
        "SELECT MAX(MAX(i.width, i.height)) AS side FROM images i"
        " JOIN datasets d ON d.id = i.dataset_id WHERE d.project_id = ?",
        (project_id,),
    )
    return int(row["side"] or 0) if row else 0


def _most_objects(store: Store, project_id: int) -> int:
    row = store.database.row(
        "SELECT COUNT(*) AS n FROM figures f JOIN images i ON i.id = f.image_id"
        " JOIN datasets d ON d.id = i.dataset_id WHERE d.project_id = ?"
        " GROUP BY f.image_id ORDER BY n DESC LIMIT 1",
        (project_id,),
    )
    return int(row["n"]) if row else 0


def choose_classes(project: Project, names: str | None) -> list[str]:
    """Classes to train: those named, separated by commas, or all.

    Raises:
        ConfigError: if the project has no class of that name.
    """
    if names is None:
        return list(project.classes)
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in project.classes]
    if unknown or not chosen:
        raise ConfigError(
            f"--classes {names!r}: the project has no class {unknown}; it has "
            f"{', '.join(project.classes)}"
        )
    return chosen


def choose_split(project: Project, text: str | None) -> tuple[dict[str, Any], int, int]:
    """How images are split, and how many there will be to train and to validate on.

    Args:
        project: whose images.
        text: `random:80`, `datasets:a,b/c:d` or `tags:a:b` (to train on, then to validate on;
            "b/c" is a data set in another one); None takes datasets called train and val where
            there are such, else 80 % at random.

    Raises:
        ConfigError: if the text is none of these, or names what is not there.
    """
    total = sum(project.num_images.values())
    if text is None:
        named = _datasets_named(project)
        text = f"datasets:{named[0]}:{named[1]}" if named else f"random:{_RANDOM_PERCENT}"
    method, _, value = text.partition(":")
    if method == "random" and value.isdigit() and 0 < int(value) < 100:
        train = round(total * int(value) / 100)
        return {"method": "random", "split": "train", "percent": int(value)}, train, total - train
    train_names, colon, val_names = value.partition(":")
    if method == "datasets" and colon:
        train_ids, val_ids = (_dataset_ids(project, n) for n in (train_names, val_names))
        split = {"method": "datasets", "train_datasets": train_ids, "val_datasets": val_ids}
        counts = [sum(project.num_images[i] for i in ids) for ids in (train_ids, val_ids)]
        return split, counts[0], counts[1]
    if method == "tags" and train_names and val_names:
        split = {
            "method": "tags",
            "train_tag": train_names,
            "val_tag": val_names,
            "untagged_action": "ignore",
        }
        return split, total, total  # at most; only the app looks at the tags
    raise ConfigError(
        f"--split {text!r}: give random:80 (percent to train on), datasets:NAMES:NAMES or "
        "tags:TAG:TAG (to train on, then to validate on)"
    )


def _datasets_named(project: Project) -> tuple[str, str] | None:
    train = [n for n in project.datasets if n.lower() in _TRAIN_NAMES]
    val = [n for n in project.datasets if n.lower() in _VAL_NAMES]
    return (train[0], val[0]) if train and val else None


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
) -> dict[str, Any]:
    """Settings in the form that the SDK loads.

    Args:
        model: name in the app's table of models.
        classes: to train.
        split: as `choose_split` gives it.
        hyperparameters: YAML text.
        experiment_name: for people; None lets the app choose.
    """
    state: dict[str, Any] = {
        "model": {"source": "Pretrained models", "model_name": model},
        "classes": list(classes),
        "train_val_split": dict(split),
        "hyperparameters": hyperparameters,
        "options": {
            "convert_class_shapes": True,
            "cache_project": False,
            "model_benchmark": {"enable": False, "speed_test": False},
            "export": {"enable": False, "ONNXRuntime": False, "TensorRT": False},
        },
        "start_training": True,
    }
    if experiment_name is not None:
        state["experiment_name"] = experiment_name
    return state
