"""Train RT-DETRv2 of `libreyolo` with its own settings, from random weights.

The image size, the time and the number of evaluations are those of the benchmark. The number of
epochs that fits in the time is chosen from a training of one epoch.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import CocoSplit, Recorder, Request, read_request, row
from libreyolo import LibreRTDETRv2

_SIZE = "r18"


def write_yolo(request: Request, folder: Path) -> Path:
    """Write the data in YOLO format, with links to the images; return its data.yaml."""
    for name, split in (("train", request.train), ("val", request.val)):
        for kind in ("images", "labels"):
            (folder / kind / name).mkdir(parents=True, exist_ok=True)
        for image in split.images:
            source = split.path(image)
            stem = f"{image['id']:06d}"
            (folder / "images" / name / f"{stem}{source.suffix}").symlink_to(source)
            lines = [
                yolo_line(
                    each["bbox"], request.train.category_ids.index(each["category_id"]), image
                )
                for each in split.boxes(image)
            ]
            (folder / "labels" / name / f"{stem}.txt").write_text("\n".join(lines))
    names = request.train.names
    content = {
        "path": str(folder),
        "train": "images/train",
        "val": "images/val",
        "nc": len(names),
        "names": names,
    }
    path = folder / "data.yaml"
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def yolo_line(bbox: list[float], label: int, image: dict[str, Any]) -> str:
    """Return a line of a label file."""
    x, y, width, height = bbox
    width_px, height_px = image["width"], image["height"]
    center = (x + width / 2) / width_px, (y + height / 2) / height_px
    return " ".join(map(str, (label, *center, width / width_px, height / height_px)))


def train(request: Request, data: Path, epochs: int, name: str, **options: Any) -> None:
    """Train from random weights with the defaults of the package."""
    model = LibreRTDETRv2(
        None, size=_SIZE, nb_classes=len(request.train.names), device=request.device
    )
    model.train(
        str(data),
        epochs=epochs,
        imgsz=request.size,
        device=request.device,
        seed=request.seed,
        pretrained=False,
        workers=1,
        project=str(request.output),
        name=name,
        exist_ok=True,
        patience=0,
        amp=request.device != "cpu",
        **{**request.settings, **options},
    )


def predict(request: Request, checkpoint: Path) -> Iterator[dict[str, Any]]:
    """Yield the detections of a checkpoint on the validation images."""
    val: CocoSplit = request.val
    model = LibreRTDETRv2(
        str(checkpoint),
        size=_SIZE,
        nb_classes=len(request.train.names),
        device=request.device,
    )
    for image in val.images:
        found = model.predict(
            str(val.path(image)), conf=0.0, max_det=300, imgsz=request.size, save=False
        )
        result = found[0] if isinstance(found, list) else found
        boxes = result.boxes
        detections = (part.tolist() for part in (boxes.xyxy, boxes.cls, boxes.conf))
        for box, label, score in zip(*detections, strict=True):
            yield row(image["id"], request.train.category_ids[int(label)], box, score)


class Evaluations:
    """Predicts with the weights that the package evaluated, outside the clock."""

    def __init__(self, request: Request, steps_per_epoch: int, run: dict[str, Any]) -> None:
        self._request = request
        self._steps_per_epoch = steps_per_epoch
        self._run = run

    def on_train_start(self, event: Any) -> None:
        """Start the clock."""
        self._recorder = Recorder(self._request, self._run)

    def on_train_epoch_end(self, event: Any) -> None:
        """Predict if the package evaluated this epoch."""
        if not event.validated:
            return
        begin = time.perf_counter()
        rows = list(predict(self._request, Path(event.save_dir) / "weights" / "last.pt"))
        # The package has evaluated already; only its own evaluation counts.
        self._recorder.exclude(time.perf_counter() - begin)
        epoch = event.epoch
        self._recorder.write(rows, epoch=epoch, steps=epoch * self._steps_per_epoch)

    def on_train_end(self, event: Any) -> None:
        """Do nothing."""

    def on_train_exception(self, event: Any) -> None:
        """Do nothing; the package raises the error."""


class Clock:
    """Keeps the seconds of each epoch."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.epoch_s = 0.0

    def on_train_start(self, event: Any) -> None:
        """Start."""
        self.begin = time.perf_counter()

    def on_train_epoch_end(self, event: Any) -> None:
        """Stop."""
        self.epoch_s = time.perf_counter() - self.begin

    def on_train_end(self, event: Any) -> None:
        """Do nothing."""

    def on_train_exception(self, event: Any) -> None:
        """Do nothing."""


def main() -> None:
    """Choose the number of epochs for the time, and train."""
    request = read_request()
    data = write_yolo(request, request.output / "yolo")
    clock = Clock()
    train(request, data, 1, "probe", callbacks=[clock], eval_interval=1)
    epochs = max(1, round(request.seconds / clock.epoch_s))
    interval = max(1, round(epochs / request.evaluations))
    batch = request.settings.get("batch", 4)
    evaluations = Evaluations(
        request,
        len(request.train.images) // batch,
        {"epochs": epochs, "eval_interval": interval, **request.settings},
    )
    train(request, data, epochs, "run", callbacks=[evaluations], eval_interval=interval)


if __name__ == "__main__":
    main()
