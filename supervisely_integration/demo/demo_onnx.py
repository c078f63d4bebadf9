"""Detects objects with an exported ONNX file; needs onnxruntime, numpy and pillow, nothing else.

    python demo/demo_onnx.py image.jpg folder_of_images --threshold 0.4

The file says itself which classes and input size it has, and which thresholds were the best.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

from demo_common import Detection, parse_arguments, show


@dataclass(frozen=True)
class Description:
    """What a demo needs to know of a model.

    Attributes:
        class_names: by label.
        input_size_hw: (height, width) that the network takes.
        thresholds: [K] the best of each class; None if they were not measured.
    """

    class_names: Sequence[str]
    input_size_hw: tuple[int, int]
    thresholds: Sequence[float] | None


def open_session(path: Path, device: str) -> ort.InferenceSession:
    """Load an ONNX file.

    Raises:
        SystemExit: if it is none, or the device is not there.
    """
    if device not in ("cpu", "cuda"):
        raise SystemExit(f"--device {device}: give cpu or cuda")
    wanted = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    options = ort.SessionOptions()
    options.log_severity_level = 3  # it warns about its own choices
    try:
        session = ort.InferenceSession(
            path, options, providers=list(dict.fromkeys([wanted, "CPUExecutionProvider"]))
        )
    except Exception as error:  # noqa: BLE001 (its errors have no common class)
        raise SystemExit(f"{path}: ONNX Runtime cannot load it ({_first(error)})") from error
    # Where CUDA's libraries are missing it goes on without them, many times slower.
    if wanted not in session.get_providers():
        raise SystemExit(
            "--device cuda: ONNX Runtime finds no CUDA here; install onnxruntime-gpu and the CUDA "
            "and cuDNN that it was built for, or use --device cpu"
        )
    return session


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def read_description(metadata: Mapping[str, str], path: Path) -> Description:
    """Read the description in an ONNX file.

    Args:
        metadata: of the file.
        path: for the error.

    Raises:
        SystemExit: if there is none.
    """
    try:
        names = json.loads(metadata["class_names"])
        height, width = json.loads(metadata["input_size_hw"])
        overall, own = json.loads(metadata["threshold"]), json.loads(metadata["class_thresholds"])
    except (KeyError, ValueError, TypeError) as error:
        raise SystemExit(
            f"{path}: does not say which classes and input size it has ({error!r}); export the "
            "checkpoint with the RT-DETRv2 app or its command line"
        ) from error
    thresholds = None if overall is None else [own.get(name, overall) for name in names]
    return Description(names, (height, width), thresholds)


def choose_thresholds(description: Description, wanted: float | str, path: Path) -> np.ndarray:
    """Lowest score of each class.

    Args:
        description: of the model.
        wanted: a number for all, or "auto".
        path: for the error.

    Returns:
        [K] float32.

    Raises:
        SystemExit: if "auto" is asked of a model without thresholds.
    """
    if wanted != "auto":
        return np.full(len(description.class_names), wanted, np.float32)
    if description.thresholds is None:
        raise SystemExit(f"{path}: no thresholds were measured for it; give --threshold, as in 0.5")
    return np.asarray(description.thresholds, np.float32)


def preprocess(picture: Image.Image, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize to the network's input, whatever the shape; no mean, no standard deviation.

    Pillow's bilinear filter looks at all pixels when it shrinks, as the one of the training does.

    Returns:
        [1, 3, height, width] float32 RGB, 0..1.
    """
    height, width = size_hw
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, np.float32) / 255
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def detect(
    session: ort.InferenceSession,
    description: Description,
    thresholds: np.ndarray,
    picture: Image.Image,
) -> list[Detection]:
    """Find objects in a picture, best first."""
    size_wh = np.array([picture.size], np.int64)  # (width, height) of the original
    inputs = {
        "images": preprocess(picture, description.input_size_hw),
        "orig_target_sizes": size_wh,
    }
    (labels,), (boxes,), (scores,) = session.run(["labels", "boxes", "scores"], inputs)
    boxes = boxes.clip(0, np.tile(size_wh[0], 2))
    return [
        Detection(int(label), description.class_names[label], float(score), tuple(box.tolist()))
        for label, box, score in zip(labels, boxes, scores, strict=True)
        if score >= thresholds[label]
    ]


def main() -> None:
    """Run on the pictures of the command line."""
    arguments = parse_arguments("Detect objects with ONNX Runtime.", "export/*.onnx")
    session = open_session(arguments.model, arguments.device)
    metadata = session.get_modelmeta().custom_metadata_map
    description = read_description(metadata, arguments.model)
    thresholds = choose_thresholds(description, arguments.threshold, arguments.model)
    show(arguments, lambda picture: detect(session, description, thresholds, picture))


if __name__ == "__main__":
    main()
