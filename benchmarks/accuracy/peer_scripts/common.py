"""What the scripts of peers share; without imports of this package or of a peer."""

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Request:
    """A request of the benchmark: data, size, time and settings.

    Args:
        path: of the JSON file.
    """

    def __init__(self, path: str) -> None:
        values = json.loads(Path(path).read_text())
        self.size: int = values["size"]
        self.seed: int = values["seed"]
        self.seconds: float = values["minutes"] * 60
        self.evaluations: int = values["evaluations"]
        self.device: str = values["device"]
        self.settings: dict[str, Any] = values["settings"]
        self.output = Path(values["output"])
        self.train = CocoSplit(**values["train"])
        self.val = CocoSplit(**values["val"])


class CocoSplit:
    """Images and boxes of a COCO file.

    Args:
        ann_file: the COCO file.
        images: folder of the images.
    """

    def __init__(self, ann_file: str, images: str) -> None:
        content = json.loads(Path(ann_file).read_text())
        self.folder = Path(images)
        self.images: list[dict[str, Any]] = content["images"]
        categories = sorted(content["categories"], key=lambda each: each["id"])
        used = {each["category_id"] for each in content["annotations"]}
        # Roboflow adds a category without boxes.
        categories = [c for c in categories if c["id"] in used] or categories
        self.category_ids: list[int] = [category["id"] for category in categories]
        self.names: list[str] = [category["name"] for category in categories]
        self._boxes: dict[int, list[dict[str, Any]]] = {}
        for each in content["annotations"]:
            if min(each["bbox"][2:]) > 0 and not each.get("iscrowd"):
                self._boxes.setdefault(each["image_id"], []).append(each)

    def path(self, image: dict[str, Any]) -> Path:
        """Return the path of an image."""
        return self.folder / image["file_name"]

    def boxes(self, image: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the COCO annotations of an image, without crowds and empty boxes."""
        return self._boxes.get(image["id"], [])


class Recorder:
    """Writes predictions with the time of training and evaluation so far.

    Args:
        request: of the benchmark.
        run: facts about the run for the result.
    """

    def __init__(self, request: Request, run: dict[str, Any]) -> None:
        self._folder = request.output
        self._run = run
        self._begin = time.perf_counter()
        self._excluded = 0.0
        self._count = 0

    @property
    def seconds(self) -> float:
        """Seconds so far, without excluded ones."""
        return time.perf_counter() - self._begin - self._excluded

    def exclude(self, seconds: float) -> None:
        """Remove time that the training itself does not take."""
        self._excluded += seconds

    def write(self, rows: Iterable[dict[str, Any]], *, epoch: int, steps: int) -> None:
        """Write the predictions of an evaluation.

        Args:
            rows: entries of a COCO results file.
            epoch: number of epochs so far.
            steps: optimizer steps so far.
        """
        seconds, self._count = self.seconds, self._count + 1
        name = f"predictions-{self._count:04d}.json"
        (self._folder / name).write_text(json.dumps(list(rows)))
        stamp = {
            "minutes": seconds / 60,
            "epoch": epoch,
            "steps": steps,
            "predictions": name,
            "run": self._run,
        }
        with (self._folder / "evaluations.jsonl").open("a") as file:
            file.write(json.dumps(stamp) + "\n")
        self.exclude(self.seconds - seconds)


def read_request() -> Request:
    """Return the request named on the command line."""
    return Request(sys.argv[1])


def row(image_id: int, category_id: int, xyxy: list[float], score: float) -> dict[str, Any]:
    """Return an entry of a COCO results file."""
    x1, y1, x2, y2 = xyxy
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
        "score": round(score, 6),
    }
