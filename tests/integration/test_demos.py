"""The demo scripts, run outside Supervisely on a real image."""

import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from PIL import Image

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.data.images.decoding import read_rgb
from rtdetrv2_pytorch.src.data.images.preprocess import preprocess
from rtdetrv2_pytorch.src.deploy.detector import load_detector
from rtdetrv2_pytorch.src.deploy.onnx import write_onnx
from rtdetrv2_pytorch.src.deploy.predictor import Predictor
from rtdetrv2_pytorch.src.deploy.runtimes import PyTorchRuntime
from tests.random_detectors import randomize_weights
from tests.tiny import CONFIGS, NETWORK

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "supervisely_integration" / "demo"
NAMES = ["red cell", "white cell", "тромбоцит"]
SIZE_HW = (512, 640)  # Pillow and torchvision resize the 480 x 640 photo equally
ROUNDING = {"score": 0.0006, "pixels": 0.06}  # of printed scores and boxes
OTHER_RUNTIME = {"score": 0.002, "pixels": 0.3}
NOT_NEEDED = {
    "demo_onnx.py": "supervisely torch torchvision onnx rtdetrv2_pytorch cv2 yaml scipy",
    "demo_pytorch.py": "supervisely fastapi",
    "demo_tensorrt.py": "supervisely fastapi",
}
# sitecustomize.py that makes the packages in BLOCKED, and those in the folder HIDDEN, unavailable.
BLOCKER = """
import os, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in os.environ["BLOCKED"].split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
sys.path[:] = [path for path in sys.path if path != os.environ["HIDDEN"]]
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> SimpleNamespace:
    """A downloaded experiment, and the predictor of its checkpoint."""
    folder = tmp_path_factory.mktemp("experiment") / "7_RT-DETRv2"
    shutil.copytree(DEMO, folder / "demo", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "checkpoints").mkdir()
    (folder / "export").mkdir()
    cfg = YAMLConfig(
        CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml",
        **NETWORK,
        eval_spatial_size=list(SIZE_HW),
        num_classes=len(NAMES),
        device="cpu",
    )
    checkpoint = folder / "checkpoints" / "best.pth"
    content = {
        "model": randomize_weights(cfg.model, SIZE_HW).state_dict(),
        "config": cfg.yaml_cfg,
        "class_names": NAMES,
        "eval_spatial_size": list(SIZE_HW),
    }
    torch.save(content, checkpoint)
    detector, card = load_detector(checkpoint)
    write_onnx(detector, card, folder / "export" / "best.onnx")
    predictor = Predictor(PyTorchRuntime(detector, card, torch.device("cpu")))
    return SimpleNamespace(
        folder=folder, checkpoint=checkpoint, content=content, card=card, predictor=predictor
    )


@pytest.fixture(scope="module")
def photo(bccd) -> Path:
    return sorted((bccd / "supervisely" / "val" / "img").glob("*.jpg"))[0]


@pytest.fixture
def start(tmp_path):
    """start(script, *arguments): run a process in an empty directory, without NOT_NEEDED."""
    (tmp_path / "blocker").mkdir()
    (tmp_path / "blocker" / "sitecustomize.py").write_text(BLOCKER)
    (tmp_path / "here").mkdir()

    def run(script, *arguments, paths=(), gpus="", hidden=""):
        environment = {
            **os.environ,
            "BLOCKED": NOT_NEEDED[script.name],
            "HIDDEN": str(hidden),
            "PYTHONPATH": os.pathsep.join(map(str, (tmp_path / "blocker", *paths))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CUDA_VISIBLE_DEVICES": gpus,
            "PYTHONIOENCODING": "utf-8",
        }
        result = subprocess.run(
            [sys.executable, str(script), *map(str, arguments)],
            cwd=tmp_path / "here",
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        result.here = tmp_path / "here"
        return result

    return run


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """call(script, *arguments): like `start`, but in this process."""
    here = tmp_path / "here"
    here.mkdir(exist_ok=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def run(script, *arguments):
        for name in ("demo_common", "demo_pytorch"):  # of another copy of the demos
            monkeypatch.delitem(sys.modules, name, raising=False)
        capsys.readouterr()
        code = 0
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(script.parent))
            patch.setattr(sys, "argv", [str(script), *map(str, arguments)])
            try:
                runpy.run_path(str(script), run_name="__main__")
            except SystemExit as ended:
                code = ended.code
        out, err = capsys.readouterr()
        if isinstance(code, str):  # as the interpreter does
            code, err = 1, f"{err}{code}\n"
        return SimpleNamespace(returncode=code, stdout=out, stderr=err, here=here)

    yield run
    for name in ("demo_common", "demo_pytorch"):
        sys.modules.pop(name, None)


@pytest.fixture
def common(monkeypatch):
    return load("demo_common", monkeypatch)


def load(name, monkeypatch):
    """Load a file of the demos as a module; they import each other by bare names."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(DEMO))
    spec = importlib.util.spec_from_file_location(name, DEMO / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def printed(text):
    """Parse the output: the headline of each image and its rows (name, score, box)."""
    tables = []
    for line in text.splitlines():
        row = re.fullmatch(r"  (.+?) +(\d\.\d{3})" + r" +(-?\d+\.\d)" * 4, line)
        if re.search(r": \d+ x \d+, \d+ found$", line):
            tables.append((line, []))
        elif row:
            name, *numbers = row.groups()
            score, *box = map(float, numbers)
            tables[-1][1].append((name, score, box))
    return tables


def found_by_pytorch(experiment, path, threshold):
    (found,), _ = experiment.predictor.predict([read_rgb(path)], threshold)
    rows = zip(*(found[key].tolist() for key in ("labels", "scores", "boxes")), strict=True)
    return [(NAMES[label], score, box) for label, score, box in rows]


def threshold_in_a_gap(experiment, path):
    """Return a threshold between two distant scores, with 4 to 12 detections above it."""
    scores = [score for _, score, _ in found_by_pytorch(experiment, path, 0.0)][:13]
    gaps = [scores[i] - scores[i + 1] for i in range(3, len(scores) - 1)]
    place = 3 + int(np.argmax(gaps))
    assert max(gaps) > 0.004
    return (scores[place] + scores[place + 1]) / 2


def assert_same(rows, expected, *, score, pixels):
    """Match each row to one expected row of its class with nearly the same score and box."""
    assert len(rows) == len(expected)
    left = list(expected)
    for name, own_score, box in rows:
        partners = [
            other
            for other in left
            if other[0] == name
            and abs(other[1] - own_score) <= score
            and np.abs(np.subtract(other[2], box)).max() <= pixels
        ]
        assert partners, f"{name} {own_score} {box} is not among {left}"
        left.remove(partners[0])


def assert_drawn(drawing, photo, rows):
    """Assert that the image changed along the boxes and hardly elsewhere."""
    before = np.asarray(Image.open(photo).convert("RGB")).astype(int)
    after = np.asarray(Image.open(drawing).convert("RGB")).astype(int)
    assert after.shape == before.shape
    change = np.abs(after - before).max(axis=2)
    near = np.zeros(change.shape, bool)
    for _, _, box in rows:
        x1, y1, x2, y2 = (round(corner) for corner in box)
        x2, y2 = min(x2, change.shape[1] - 1), min(y2, change.shape[0] - 1)
        border = np.concatenate(
            (change[y1, x1:x2], change[y2, x1:x2], change[y1:y2, x1], change[y1:y2, x2])
        )
        assert (border > 20).mean() > 0.9
        for line in (slice(max(y1 - 24, 0), y1 + 24), slice(max(y2 - 12, 0), y2 + 12)):
            near[line] = True  # including the names
        for line in (slice(max(x1 - 12, 0), x1 + 12), slice(max(x2 - 12, 0), x2 + 12)):
            near[:, line] = True
    assert (~near).sum() > 100
    assert (change[~near] > 20).mean() < 0.001  # JPEG compression


# On a real image


def test_onnx_demo_in_a_downloaded_experiment(experiment, photo, start):
    threshold = threshold_in_a_gap(experiment, photo)
    script = experiment.folder / "demo" / "demo_onnx.py"
    result = start(script, photo, "--threshold", threshold)
    assert result.returncode == 0, result.stderr
    ((headline, rows),) = printed(result.stdout)
    expected = found_by_pytorch(experiment, photo, threshold)
    assert headline == f"{photo}: 640 x 480, {len(expected)} found"
    assert_same(rows, expected, **OTHER_RUNTIME)
    assert [score for _, score, _ in rows] == sorted((r[1] for r in rows), reverse=True)
    assert_drawn(result.here / f"{photo.stem}_detections.jpg", photo, rows)


def test_pytorch_demo_in_the_repository(experiment, photo, start):
    threshold = threshold_in_a_gap(experiment, photo)
    model = ("--model", experiment.checkpoint)
    result = start(DEMO / "demo_pytorch.py", photo, *model, "--threshold", threshold)
    assert result.returncode == 0, result.stderr
    ((_, rows),) = printed(result.stdout)
    expected = found_by_pytorch(experiment, photo, threshold)
    assert_same(rows, expected, **ROUNDING)
    assert_drawn(result.here / f"{photo.stem}_detections.jpg", photo, rows)


def test_pytorch_demo_in_a_downloaded_experiment_needs_the_repository(experiment, photo, start):
    script = experiment.folder / "demo" / "demo_pytorch.py"
    # `make install` installs the package into the environment of the tests.
    lost = start(script, photo, "--threshold", 0, hidden=ROOT)
    assert lost.returncode == 1
    assert "PYTHONPATH=path/to/the/repository" in lost.stderr
    assert "Traceback" not in lost.stderr
    result = start(script, photo, "--threshold", 0, paths=[ROOT])
    assert result.returncode == 0, result.stderr
    ((_, rows),) = printed(result.stdout)
    assert_same(rows, found_by_pytorch(experiment, photo, 0.0), **ROUNDING)


def test_start_blocks_packages(tmp_path, start):
    script = tmp_path / "demo_onnx.py"
    script.write_text("import torch")
    assert "No module named 'torch'" in start(script).stderr


def test_preprocessing_nearly_equals_that_of_training(photo, monkeypatch):
    demo = load("demo_onnx", monkeypatch)
    picture = Image.open(photo).convert("RGB")
    for size_hw, share in (((96, 160), 0.05), (SIZE_HW, 0.0)):
        own = demo.preprocess(picture, size_hw)
        assert own.dtype == np.float32
        levels = np.rint(own[0] * 255)
        (ours,) = preprocess([np.asarray(picture)], size_hw, torch.device("cpu"))
        difference = np.abs(levels - ours.numpy())
        assert difference.max() <= 1
        assert (difference > 0).mean() <= share


# Thresholds


def test_thresholds_per_class(experiment, photo, call, tmp_path):
    everything = found_by_pytorch(experiment, photo, 0.0)
    name = everything[0][0]
    other = next(found for found in everything if found[0] != name)
    scores = [score for _, score, _ in everything]
    lowest = (scores[7] + scores[8]) / 2
    card = replace(experiment.card, threshold=lowest, class_thresholds={name: 1.0})
    detector, _ = load_detector(experiment.checkpoint)
    write_onnx(detector, card, tmp_path / "own.onnx")
    script = experiment.folder / "demo" / "demo_onnx.py"
    result = call(script, photo, "--model", tmp_path / "own.onnx")
    assert result.returncode == 0, result.stderr
    ((_, rows),) = printed(result.stdout)
    expected = [found for found in everything[:8] if found[0] != name]
    assert other in expected
    assert_same(rows, expected, **OTHER_RUNTIME)


@pytest.mark.parametrize("script", ["demo_onnx.py", "demo_pytorch.py"])
def test_auto_needs_measured_thresholds(experiment, photo, call, script):
    result = call(experiment.folder / "demo" / script, photo)
    assert result.returncode == 1
    assert re.search(r"no measured thresholds; give .*threshold", result.stderr)
    assert "Traceback" not in result.stderr


# Several images


def test_folder_with_images_of_the_same_name(experiment, call, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    colors = {"a.jpg": "red", "a.png": "green", "b.webp": "blue"}
    for width, (name, color) in enumerate(colors.items(), 50):
        Image.new("RGB", (width, 40), color).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    script = experiment.folder / "demo" / "demo_onnx.py"
    arguments = (folder, "--threshold", "1", "--output", folder)
    assert call(script, *arguments).returncode == 0
    result = call(script, *arguments)  # ignores the output of the first run
    assert [headline for headline, _ in printed(result.stdout)] == [
        f"{folder / 'a.jpg'}: 50 x 40, 0 found",
        f"{folder / 'a.png'}: 51 x 40, 0 found",
        f"{folder / 'b.webp'}: 52 x 40, 0 found",
    ]
    widths = {
        name: Image.open(folder / f"{name}.jpg").width
        for name in ("a_detections", "a_2_detections", "b_detections")
    }
    assert widths == {"a_detections": 50, "a_2_detections": 51, "b_detections": 52}


def test_exif_rotation_and_transparency(common, tmp_path):
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # rotated
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert common.open_image(tmp_path / "turned.jpg").size == (20, 40)
    Image.new("RGBA", (3, 2), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    clear = common.open_image(tmp_path / "clear.png")
    assert (clear.mode, clear.getpixel((0, 0))) == ("RGB", (10, 20, 30))


@pytest.mark.parametrize(
    ("dtype", "pixel_range"),
    [("u1", (0, 9)), ("u2", None), ("u2", (100, 4000)), ("i4", (0, 1000)), ("f4", None)],
)
def test_demo_scales_like_training(common, tmp_path, dtype, pixel_range):
    values = np.random.default_rng(0).integers(0, 200 if dtype == "u1" else 5000, (20, 30))
    path = tmp_path / ("deep.png" if dtype[0] == "u" else "deep.tiff")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated
    scaled = values / 5000 if dtype == "f4" else values
    Image.fromarray(scaled.astype(dtype)).save(path, exif=exif)
    expected = read_rgb(path, pixel_range=pixel_range)
    found = np.asarray(common.open_image(path, pixel_range))
    np.testing.assert_array_equal(found, expected)
    assert expected.shape == (30, 20, 3)


# Drawing


def test_box_and_name_are_drawn(common):
    black = Image.new("RGB", (500, 250))
    found = common.Detection(label=0, name="x", score=0.5, box=(100.0, 100.0, 200.0, 180.0))
    drawn = np.asarray(common.draw(black, [found])).astype(int)
    red, green, blue = drawn[140, 100]
    assert red > 200 > 60 > max(green, blue)
    for place in ((100, 199), (180, 150), (140, 200)):
        assert drawn[place].tolist() == [red, green, blue]
    assert not drawn[102:179, 102:199].any()
    assert not drawn[182:].any()
    assert not drawn[:, 202:].any()
    assert not drawn[:80].any()
    above = drawn[85:100, 100:135]  # the name
    assert (above == (red, green, blue)).all(axis=2).mean() > 0.3
    assert not np.asarray(black).any()


def test_best_detection_is_on_top_and_names_stay_inside(common):
    black = Image.new("RGB", (400, 300))
    best = common.Detection(0, "best", 0.9, (350.0, 0.0, 400.0, 60.0))
    worst = common.Detection(1, "worst", 0.1, (350.0, 0.0, 400.0, 60.0))
    together = np.asarray(common.draw(black, [best, worst]))
    alone = np.asarray(common.draw(black, [best]))
    assert together[50, 350].tolist() == alone[50, 350].tolist()
    corner = alone[:14, 330:]  # the name is moved left to end inside the image
    assert (corner == alone[50, 350]).all(axis=2).mean() > 0.3


def test_line_width_scales_with_the_image(common):
    def pixels(size):
        box = (0.25 * size, 0.25 * size, 0.75 * size, 0.75 * size)
        found = [common.Detection(0, "name", 0.5, box)]
        return np.asarray(common.draw(Image.new("RGB", (size, size)), found)).any(axis=2)

    assert pixels(2000)[1000, 490:520].sum() == 8  # 2000 / 250
    assert pixels(64).sum() == 4 * 32  # a box of 32 pixels, no name
    assert pixels(200)[:49].any()


# Errors


def missing_metadata(model):
    del model.metadata_props[:]


def damaged_metadata(model):
    helper.set_model_props(model, {"class_names": "cat, dog", "input_size_hw": "[64, 64]"})


@pytest.mark.parametrize("damage", [missing_metadata, damaged_metadata])
def test_model_without_metadata_is_rejected(experiment, call, tmp_path, damage):
    model = onnx.load(experiment.folder / "export" / "best.onnx")
    damage(model)
    onnx.save(model, tmp_path / "other.onnx")
    result = call(DEMO / "demo_onnx.py", "a.jpg", "--model", tmp_path / "other.onnx")
    assert result.returncode == 1
    assert (
        "other.onnx: the metadata with classes and input size is missing or damaged"
        in result.stderr
    )
    assert "export the checkpoint with the RT-DETRv2 app" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.jpg"], "no.jpg: not readable as an image"),
        (["empty"], "empty: no images in this folder (.jpg"),
        (["a.jpg", "--threshold", "2"], "'2': must be from 0 to 1, or auto"),
        (["a.jpg", "--threshold", "high"], "'high': must be from 0 to 1, or auto"),
        (["a.jpg", "--device", "tpu"], "--device tpu: use cpu or cuda"),
        (["a.jpg", "--device", "cuda"], "or use --device cpu"),
        (["a.jpg", "--model", "no.onnx"], "no.onnx: no such file; give the model with --model"),
        (["a.jpg", "--model", "a.jpg"], "a.jpg: ONNX Runtime cannot load the file ("),
        (["a.jpg", "--output", "a.jpg/x"], "cannot be written"),
        ([], "the following arguments are required: images"),
    ],
)
def test_invalid_arguments(experiment, call, tmp_path, arguments, message):
    here = tmp_path / "here"
    Image.new("RGB", (9, 9)).save(here / "a.jpg")
    (here / "empty").mkdir()
    threshold = [] if "--threshold" in arguments else ["--threshold", "0.5"]
    script = experiment.folder / "demo" / "demo_onnx.py"
    result = call(script, *arguments, *threshold)
    assert result.returncode in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_repository_copy_needs_a_model(call):
    result = call(DEMO / "demo_onnx.py", "a.jpg")
    assert result.returncode == 1
    assert "give the model with --model" in result.stderr


def test_checkpoint_without_configuration_is_rejected(call, tmp_path):
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "other.pth")
    result = call(DEMO / "demo_pytorch.py", "a.jpg", "--model", tmp_path / "other.pth")
    assert result.returncode == 1
    assert "other.pth: the checkpoint does not contain its configuration" in result.stderr
    assert "Traceback" not in result.stderr


