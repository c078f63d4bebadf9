"""Start the app as a process, connected to a local instance, and send requests to it."""

import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import httpx

from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from supervisely_integration.local.emulator.store import TEAM_ID, Store
from supervisely_integration.local.launcher.app_process import AppProcess
from tests.app.preloaded import server
from tests.ranks import free_port
from tests.tiny import NETWORK, SMALL_BACKBONE

MODEL = "RT-DETRv2-S (random weights)"
CLASSES = [str(digit) for digit in range(10)]
TAGS = {"method": "tags", "train_tag": "train", "val_tag": "val", "untagged_action": "ignore"}
TINY: dict[str, Any] = {
    **{key: value for key, value in merge(NETWORK, SMALL_BACKBONE).items() if key != "PResNet"},
    "PResNet": SMALL_BACKBONE["PResNet"],
    "epoches": 2,
    "batch_size": 2,
    "eval_spatial_size": [64, 64],
    "checkpoint_freq": 0,
    "use_amp": False,
    "num_workers": 0,
    "print_freq": 1,
    "lr_scheduler": {"type": "MultiStepLR", "milestones": [1]},
    "report": False,
    "pictures": False,
}


def make_project(
    store: Store,
    folder: Path,
    *,
    name: str,
    polygons: Collection[str] = (),
    datasets: tuple[str, str] = ("train", "val"),
) -> int:
    """Create a project of digits: a data set of 6 images tagged "train", one of 4 tagged "val".

    Objects of the classes in `polygons` are polygons, all others rectangles.
    """
    data = make_digits_dataset(folder, num_train=6, num_val=4)
    project_id = store.projects.create(name, digits_meta(polygons))
    for split, dataset in zip(("train", "val"), datasets, strict=True):
        dataset_id = store.datasets.create(project_id, dataset)
        content = json.loads((data / "annotations" / f"instances_{split}.json").read_text())
        for image in content["images"]:
            path = data / split / image["file_name"]
            own = f"{split}_{path.name}"
            add_image(store, dataset_id, content, image, path, own, split, polygons)
    return project_id


def digits_meta(polygons: Collection[str]) -> dict[str, Any]:
    """Meta of a project of digits with tags for the split."""
    return {
        "classes": [
            {"title": c, "shape": _shape(c, polygons), "color": "#FF0000"} for c in CLASSES
        ],
        "tags": [{"name": n, "value_type": "none", "color": "#00FF00"} for n in ("train", "val")],
        "projectType": "images",
    }


def add_image(
    store: Store,
    dataset_id: int,
    content: dict[str, Any],
    image: dict[str, Any],
    path: Path,
    name: str,
    tag: str,
    polygons: Collection[str],
) -> None:
    """Add an image of a COCO file with its objects."""
    objects = [
        _object(annotation, _shape(str(annotation["category_id"]), polygons))
        for annotation in content["annotations"]
        if annotation["image_id"] == image["id"]
    ]
    store.annotations.set(
        store.images.create(dataset_id, name, path),
        {
            "description": "",
            "size": {"height": image["height"], "width": image["width"]},
            "tags": [{"name": tag, "value": None}],
            "objects": objects,
        },
    )


def _shape(title: str, polygons: Collection[str]) -> str:
    return "polygon" if title in polygons else "rectangle"


def _object(annotation: dict[str, Any], shape: str) -> dict[str, Any]:
    x, y, width, height = annotation["bbox"]
    left, top, right, bottom = x, y, x + width - 1, y + height - 1
    corners = [[left, top], [right, bottom]]
    if shape == "polygon":
        corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return {
        "classTitle": str(annotation["category_id"]),
        "geometryType": shape,
        "tags": [],
        "points": {"exterior": corners, "interior": []},
    }


