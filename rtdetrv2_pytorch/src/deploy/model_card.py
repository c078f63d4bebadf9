"""Model card: the metadata stored in a model file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ..data.images.pixel_range import PixelRange, checked_range
from ..misc.errors import CheckpointError
from ..misc.limits import MAX_SIDE_PX

ExportPrecision = Literal["fp32", "fp16"]
FilePrecision = Literal["fp32", "fp16", "int8"]

_FORMAT = "1"
_MAX_DETECTIONS = 100_000  # per image
_TEXT_FIELDS = ("model_name", "precision", "sampling", "source_sha256")  # all other fields are JSON
_ADDED_FIELDS = ("pixel_range", "trained_size_hw")  # files of earlier versions do not have them
# Documentation of inputs and outputs for users of other code.
_DOCUMENTATION = {
    "images": "[N, 3, height, width] float32 RGB; pixel / 255, no mean, no standard deviation",
    "pixel_range_meaning": "values of images with more than 8 bits that become 0 and 255; null: "
    "0..65535 for integers, 0..1 for floats",
    "preprocessing": "resize to input_size_hw for any aspect ratio, bilinear with antialiasing",
    "orig_target_sizes": "[N, 2] int64 (width, height) of the original images",
    "labels": "[N, num_detections] int64, places in class_names",
    "boxes": "[N, num_detections, 4] float32 x1 y1 x2 y2 in pixels of the original images",
    "scores": "[N, num_detections] float32 0..1, best first; use those above the thresholds",
    "input_size_order": "height, width",
}


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Metadata that is needed to run a detector.

    Raises:
        ValueError: if a value is out of range.
    """

    class_names: tuple[str, ...]  # in label order
    input_size_hw: tuple[int, int]  # (height, width) of the network's input
    trained_size_hw: tuple[int, int] | None = None  # if it is another one than `input_size_hw`
    model_name: str = ""  # in the model table, if known
    num_detections: int = 300  # per image, before thresholds
    threshold: float | None = None  # score with the best F1 over all classes, if measured
    class_thresholds: Mapping[str, float] = field(default_factory=dict)  # the same by class name
    precision: FilePrecision = "fp32"  # of most of the network; see `graph.half` and `int8.graph`
    sampling: Literal["default", "discrete"] = "default"  # "discrete" avoids GridSample
    nms_iou: float | None = None  # IoU threshold of the NMS inside the file, if any
    pixel_range: PixelRange | None = None  # of images with more than 8 bits; see `PixelRange`
    source_sha256: str = ""  # of the checkpoint
    versions: Mapping[str, str] = field(default_factory=dict)  # of packages, at export

    def __post_init__(self) -> None:
        if not all(1 <= side <= MAX_SIDE_PX for side in self.input_size_hw):
            raise ValueError(f"input_size_hw = {self.input_size_hw}: must be 1 to {MAX_SIDE_PX}")
        if not self.class_names:
            raise ValueError("class_names is empty")
        if not 1 <= self.num_detections <= _MAX_DETECTIONS:
            raise ValueError(
                f"num_detections = {self.num_detections}: must be 1 to {_MAX_DETECTIONS}"
            )
        overall = [] if self.threshold is None else [self.threshold]
        if not all(0 <= value <= 1 for value in (*overall, *self.class_thresholds.values())):
            raise ValueError("thresholds must be between 0 and 1")
        if self.nms_iou is not None and not 0 < self.nms_iou <= 1:
            raise ValueError(f"nms_iou = {self.nms_iou}: must be above 0 and at most 1")
        object.__setattr__(self, "pixel_range", checked_range(self.pixel_range))

    def to_metadata(self) -> dict[str, str]:
        """Return strings by key for ONNX metadata: numbers, lists and mappings as JSON."""
        facts = {k: v if k in _TEXT_FIELDS else json.dumps(v) for k, v in vars(self).items()}
        return {"rtdetrv2_card": _FORMAT, **facts, **_DOCUMENTATION}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, source: str) -> "ModelCard":
        """Parse the output of `to_metadata`.

        Raises:
            CheckpointError: if the metadata is missing or damaged.
        """
        if "rtdetrv2_card" not in metadata:
            raise CheckpointError(
                f"{source}: the metadata with classes and input size is missing; export the "
                "checkpoint with this package"
            )
        try:
            facts: dict[str, Any] = {
                each.name: metadata[each.name]
                if each.name in _TEXT_FIELDS
                else json.loads(metadata[each.name])
                for each in fields(cls)
                if each.name in metadata or each.name not in _ADDED_FIELDS
            }
            height, width = facts.pop("input_size_hw")
            trained = facts.pop("trained_size_hw", None)
            names = facts.pop("class_names")
            if not isinstance(names, list):
                raise TypeError("class_names is not a list")
            return cls(
                class_names=tuple(str(name) for name in names),
                input_size_hw=(int(height), int(width)),
                trained_size_hw=None if trained is None else (int(trained[0]), int(trained[1])),
                **facts,
            )
        except Exception as error:  # noqa: BLE001 (any content)
            raise CheckpointError(
                f"{source}: the metadata is damaged ({error!r}); export the checkpoint again"
            ) from error

    def thresholds(self) -> list[float]:
        """Return one threshold per label: that of its class, or the overall threshold.

        Raises:
            CheckpointError: if no thresholds were measured.
        """
        if self.threshold is None:
            raise CheckpointError(
                "confidence_threshold = 'auto': the model has no measured thresholds; give a "
                "threshold between 0 and 1"
            )
        return [self.class_thresholds.get(name, self.threshold) for name in self.class_names]


def thresholds_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the thresholds of a checkpoint as fields of a model card.

    Training stores threshold 1 for a class that was never detected, which would hide all its
    detections: such a class uses the overall threshold.

    Raises:
        CheckpointError: if the thresholds are not numbers.
    """
    measured = checkpoint.get("thresholds")
    if not isinstance(measured, Mapping) or not measured.get("overall"):
        return {}
    per_class = measured.get("per_class")
    try:
        values = {str(k): float(v) for k, v in per_class.items()} if per_class else {}
        overall = float(measured["overall"])
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the thresholds in the checkpoint are damaged ({error}); use a complete checkpoint"
        ) from error
    return {
        "threshold": overall if overall < 1 else 0.5,
        "class_thresholds": {name: value for name, value in values.items() if value < 1},
    }


def class_names_of(checkpoint: Mapping[str, Any]) -> Sequence[str] | None:
    """Return class names in label order, as written by this package or the Supervisely SDK.

    Raises:
        CheckpointError: if the names are malformed.
    """
    try:
        names = checkpoint.get("class_names")
        if names:
            return _strings(names)
        meta = checkpoint.get("model_meta")
        if isinstance(meta, Mapping) and meta.get("classes"):
            return _strings([entry["title"] for entry in meta["classes"]])
    except (LookupError, TypeError) as error:
        raise CheckpointError(
            f"the class names in the checkpoint are damaged ({error}); give class names"
        ) from error
    return None


def _strings(values: Any) -> list[str]:
    if not isinstance(values, list | tuple) or not all(isinstance(v, str | int) for v in values):
        raise TypeError("not a list of strings")
    return [str(value) for value in values]


def sha256_of(path: Path) -> str:
    """Return the hash of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
