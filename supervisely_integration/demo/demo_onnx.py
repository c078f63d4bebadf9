"""Detect objects with an exported ONNX file; needs only onnxruntime, numpy and pillow.

    python demo/demo_onnx.py image.jpg folder_of_images --threshold 0.4

Classes, input size and the best thresholds are metadata of the file.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from PIL import Image

from demo_common import Detection, PixelRange, parse_arguments, show


class Metadata(NamedTuple):
    """Metadata of a model."""

    class_names: Sequence[str]  # in label order
    input_size_hw: tuple[int, int]
    thresholds: Sequence[float] | None  # [K] best per class; None if not measured
    pixel_range: PixelRange | None = None  # of images with more than 8 bits


def open_session(path: Path, device: str) -> ort.InferenceSession:
    """Load an ONNX file.

    Raises:
        SystemExit: if the file is damaged or the device not available.
    """
    if device not in ("cpu", "cuda"):
        raise SystemExit(f"--device {device}: use cpu or cuda")
    wanted = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    options = ort.SessionOptions()
    options.log_severity_level = 3  # only errors
    try:
        session = ort.InferenceSession(
            path, options, providers=list(dict.fromkeys([wanted, "CPUExecutionProvider"]))
        )
    except Exception as error:  # noqa: BLE001 (ONNX Runtime has no common base class)
        raise SystemExit(f"{path}: ONNX Runtime cannot load the file ({_first(error)})") from error
    # Without the CUDA libraries ONNX Runtime silently falls back to the CPU.
    if wanted not in session.get_providers():
        raise SystemExit(
            "--device cuda: ONNX Runtime does not find CUDA; install onnxruntime-gpu with its CUDA "
            "and cuDNN, or use --device cpu"
        )
    return session


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def read_metadata(texts: Mapping[str, str], path: Path) -> Metadata:
    """Parse the metadata of an ONNX file; `path` is for the error.

    Raises:
        SystemExit: if it is missing or damaged.
    """
    try:
        names = json.loads(texts["class_names"])
        height, width = json.loads(texts["input_size_hw"])
        pixel_range = json.loads(texts.get("pixel_range", "null"))
        overall, own = json.loads(texts["threshold"]), json.loads(texts["class_thresholds"])
    except (KeyError, ValueError, TypeError) as error:
        raise SystemExit(
            f"{path}: the metadata with classes and input size is missing or damaged ({error!r}); "
            "export the checkpoint with the RT-DETRv2 app or its command line"
        ) from error
    thresholds = None if overall is None else [own.get(name, overall) for name in names]
    return Metadata(names, (height, width), thresholds, pixel_range)


def choose_thresholds(metadata: Metadata, wanted: float | str, path: Path) -> np.ndarray:
    """Return the minimum score per class: [K] float32.

    Raises:
        SystemExit: for "auto" with a model without thresholds.
    """
    if wanted != "auto":
        return np.full(len(metadata.class_names), wanted, np.float32)
    if metadata.thresholds is None:
        raise SystemExit(f"{path}: no measured thresholds; give --threshold, as in 0.5")
    return np.asarray(metadata.thresholds, np.float32)


def preprocess(image: Image.Image, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize to the input size, ignoring the aspect ratio, and scale to 0..1.

    Pillow's bilinear filter antialiases, as in training.

    Returns:
        [1, 3, height, width] float32 RGB, 0..1.
    """
    height, width = size_hw
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, np.float32) / 255
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def detect(
    session: ort.InferenceSession,
    metadata: Metadata,
    thresholds: np.ndarray,
    image: Image.Image,
) -> list[Detection]:
    """Detect objects in an image, highest score first."""
    size_wh = np.array([image.size], np.int64)  # (width, height) of the original image
    inputs = {
        "images": preprocess(image, metadata.input_size_hw),
        "orig_target_sizes": size_wh,
    }
    (labels,), (boxes,), (scores,) = session.run(["labels", "boxes", "scores"], inputs)
    boxes = boxes.clip(0, np.tile(size_wh[0], 2))
    return [
        Detection(int(label), metadata.class_names[label], float(score), tuple(box.tolist()))
        for label, box, score in zip(labels, boxes, scores, strict=True)
        if score >= thresholds[label]
    ]


def main() -> None:
    """Run on the images of the command line."""
    arguments = parse_arguments("Detect objects with ONNX Runtime.", "export/*.onnx")
    session = open_session(arguments.model, arguments.device)
    metadata = read_metadata(session.get_modelmeta().custom_metadata_map, arguments.model)
    thresholds = choose_thresholds(metadata, arguments.threshold, arguments.model)
    show(
        arguments,
        lambda image: detect(session, metadata, thresholds, image),
        metadata.pixel_range,
    )


if __name__ == "__main__":
    main()