# TensorRT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "export/*.engine: no such file"),
        (["--model", "my.engine"], "device = 'cuda': torch sees 0 GPUs here"),
        (["--model", "my.engine", "--device", "cpu"], "TensorRT needs a GPU; use cuda"),
        (["--model", "my.onnx"], "my.onnx: tensorrt needs a .engine file"),
    ],
)
def test_tensorrt_demo_errors(call, tmp_path, arguments, message):
    for name in ("my.engine", "my.onnx"):
        (tmp_path / "here" / name).write_bytes(b"engine")
    result = call(DEMO / "demo_tensorrt.py", "a.jpg", *arguments)
    assert result.returncode == 1
    assert message in result.stderr.replace(os.sep, "/")
    assert "Traceback" not in result.stderr


@pytest.mark.gpu
def test_tensorrt_demo_agrees_with_pytorch(gpu, experiment, photo, start):
    if importlib.util.find_spec("tensorrt") is None:
        pytest.skip("no TensorRT")
    from rtdetrv2_pytorch.src.deploy.tensorrt import build_engine

    build_engine(experiment.folder / "export" / "best.onnx", experiment.folder / "export/e.engine")
    threshold = threshold_in_a_gap(experiment, photo)
    script = experiment.folder / "demo" / "demo_tensorrt.py"
    result = start(script, photo, "--threshold", threshold, paths=[ROOT], gpus="0")
    assert result.returncode == 0, result.stderr
    ((_, rows),) = printed(result.stdout)
    assert_same(rows, found_by_pytorch(experiment, photo, threshold), score=0.005, pixels=0.5)
    assert_drawn(result.here / f"{photo.stem}_detections.jpg", photo, rows)


# The README


def test_readme_code_and_file_names(experiment, monkeypatch):
    page = (DEMO / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(experiment.folder)
    names = {}
    exec(code, names)
    assert (names["names"], names["height"], names["width"]) == (NAMES, *SIZE_HW)
    outputs = [output.name for output in names["session"].get_outputs()]
    inputs = [value.name for value in names["session"].get_inputs()]
    table = re.findall(r"^\| (input|output) \| `(\w+)`", page, re.MULTILINE)
    assert [name for kind, name in table if kind == "input"] == inputs
    assert [name for kind, name in table if kind == "output"] == outputs
    for script in re.findall(r"demo/(demo_\w+\.py)", page):
        assert (DEMO / script).is_file()
    assert json.loads(names["metadata"]["num_detections"]) == experiment.card.num_detections


def test_example_of_the_readme_reads_the_model_of_an_experiment(experiment, monkeypatch):
    monkeypatch.chdir(experiment.folder)
    (code,) = re.findall(
        r"^```python\n(.*?)^```",
        (experiment.folder / "demo" / "README.md").read_text(),
        re.M | re.S,
    )
    found = {}
    exec(code, found)
    assert found["names"] == NAMES
    assert (found["height"], found["width"]) == SIZE_HW