def state_of(split: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return settings of the app for a tiny training."""
    hyperparameters = {**TINY, **changes.pop("hyperparameters", {})}
    return {
        "model": {"source": "Pretrained models", "model_name": MODEL},
        "classes": CLASSES,
        "train_val_split": split,
        "hyperparameters": json.dumps(hyperparameters),  # JSON is YAML
        "options": {
            "convert_class_shapes": True,
            "cache_project": False,
            "model_benchmark": {"enable": False, "speed_test": False},
            "export": {"enable": False, "ONNXRuntime": False, "TensorRT": False},
        },
        "start_training": True,
        **changes,
    }


def start_preloaded(app: AppProcess, module: list[str], environment: dict[str, str]) -> Any:
    """Replaces `AppProcess._start`: forks a process that has imported the SDK."""
    return server().start(
        module[0], module[1:], cwd=app.data_dir, env=environment, log=app.log_file
    )


class RunningApp(AppProcess):
    """An app on a free port, with methods for the requests of its page.

    Args:
        environment: additional variables.
        preloaded: fork a process that has imported the SDK, instead of starting Python.
        options: of `AppProcess`.
    """

    def __init__(
        self,
        *,
        environment: dict[str, str] | None = None,
        preloaded: bool = True,
        **options: Any,
    ) -> None:
        environment = {"OMP_NUM_THREADS": "1", **(environment or {})}
        self._is_preloaded = preloaded
        super().__init__(port=free_port(), environment=environment, **options)
        self.client = httpx.Client(base_url=self.address, timeout=300)

    def _start(self, module: list[str], environment: dict[str, str]) -> Any:
        if not self._is_preloaded:
            return super()._start(module, environment)
        return start_preloaded(self, module, environment)

    def post(self, route: str, **body: Any) -> Any:
        """POST JSON as the page does; returns the decoded response, raises for an error status."""
        if not self.client.cookies:
            self.client.get("/").raise_for_status()  # sets the cookie of the page
        answer = self.client.post(route, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def widgets(self, kind: str, text: str | None = None) -> list[str]:
        """Return the ids of all widgets of a kind, in order; for buttons, filter by text."""
        data = self.post("/sly/data")
        return [
            key
            for key, value in data.items()
            if key.startswith(f"{kind}AutoId") and (text is None or value.get("text") == text)
        ]

    def click(self, button: str, **state: Any) -> None:
        """Press a button; sends the values of other widgets as the page does."""
        current = self.post("/sly/state")
        for widget, values in state.items():
            current[widget] = {**current.get(widget, {}), **values}
        self.post(f"/{button}/button_clicked_cb", state=current, context={})

    def wait_for(self, condition, what: str, timeout_s: float = 240) -> None:
        """Wait until a condition holds, while the app runs."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"the app ended:\n{self.log_tail(60)}"
            assert time.monotonic() < deadline, f"no {what} in time:\n{self.log_tail(60)}"
            time.sleep(0.1)

    def log(self) -> str:
        """Return the output of the app."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def log_tail(self, lines: int = 30) -> str:
        """Return the last lines of the app's output."""
        return "\n".join(self.log().splitlines()[-lines:])


def train_to_end(
    instance: Any, folder: Path, project_id: int, state: dict[str, Any], **options: Any
) -> tuple[int, str]:
    """Train in production mode as a new task; returns the task and the log.

    Args:
        instance: a running `LocalInstance`.
        folder: of the task.
        project_id: of the project to train on.
        state: settings of the app.
        options: of `RunningApp`.
    """
    task_id = create_training_task(instance.store)
    with RunningApp(
        server_address=instance.address,
        token=instance.token,
        project_id=project_id,
        data_dir=folder,
        task_id=task_id,
        app_state=state,
        **options,
    ) as app:
        code = app.wait(400)
        assert code == 0, app.log_tail(60)
        return task_id, app.log()


def create_training_task(store: Store) -> int:
    """Create a task of the training app; returns its id."""
    return store.tasks.create(app={"id": 1, "name": "Train RT-DETRv2", "version": "1"})


def files_below(store: Store, folder: str) -> dict[str, dict[str, Any]]:
    """Return the Team Files below a folder: relative path -> record."""
    prefix = folder.rstrip("/") + "/"
    return {
        record["path"].removeprefix(prefix): record
        for record in store.files.entries(TEAM_ID, folder)
    }


def read_json(store: Store, record: dict[str, Any]) -> Any:
    """Return the content of a file in Team Files."""
    return json.loads(store.files.contents(record).read_text(encoding="utf-8"))
