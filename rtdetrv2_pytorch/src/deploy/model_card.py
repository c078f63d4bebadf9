"""What a model file says about itself, so that it can be used with no other file beside it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ..misc.errors import CheckpointError
from ..misc.limits import MAX_SIDE_PX

ExportPrecision = Literal["fp32", "fp16"]

_FORMAT = "1"
_MAX_DETECTIONS = 100_000  # per image
_TEXTS = ("model_name", "precision", "sampling", "source_sha256")  # all else is JSON
# The contract of the two inputs and three outputs, for people who use the file with other code.
_READ_BY_PEOPLE = {
    "images": "[N, 3, height, width] float32 RGB; pixel / 255, no mean, no standard deviation",
    "preprocessing": "resize to input_size_hw whatever the shape, bilinear with antialiasing",
    "orig_target_sizes": "[N, 2] int64 (width, height) of the original images",
    "labels": "[N, num_detections] int64, places in class_names",
    "boxes": "[N, num_detections, 4] float32 x1 y1 x2 y2 in pixels of the original images",
    "scores": "[N, num_detections] float32 0..1, best first; use those above the thresholds",
    "input_size_order": "height, width",
}


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Facts that a detector cannot be used without.

    Attributes:
        class_names: in label order.
        input_size_hw: (height, width) of the network's input.
        model_name: of the table of models, if it is known.
        num_detections: per image, before any threshold.
        threshold: score of the best F1 over all classes, where it was measured.
        class_thresholds: the same by class name.
        precision: "fp16" where most of the network computes in 16 bits.
        sampling: of the deformable attention; "discrete" needs no GridSample.
        nms_iou: of the suppression that is part of the file, if there is one.
        source_sha256: of the checkpoint.
        versions: of what made the file.

    Raises:
        ValueError: for values that no detector has.
    """

    class_names: tuple[str, ...]
    input_size_hw: tuple[int, int]
    model_name: str = ""
    num_detections: int = 300
    threshold: float | None = None
    class_thresholds: Mapping[str, float] = field(default_factory=dict)
    precision: ExportPrecision = "fp32"
    sampling: Literal["default", "discrete"] = "default"
    nms_iou: float | None = None
    source_sha256: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(1 <= side <= MAX_SIDE_PX for side in self.input_size_hw):
            raise ValueError(f"input_size_hw = {self.input_size_hw}: 1 to {MAX_SIDE_PX} pixels")
        if not self.class_names:
            raise ValueError("class_names is empty")
        if not 1 <= self.num_detections <= _MAX_DETECTIONS:
            raise ValueError(f"num_detections = {self.num_detections}: 1 to {_MAX_DETECTIONS}")
        overall = [] if self.threshold is None else [self.threshold]
        if not all(0 <= value <= 1 for value in (*overall, *self.class_thresholds.values())):
            raise ValueError("thresholds have to be between 0 and 1")
        if self.nms_iou is not None and not 0 < self.nms_iou <= 1:
            raise ValueError(f"nms_iou = {self.nms_iou}: above 0, up to 1")

    def to_metadata(self) -> dict[str, str]:
        """Text by key, as ONNX keeps it: numbers, lists and mappings as JSON."""
        facts = {k: v if k in _TEXTS else json.dumps(v) for k, v in vars(self).items()}
        return {"rtdetrv2_card": _FORMAT, **facts, **_READ_BY_PEOPLE}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, source: str) -> "ModelCard":
        """Read what `to_metadata` wrote.

        Raises:
            CheckpointError: if a file of another origin, or a damaged one, lacks it.
        """
        if "rtdetrv2_card" not in metadata:
            raise CheckpointError(
                f"{source}: does not say which classes and input size it has, so another program "
                "exported it; export the checkpoint again with this one"
            )
        try:
            facts: dict[str, Any] = {
                each.name: metadata[each.name]
                if each.name in _TEXTS
                else _parse(metadata[each.name])
                for each in fields(cls)
            }
            height, width = facts.pop("input_size_hw")
            names = facts.pop("class_names")
            if not isinstance(names, list):
                raise TypeError("class_names is no list")
            return cls(
                class_names=tuple(str(name) for name in names),
                input_size_hw=(int(height), int(width)),
                **facts,
            )
        except (LookupError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
            raise CheckpointError(
                f"{source}: its description is damaged ({error!r}); export the checkpoint again"
            ) from error

    def thresholds(self) -> list[float]:
        """One threshold per label: that of its class, else the one of all classes.

        Raises:
            CheckpointError: if none was measured.
        """
        if self.threshold is None:
            raise CheckpointError(
                "the model: no thresholds were measured for it, so 'auto' cannot be used; give a "
                "confidence threshold between 0 and 1"
            )
        return [self.class_thresholds.get(name, self.threshold) for name in self.class_names]


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def thresholds_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a card that training measured.

    A class that was never found has threshold 1 and F1 0 there, which would hide it for ever: it
    takes the threshold of all classes.

    Raises:
        CheckpointError: if they are no numbers.
    """
    measured = checkpoint.get("thresholds")
    if not isinstance(measured, Mapping) or not measured.get("overall"):
        return {}
    per_class = measured.get("per_class")
    try:
        values = {str(k): float(v) for k, v in per_class.items()} if per_class else {}
        overall = float(measured["overall"])
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"the thresholds in the checkpoint are damaged ({error})") from error
    return {
        "threshold": overall if overall < 1 else 0.5,
        "class_thresholds": {name: value for name, value in values.items() if value < 1},
    }


def class_names_of(checkpoint: Mapping[str, Any]) -> Sequence[str] | None:
    """Class names in label order, as this program or the Supervisely SDK wrote them.

    Raises:
        CheckpointError: if what should be them is something else.
    """
    try:
        names = checkpoint.get("class_names")
        if names:
            return _texts(names)
        meta = checkpoint.get("model_meta")
        if isinstance(meta, Mapping) and meta.get("classes"):
            return _texts([entry["title"] for entry in meta["classes"]])
    except (LookupError, TypeError) as error:
        raise CheckpointError(f"the class names in the checkpoint are damaged ({error})") from error
    return None


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list | tuple) or not all(isinstance(v, str | int) for v in values):
        raise TypeError("no list of texts")
    return [str(value) for value in values]


def sha256_of(path: Path) -> str:
    """Hash of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
