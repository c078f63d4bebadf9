"""Data of an instance for the tests of its page."""

import json
import struct

from PIL import Image, ImageDraw
from tensorboard.compat.proto.event_pb2 import Event

from supervisely_integration.local.emulator.store import TEAM_ID, Store

EVIL = """<img src=x onerror="window.hacked=1">'"&</script><script>window.hacked=2</script>"""
SIZE = (200, 120)


def fill_project(store: Store, name: str, *, class_name: str = "cell", images: int = 3) -> int:
    """Create a project with datasets train and train/night and a box 20..60 x 30..90 per image."""
    meta = {
        "classes": [
            {"title": class_name, "shape": "any", "color": "#FF0000"},
            {"title": "unused", "shape": "rectangle", "color": "url(x)"},
        ],
        "tags": [{"name": EVIL, "value_type": "none", "color": "#00FF00"}],
    }
    project_id = store.projects.create(name, meta)
    train = store.datasets.create(project_id, "train")
    night = store.datasets.create(project_id, "night", train)
    for number in range(images):
        picture = Image.new("RGB", SIZE, (40, 80, (37 * number) % 256))
        ImageDraw.Draw(picture).text((5, 5), f"{name[:9]} {number}")
        path = store.root / "picture.png"
        picture.save(path)
        dataset = night if number == images - 1 else train
        image_id = store.images.create(dataset, f"image {number:03}.png", path)
        store.annotations.set(image_id, {"tags": [{"name": EVIL}], "objects": objects(class_name)})
    return project_id


def objects(class_name: str):
    """A box, a polygon, and an invalid mask."""

    def one(shape, exterior):
        return {
            "classTitle": class_name,
            "geometryType": shape,
            "points": {"exterior": exterior, "interior": []},
            "tags": [],
        }

    broken = {"classTitle": class_name, "geometryType": "bitmap", "bitmap": {"data": "x"}}
    return [
        one("rectangle", [[20, 30], [60, 90]]),
        one("polygon", [[100, 10], [150, 10], [125, 60]]),
        broken,
    ]


def event_file(scalars: dict[str, list[float]], *, cut: int = 0) -> bytes:
    """A TensorBoard event file, without its last `cut` bytes."""
    data = b""
    for name, values in scalars.items():
        for step, value in enumerate(values):
            event = Event(step=step)
            event.summary.value.add(tag=name, simple_value=value)
            record = event.SerializeToString()
            data += struct.pack("<Q", len(record)) + b"\0" * 4 + record + b"\0" * 4
    return data[: len(data) - cut]


def put_experiment(store: Store, folder: str = "/experiments/1_cells/7_RT-DETRv2", **info) -> None:
    """Store an experiment; `info` overrides its fields."""
    content = {
        "experiment_name": "cells, first try",
        "model_name": "RT-DETRv2-S",
        "task_type": "object detection",
        "project_id": 1,
        "task_id": 7,
        "train_size": 160,
        "val_size": 40,
        "best_checkpoint": "best.pth",
        "hyperparameters": "hyperparameters.yaml",
        "evaluation_metrics": {},
        **info,
    }
    curves = {
        "val/AP": [0.1, 0.3, 0.5, 0.4],
        "val/AP50": [0.2, 0.5, 0.7, 0.8],
        "val/loss": [9.0, 7.5, 7.0, 7.2],
        "train/loss": [30 / (1 + n / 9) for n in range(80)],
    }
    files = {
        "experiment_info.json": json.dumps(content).encode(),
        "hyperparameters.yaml": f"epoches: 4 # {EVIL}\n".encode(),
        "checkpoints/best.pth": b"\0" * 3_000_000,
        "logs/events.out.tfevents.1.local": event_file(curves),
        "app_state.json": b'{"model": "S"}',
        "empty.txt": b"",
        "visualization/evil.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">'
        b"<script>window.hacked=3</script></svg>",
    }
    for name, contents in files.items():
        store.files.put_path(TEAM_ID, f"{folder}/{name}", contents)


def progress(percent: int, message: str = "Epochs") -> dict:
    """Data of a progress widget of the SDK."""
    return {"percent": percent, "info": f"{percent}/100", "message": message, "status": "primary"}


def start_task(store: Store, **app) -> int:
    """Start a task with a running, a finished and a not yet started bar."""
    task_id = store.tasks.create(app={"name": "Train RT-DETRv2", **app})
    store.tasks.set_status(task_id, "started")
    widgets = {
        "ProgressAutoId1": progress(40),
        "ProgressAutoId2": {**progress(100, "Downloading"), "status": "success"},
        "ProgressAutoId3": {"percent": 0, "info": None, "message": None, "status": None},
        "TextAutoId1": {"text": "Status: Training is in progress...", "status": "info"},
    }
    patch = [{"op": "add", "path": f"/{key}", "value": value} for key, value in widgets.items()]
    store.tasks.patch_content(task_id, {"data": patch})
    return task_id
