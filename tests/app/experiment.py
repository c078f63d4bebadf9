"""One complete experiment, trained once per test session and shared by all workers.

It is a production run from a GUI state: nested datasets, an evaluation report with a speed test, a
training report, and both exports, of which TensorRT fails without a GPU.
"""

import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from supervisely_integration.local.emulator.store import Store
from supervisely_integration.local.instance import LocalInstance
from tests.app.real_app import (
    add_image,
    digits_meta,
    files_below,
    read_json,
    state_of,
    train_to_end,
)
from tests.tiny import SMALL_BACKBONE, SMALL_HEAD

NAME = "four digits [v1] é"
SIZE = [64, 64]
# Without augmentation, the network overfits four images within 75 steps.
QUICK: dict[str, Any] = {
    **merge(SMALL_HEAD, SMALL_BACKBONE),
    "epoches": 3,
    "batch_size": 4,
    "eval_spatial_size": SIZE,
    "use_ema": False,
    "optimizer": {"type": "AdamW", "lr": 0.003, "params": []},
    "lr_scheduler": {"type": "MultiStepLR", "milestones": [2]},
    "lr_warmup_scheduler": {"type": "LinearWarmup", "warmup_duration": 5},
    "train_dataloader": {
        "collate_fn": {"scales": None},
        "dataset": {
            "transforms": {
                "ops": [
                    {"type": "Resize", "size": SIZE},
                    {"type": "SanitizeBoundingBoxes"},
                    {"type": "ConvertPILImage"},
                    {"type": "ConvertBoxes", "fmt": "cxcywh", "normalize": True},
                ],
                "policy": {"name": "default", "ops": []},
            }
        },
    },
}


@dataclass(frozen=True)
class Experiment:
    """A finished training on a running instance."""

    instance: LocalInstance
    project_id: int
    task_id: int
    name: str  # of the project
    folder: Path  # of the task
    log: str
    attributes: dict[str, Any]  # that training code uses; see `probe/main.py`

    @property
    def store(self) -> Store:
        """Of the instance."""
        return self.instance.store

    @property
    def path(self) -> str:
        """The experiment's folder in Team Files."""
        return f"/experiments/{self.project_id}_{self.name}/{self.task_id}_RT-DETRv2"

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """The experiment's files."""
        return files_below(self.store, self.path)

    @property
    def info(self) -> dict[str, Any]:
        """Its `experiment_info.json`."""
        return read_json(self.store, self.files["experiment_info.json"])

    @property
    def report(self) -> dict[str, dict[str, Any]]:
        """Files of the evaluation report."""
        task = f"{self.task_id}_Train RT-DETRv2"
        return files_below(self.store, f"/model-benchmark/{self.project_id}_{self.name}/{task}")

    def json(self, name: str) -> Any:
        """Content of one of its files."""
        return read_json(self.store, self.files[name])

    def text(self, name: str) -> str:
        """Text of one of its files."""
        return self.store.files.contents(self.files[name]).read_text(encoding="utf-8")


def make_repeated_project(
    store: Store, folder: Path, *, name: str, polygons: Collection[str] = ()
) -> tuple[int, dict[str, int]]:
    """Create a project of four images: one copy for validation, 25 for training; returns ids."""
    data = make_digits_dataset(folder, num_train=4, num_val=1)
    content = json.loads((data / "annotations" / "instances_train.json").read_text())
    project_id = store.projects.create(name, digits_meta(polygons))
    parent = store.datasets.create(project_id, "all")
    datasets = {
        split: store.datasets.create(project_id, split, parent_id=parent)
        for split in ("train", "val")
    }
    for split, copies in (("train", 25), ("val", 1)):
        for image in content["images"]:
            path = data / "train" / image["file_name"]
            for number in range(copies):
                own = f"{split}_{number}_{path.name}"
                add_image(store, datasets[split], content, image, path, own, split, polygons)
    return project_id, datasets


def train_experiment(
    instance: LocalInstance,
    folder: Path,
    *,
    name: str,
    polygons: Collection[str] = (),
    split: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> Experiment:
    """Train with an evaluation report, to the end.

    Args:
        instance: of the project.
        folder: for the data and the task.
        name: of the project.
        polygons: classes whose objects are polygons.
        split: of the images; default: by datasets.
        options: changes of the GUI state's options.
        changes: of the hyperparameters.
    """
    project_id, ids = make_repeated_project(
        instance.store, folder / "digits", name=name, polygons=polygons
    )
    split = split or {
        "method": "datasets",
        "train_datasets": [ids["train"]],
        "val_datasets": [ids["val"]],
    }
    state = state_of(split, hyperparameters={**QUICK, **changes}, experiment_name=f"on {name}")
    state["options"]["model_benchmark"] = {"enable": True, "speed_test": False}
    state["options"] |= options or {}
    attributes = folder / "attributes.json"
    task_id, log = train_to_end(
        instance,
        folder / "task",
        project_id,
        state,
        app_dir=Path(__file__).with_name("probe"),
        environment={"ATTRIBUTES_FILE": str(attributes)},
    )
    return Experiment(
        instance=instance,
        project_id=project_id,
        task_id=task_id,
        name=name,
        folder=folder / "task",
        log=log,
        attributes=json.loads(attributes.read_text()),
    )


@contextmanager
def shared_experiment(shared: Path, own: Path) -> Iterator[Experiment]:
    """Yield the session's experiment on an instance of this worker.

    The first worker trains it. Every worker uses a copy of the instance's folder.

    Args:
        shared: folder of all workers of the session.
        own: folder of this worker.
    """
    record = shared / "experiment.json"
    with FileLock(f"{shared}.lock"):
        if not record.is_file():
            shared.mkdir(exist_ok=True)
            with LocalInstance(shared / "instance") as instance:
                options = {
                    "model_benchmark": {"enable": True, "speed_test": True},
                    "export": {"enable": True, "ONNXRuntime": True, "TensorRT": True},
                }
                made = train_experiment(
                    instance,
                    shared / "training",
                    name=NAME,
                    options=options,
                    seed=77,
                    report=True,
                    pictures=True,
                )
            content = {
                "project_id": made.project_id,
                "task_id": made.task_id,
                "name": made.name,
                "folder": str(made.folder),
                "log": made.log,
                "attributes": made.attributes,
            }
            record.write_text(json.dumps(content))
    content = json.loads(record.read_text())
    shutil.copytree(shared / "instance", own)
    with LocalInstance(own) as instance:
        content["folder"] = Path(content["folder"])
        yield Experiment(instance=instance, **content)
