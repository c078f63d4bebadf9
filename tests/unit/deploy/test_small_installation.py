"""Prediction needs few packages; a missing one is reported with the extra that contains it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tests.random_detectors import save_random_detector

ROOT = Path(__file__).parents[3]
SCRIPT = """
import json, sys
from importlib.machinery import PathFinder

BLOCKED = {
    *("scipy", "sklearn", "faster_coco_eval", "pycocotools", "torchvision", "matplotlib"),
    *("tensorboard", "onnx", "onnxruntime", "onnxslim", "openvino", "nncf", "supervisely"),
    *("fastapi", "pandas", "transformers", "httpx", "cv2"),
}

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        is_blocked = name.split(".")[0] in BLOCKED
        return None if is_blocked else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
from rtdetrv2_pytorch.src.deploy.predictor import Predictor
from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from rtdetrv2_pytorch.src.misc.errors import ConfigError

checkpoint, image, export = sys.argv[1:]
predictor = Predictor(open_runtime(checkpoint))
pictures = [predictor.read(image)]
(found,), _ = predictor.predict(pictures, confidence_threshold=0.0)
(fewer,), _ = predictor.predict(pictures, confidence_threshold=0.0, nms_iou=0.01)
messages = []
for kind in ("onnxruntime", "openvino"):
    try:
        open_runtime(export, kind)
    except ConfigError as error:
        messages.append(str(error))
BLOCKED.remove("onnx")  # an installation of the extra "onnx", without NNCF
from rtdetrv2_pytorch.src.deploy.int8.calibration import load_nncf

try:
    load_nncf()
except ConfigError as error:
    messages.append(str(error))
print(json.dumps([len(found["boxes"]), len(fewer["boxes"]), messages]))
"""


def test_checkpoint_predicts_without_the_packages_of_extras(tmp_path):
    checkpoint = save_random_detector(tmp_path / "best.pth")
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    (tmp_path / "best.onnx").touch()
    names = [str(tmp_path / "image.png"), str(tmp_path / "best.onnx")]
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(checkpoint), *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found, fewer, messages = json.loads(result.stdout)
    assert found > fewer > 0
    assert messages == [
        "the package onnxruntime is not installed; run: pip install 'rtdetrv2[onnx]'",
        "the package openvino is not installed; run: pip install 'rtdetrv2[openvino]'",
        "the package nncf is not installed; run: pip install 'rtdetrv2[int8]'",
    ]
