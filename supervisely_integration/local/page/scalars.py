"""Training curves from TensorBoard event files."""

import math
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

CURVES = ("val/AP", "val/AP50", "val/loss", "train/loss")
_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "loss", "best_f1")
_BEST_METRIC = "val/AP"
_MAX_BYTES = 64 << 20
_MAX_POINTS = 400  # per curve; more are not visible
_HEAD, _CHECKSUM = struct.Struct("<Q"), 4

Curve = list[tuple[int, float]]


def read_scalars(paths: Sequence[Path]) -> dict[str, Curve]:
    """Return (step, value) by name, sorted by step; of repeated steps the last value counts.

    Epochs count from 1; files of earlier versions count them from 0.
    """
    merged: dict[str, dict[int, float]] = {}
    for path in paths:
        for name, points in _read_file(path).items():
            merged.setdefault(name, {}).update(points)
    first = 1 if 0 in merged.get(_BEST_METRIC, {}) else 0
    return {
        name: sorted(
            (step + first * name.startswith("val"), value) for step, value in points.items()
        )
        for name, points in merged.items()
    }


def curves_of(scalars: dict[str, Curve]) -> dict[str, Curve]:
    """Return the curves to show, with at most `_MAX_POINTS` points each."""
    found = {name: scalars[name] for name in CURVES if scalars.get(name)}
    return {
        name: curve[:: math.ceil(len(curve) / _MAX_POINTS)] if len(curve) > _MAX_POINTS else curve
        for name, curve in found.items()
    }


def best_metrics(scalars: dict[str, Curve]) -> dict[str, float]:
    """Return the metrics of the epoch with the highest AP; none without an evaluation."""
    ranked = scalars.get(_BEST_METRIC)
    if not ranked:
        return {}
    epoch, _ = max(ranked, key=lambda point: point[1])
    values = {name: dict(scalars.get(f"val/{name}", ())).get(epoch) for name in _METRICS}
    found = {name: value for name, value in values.items() if value is not None}
    return {**found, "epoch": epoch}


@lru_cache(maxsize=64)
def _read_file(path: Path) -> dict[str, dict[int, float]]:
    """Scalars of one file; cached, because a blob never changes."""
    found: dict[str, dict[int, float]] = {}
    for record in _records(path):
        event = Event()
        try:
            event.ParseFromString(record)
        except Exception:  # noqa: BLE001 (the type depends on the installed protobuf)
            break  # damaged: keep the records before it
        for value in event.summary.value:
            number = _number(value)
            if number is not None and math.isfinite(number):
                found.setdefault(value.tag, {})[event.step] = number
    return found


def _number(value: Any) -> float | None:
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind == "tensor" and value.tensor.float_val:
        return float(value.tensor.float_val[0])
    return None


def _records(path: Path) -> Iterator[bytes]:
    """Yield the records of a file: length, checksum, contents, checksum; the end may be missing."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return
        data = path.read_bytes()
    except OSError:
        return
    offset = 0
    while offset + _HEAD.size + _CHECKSUM <= len(data):
        (length,) = _HEAD.unpack_from(data, offset)
        start = offset + _HEAD.size + _CHECKSUM
        if start + length > len(data):
            return
        yield data[start : start + length]
        offset = start + length + _CHECKSUM
