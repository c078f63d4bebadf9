"""A training on the instance, followed from outside: the app is a process of its own."""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.catalog import COMPONENTS
from rtdetrv2_pytorch.src.core.yaml_files import get, merge
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.data.splits import find_splits
from rtdetrv2_pytorch.tools import auto_config

from ...models import find_base_config
from ...paths import HYPERPARAMETERS, MODELS
from ...train.run_config import check_hyperparameters
from ..emulator.store import TEAM_ID, Store
from .app_log import Bar, GrowingFile
from .app_process import AppProcess
from .selection import Project

_POLL_S = 0.5
_RANDOM_WEIGHTS = " (random weights)"


def pick_model(wanted: str | None) -> tuple[str, str]:
    """Name of a row in the app's table of models, and what to tell people about it.

    Without a wish it is S: from its published weights where they can be had, else from random ones.
    """
    if wanted is not None:
        return wanted, ""
    weights, message = auto_config.initial_weights()
    return ("RT-DETRv2-S" if weights.get("tuning") else f"RT-DETRv2-S{_RANDOM_WEIGHTS}"), message


def model_names() -> list[str]:
    """Rows of the app's table of models."""
    return [row["Model"] for row in _models()]


def _recipe_of(model: str) -> Path:
    """The configuration file of a row in the app's table of models."""
    (row,) = (row for row in _models() if row["Model"] == model)
    return find_base_config(row["meta"]["model_files"]["config"])


def _models() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(MODELS.read_text(encoding="utf-8"))
    return rows


def sample_choices() -> dict[str, Any]:
    """What the generated digits need: a mirrored digit is no digit, and they have all sizes."""
    sample = yaml.safe_load(auto_config.SAMPLE_CONFIG.read_text(encoding="utf-8"))
    transforms = sample["train_dataloader"]["dataset"]["transforms"]
    return {"train_dataloader": {"dataset": {"transforms": transforms}}}


def hyperparameters_for(
    project: Project, model: str, num_train: int, num_val: int, given: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """The app's defaults; without a GPU, what ends within about ten minutes.

    Args:
        project: to train on.
        model: name in the table of models.
        num_train: images to train on.
        num_val: images to validate on.
        given: what the user chose; it wins.

    Returns:
        Hyperparameters, and what to tell people.

    Raises:
        ConfigError: if they are wrong; that costs no timing of steps.
    """
    values: dict[str, Any] = yaml.safe_load(HYPERPARAMETERS.read_text(encoding="utf-8"))
    if torch.cuda.is_available():
        values = _chosen(values, given, model)
        return values, ""
    overrides = auto_config.cpu_overrides(
        longest_side=project.longest_side,
        max_boxes=project.most_objects,
        is_from_scratch=model.endswith(_RANDOM_WEIGHTS),
    )
    train = overrides.pop("train_dataloader")
    overrides.pop("val_dataloader")
    overrides["batch_size"] = train.pop("total_batch_size")
    overrides["num_workers"] = train.pop("num_workers")
    overrides["train_dataloader"] = train
    for name in ("lr_scheduler", "epoches"):  # the choices replace these defaults
        values.pop(name)
    values = _chosen(merge(values, overrides), given, model)
    steps = max(1, num_train // int(values["batch_size"]))
    return auto_config.choose_epochs(values, steps, _time_a_step(values), num_val)


def _chosen(values: dict[str, Any], given: Mapping[str, Any], model: str) -> dict[str, Any]:
    values = merge(values, given)
    _resize_to(values["eval_spatial_size"], values)
    check_hyperparameters(values, _recipe_of(model))
    return values


def _resize_to(size: Any, values: dict[str, Any]) -> None:
    """Let operations that were chosen resize to the chosen size, which may be no size at all."""
    for op in get(values, ("train_dataloader", "dataset", "transforms", "ops")) or ():
        if op["type"] == "Resize" and isinstance(size, list):
            op["size"] = list(size)


def _time_a_step(values: Mapping[str, Any]) -> float:
    """Seconds of a training step of S at the chosen size, on images made for it."""
    with tempfile.TemporaryDirectory() as name:
        images = auto_config.TIMED_STEPS * int(values["batch_size"])
        data = make_digits_dataset(Path(name), num_train=images, num_val=1)
        splits = find_splits(data, Path(name))
        overrides = merge(
            auto_config.data_overrides(splits.train, splits.val),
            {
                "eval_spatial_size": values["eval_spatial_size"],
                "use_amp": values["use_amp"],
                "train_dataloader": {"total_batch_size": values["batch_size"]},
                "num_workers": 0,
                "epoches": 1,
                "device": "cpu",
                "output_dir": name,
            },
        )
        parts = {key: value for key, value in values.items() if key in COMPONENTS}
        overrides = merge(merge(overrides, parts), {"PResNet": {"pretrained": False}})
        return auto_config.time_step(YAMLConfig(auto_config.DEFAULT_CONFIG, **overrides))


def follow(app: AppProcess, task_id: int) -> Iterator[tuple[list[Bar], list[dict[str, Any]]]]:
    """Watch a training until its process has ended.

    Yields:
        What is new: bars of the app, and lines of the engine's log.jsonl.
    """
    log = GrowingFile(app.data_dir / "runs" / str(task_id) / "output" / "log.jsonl")
    has_ended = False
    while not has_ended:
        has_ended = app.process.poll() is not None  # first: its last words are read, too
        yield list(app.app_log.new_bars()), [json.loads(line) for line in log.new_lines()]
        if not has_ended:
            time.sleep(_POLL_S)


def find_experiment(store: Store, task_id: int) -> dict[str, Any]:
    """What a task left in Team Files: `experiment_info.json`, if it is complete.

    Raises:
        FileNotFoundError: if the task left no experiment, or files that it names are missing.
    """
    records = store.files.entries(TEAM_ID, "/experiments")
    ours = [
        record
        for record in records
        if record["name"] == "experiment_info.json"
        and record["path"].split("/")[-2].startswith(f"{task_id}_")
    ]
    if not ours:
        raise FileNotFoundError(f"task {task_id} left no experiment in Team Files")
    info: dict[str, Any] = json.loads(store.files.contents(ours[-1]).read_text(encoding="utf-8"))
    folder = info["artifacts_dir"].rstrip("/")
    named = [*info["checkpoints"], info["app_state"], info["model_meta"], info["hyperparameters"]]
    present = {record["path"] for record in records}
    missing = [name for name in named if f"{folder}/{name}" not in present]
    if missing:
        raise FileNotFoundError(f"{folder}: the experiment lacks {', '.join(missing)}")
    return info
