"""Detect objects with a trained checkpoint; needs this repository and its requirements.

    python demo/demo_pytorch.py image.jpg folder_of_images --threshold 0.4

The checkpoint contains network, classes and input size. The Supervisely SDK is not needed.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from demo_common import Detection, parse_arguments, show

ENGINE = "rtdetrv2_pytorch"


def find_engine() -> None:
    """Make the code of the repository importable from any directory.

    Raises:
        SystemExit: if it is not found.
    """
    if importlib.util.find_spec(ENGINE) is not None:
        return
    for folder in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (folder / ENGINE / "__init__.py").is_file():
            sys.path.append(str(folder))
            return
    raise SystemExit(
        f"{ENGINE} not found. Clone the repository of the app, install its requirements.txt, and "
        "run this in its folder, or with PYTHONPATH=path/to/the/repository"
    )


def run(arguments: argparse.Namespace, kind: str) -> None:
    """Run on the images of the command line; `kind` is a runtime of `open_runtime`.

    Raises:
        SystemExit: if the model cannot be run.
    """
    find_engine()
    try:
        from rtdetrv2_pytorch.src.deploy.predictor import Predictor
        from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
        from rtdetrv2_pytorch.src.misc.errors import RTDETRError
    except ImportError as error:
        raise SystemExit(f"{error}: install requirements.txt of the repository") from error

    try:
        predictor = Predictor(open_runtime(arguments.model, kind, device=arguments.device))
        card = predictor.runtime.card
        names = card.class_names

        def detect(image: Image.Image) -> list[Detection]:
            (found,), _ = predictor.predict([np.asarray(image)], arguments.threshold)
            rows = zip(*(found[key].tolist() for key in ("labels", "scores", "boxes")), strict=True)
            return [Detection(label, names[label], score, tuple(box)) for label, score, box in rows]

        show(arguments, detect, card.pixel_range)
    except RTDETRError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    run(parse_arguments("Detect objects with PyTorch.", "checkpoints/best*.pth"), "pytorch")
