"""INT8 exports of a trained detector: files, search, refusals."""

import contextlib
import io
import json
import re
import runpy
import shutil
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from rtdetrv2 import RTDETR
from rtdetrv2.commands import export_onnx as tool
from rtdetrv2_pytorch.src.data.images.decoding import read_rgb
from rtdetrv2_pytorch.src.data.images.preprocess import preprocess
from rtdetrv2_pytorch.src.data.splits import find_splits
from rtdetrv2_pytorch.src.deploy import accuracy
from rtdetrv2_pytorch.src.deploy.export import Source
from rtdetrv2_pytorch.src.deploy.int8 import export, trials
from rtdetrv2_pytorch.src.deploy.onnx_file import read_card
from rtdetrv2_pytorch.src.deploy.predictor import Predictor
from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from rtdetrv2_pytorch.src.misc.errors import ExportError
from supervisely_integration.paths import TRAIN
from tests.integration.overfitted_checkpoint import SIZE_HW
from tests.integration.test_export import WIDE
from tests.sdk import import_sdk

pytestmark = pytest.mark.slow

BLOCK = "model.backbone.res_layers.0.blocks.0"
OUTLIER = 1e4
INT8 = onnx.TensorProto.INT8
DEMO = Path(__file__).parents[2] / "supervisely_integration" / "demo"


@pytest.fixture(scope="module", autouse=True)
def calibrated_on():
    """Quantize each file once, and return the images of all calibrations.

    AP of four images changes by hundredths with the rounding of a single box, so that the tests
    use a wider limit.
    """
    quantize, made, seen = export.quantize, {}, []

    def quantize_once(model, images, *rest):
        seen.append(len(images))
        key = model.SerializeToString()
        if key not in made:
            made[key] = quantize(model, images, *rest)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accuracy, "MAX_AP_LOSS", 0.1)
        patch.setattr(export, "quantize", quantize_once)
        yield seen


@pytest.fixture(scope="module")
def quantized(exported, trained, tmp_path_factory):
    """An INT8 file, made by the command from a float32 file."""
    folder = tmp_path_factory.mktemp("quantized")
    source = folder / "best.onnx"
    source.write_bytes(exported()[0].read_bytes())
    options = ["--int8", "--data", str(trained.data), "--calibration-images", "3"]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert tool.main(["--onnx", str(source), *options]) == 0
    return SimpleNamespace(source=source, path=folder / "best_int8.onnx", text=output.getvalue())


def test_int8_file_is_verified_and_described(quantized, calibrated_on):
    report = json.loads(quantized.path.with_name("parity.json").read_text())["best_int8.onnx"]
    assert report["failures"] == []
    assert (report["precision"], report["reference"]) == ("int8", "onnxruntime")
    assert report["ap_pytorch"] > 0.1
    assert report["ap_exported"] >= report["ap_pytorch"] - 0.1
    facts = report["quantization"]
    assert facts["openvino_ap"] >= report["ap_pytorch"] - 0.1
    assert facts["calibration_images"] == "3 of 4 images of instances_train.json"
    num_float = len(facts["float_layers"])  # more than 0 if rounding moves a box of four images
    assert num_float <= 3
    assert 60 < facts["num_int8_layers"] + num_float < 90
    assert facts["trials"][0].startswith("0 more layers in float32: AP ")
    assert calibrated_on[0] == 3
    assert "best_int8.onnx: onnxruntime against onnxruntime on 4 of 4 images" in (
        quantized.path.with_name("export.log").read_text()
    )
    assert not re.search("nncf|Statistics", quantized.text, re.I)

    before, after = read_card(quantized.source), read_card(quantized.path)
    assert (before.precision, after.precision) == ("fp32", "int8")
    assert (after.class_names, after.input_size_hw) == (before.class_names, before.input_size_hw)
    assert after.threshold == before.threshold
    assert quantized.path.stat().st_size < 0.4 * quantized.source.stat().st_size
    graph = onnx.load(quantized.path).graph
    kernels = [numpy_helper.to_array(t) for t in graph.initializer if t.data_type == INT8]
    assert max(np.abs(each.astype(int)).max() for each in kernels) == 64  # 7 bits
    producers = {name: node.op_type for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    in_int8 = [producers.get(node.input[1]) == "DequantizeLinear" for node in convolutions]
    assert in_int8[:3] == [False, False, False]  # the stem
    assert sum(in_int8) >= len(convolutions) - 3 - num_float


def test_another_input_size(trained, tmp_path):
    output = tmp_path / "best_int8.onnx"
    source = replace(trained.source, input_size_hw=WIDE)
    data = find_splits(trained.data, tmp_path / "converted")
    report = export.export_int8(source, output, data=data, calibration_images=1)
    card = read_card(output)
    assert (card.precision, card.input_size_hw) == ("int8", WIDE)
    assert card.trained_size_hw == tuple(SIZE_HW)
    assert report.ap_trained > report.ap_exported >= report.ap_pytorch - 0.1


def test_both_runtimes_read_int8_files(quantized, trained):
    pictures = [read_rgb(path) for path in sorted((trained.data / "val").iterdir())]
    images = preprocess(pictures, tuple(SIZE_HW), torch.device("cpu"))
    images = torch.cat([images, images[:1]])  # the first one again in the last place
    sizes_wh = torch.tensor([[320, 256]]).repeat(5, 1)
    scores = {}
    for kind in ("onnxruntime", "openvino"):
        runtime = open_runtime(quantized.path, kind)
        assert runtime.card.precision == "int8"
        together = runtime(images, sizes_wh)
        assert together[1].shape[:1] == (5,)
        for place in (0, 4):
            alone = runtime(images[place : place + 1], sizes_wh[place : place + 1])
            torch.testing.assert_close(alone[2][0], together[2][place], rtol=0, atol=0.02)
        scores[kind] = together[2]
    assert (scores["onnxruntime"] - scores["openvino"]).abs().mean() < 0.03
    exact = open_runtime(quantized.source)(images, sizes_wh)[2]
    difference = (scores["onnxruntime"] - exact).abs()
    assert 1e-5 < difference.max() < 0.2
    assert difference.mean() < 0.03


def above_a_gap(scores, *, at_least):
    """Return the highest scores, and a threshold in the widest gap after the first few."""
    scores = sorted(scores, reverse=True)
    gaps = [high - low for high, low in pairwise(scores)]
    place = max(range(at_least - 1, len(gaps)), key=gaps.__getitem__)
    return scores[: place + 1], (scores[place] + scores[place + 1]) / 2


def test_serving_and_demo_read_int8_files(quantized, trained, tmp_path, monkeypatch, capsys):
    import_sdk()
    import supervisely as sly

    from supervisely_integration.serve.rtdetrv2 import RTDETRv2

    for name in ("read", "read_bytes"):  # the serving class replaces them
        monkeypatch.setattr(sly.image, name, getattr(sly.image, name))
    picture = min((trained.data / "val").iterdir())
    (found,), _ = Predictor(open_runtime(quantized.path)).predict([read_rgb(picture)], 0.2)
    scores, threshold = above_a_gap(found["scores"].tolist(), at_least=5)

    served = RTDETRv2(model_dir=str(tmp_path))
    served.load_model({"checkpoint": str(quantized.path)}, runtime="ONNXRuntime")
    assert served.model_precision == "INT8"
    (found,), _ = served.predict_benchmark([read_rgb(picture)], {"confidence_threshold": threshold})
    # The service rounds scores to thousandths.
    assert sorted((each.score for each in found), reverse=True) == pytest.approx(scores, abs=6e-4)

    monkeypatch.setattr(sys, "argv", ["demo", str(picture), "--model", str(quantized.path)])
    sys.argv += ["--threshold", str(threshold), "--output", str(tmp_path)]
    monkeypatch.syspath_prepend(str(DEMO))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    capsys.readouterr()
    with contextlib.suppress(SystemExit):
        runpy.run_path(str(DEMO / "demo_onnx.py"), run_name="__main__")
    printed = re.findall(r"^  .+? +(\d\.\d{3}) ", capsys.readouterr().out, re.MULTILINE)
    sys.modules.pop("demo_common", None)
    # Pillow resizes the image slightly differently; no score is next to the threshold.
    assert sorted(map(float, printed), reverse=True) == pytest.approx(scores, abs=0.05)


class Bars:
    """Stands in for the progress bar of the app's page."""

    def show(self):
        pass

    hide = show

    def __call__(self, message, total):
        return SimpleNamespace(n=0, update=lambda done: None, close=lambda: None)


def test_app_exports_int8_too(quantized, trained, tmp_path, monkeypatch):
    import_sdk()
    from supervisely_integration.train import exports

    def copy(checkpoint, output, **_):
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(quantized.source, output)
        return output

    monkeypatch.setattr(exports, "export_checkpoint", copy)
    uploads, missing = [], {}
    app = SimpleNamespace(
        output_dir=tmp_path,
        _export_dir_name="export",
        work_dir=tmp_path / "work",
        train_dataset_dir=trained.data / "train",
        val_dataset_dir=trained.data / "val",
        hyperparameters="export_int8: true",
        progress_bar_main=Bars(),
        team_id=1,
        _api=SimpleNamespace(
            file=SimpleNamespace(upload_bulk=lambda team, paths, remote: uploads.extend(remote))
        ),
    )
    shutil.copytree(trained.data / "annotations", tmp_path / "work" / "coco")
    status = SimpleNamespace(add_missing=missing.__setitem__)
    exporter = exports.Exporter(app, status)

    output = Path(exporter.export({"best_checkpoint": "best.pth"}, "ONNXRuntime"))
    assert (missing, output.name) == ({}, "best.onnx")
    assert read_card(output.with_name("best_int8.onnx")).precision == "int8"
    exporter.upload_companions({"ONNXRuntime": str(output)}, "/experiments/1")
    assert "/experiments/1/export/best_int8.onnx" in uploads
    page = (TRAIN / "README.md").read_text()
    assert [path for path in uploads if Path(path).name not in page] == []

    def refuse(*_, **__):
        raise ExportError("best_int8.onnx: INT8 loses too much accuracy")

    monkeypatch.setattr(exports, "export_quantized", refuse)
    assert Path(exporter.export({"best_checkpoint": "best.pth"}, "ONNXRuntime")) == output
    assert missing == {"INT8": "best_int8.onnx: INT8 loses too much accuracy"}


@pytest.fixture(scope="module")
def with_outliers(exported, tmp_path_factory):
    """The same detector, with a layer whose weights have outliers: INT8 rounds the others to 0.

    A channel between two convolutions is divided by a factor, and the weights that read it are
    multiplied by it.
    """
    path = tmp_path_factory.mktemp("outliers") / "best.onnx"
    model = onnx.load(exported()[0])
    constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def scale(name, where, factor):
        tensor = constants[f"{BLOCK}.{name}"]
        values = numpy_helper.to_array(tensor).copy()
        values[where] *= factor
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    weights = numpy_helper.to_array(constants[f"{BLOCK}.branch2b.conv.weight"])
    channel = int(np.abs(weights).sum((0, 2, 3)).argmax())
    for name in ("branch2a.conv.weight", "branch2a.conv.bias"):
        scale(name, channel, 1 / OUTLIER)
    scale("branch2b.conv.weight", (slice(None), channel), OUTLIER)
    onnx.save(model, path)
    return path


def test_search_without_openvino_finds_the_layer_with_outliers(
    with_outliers, trained, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(trials, "find_spec", lambda name: None)
    output = tmp_path / "best_int8.onnx"
    written = RTDETR(with_outliers).export("onnx", output=output, data=trained.data, int8=True)
    assert written == output
    facts = json.loads((tmp_path / "parity.json").read_text())["best_int8.onnx"]["quantization"]
    assert facts["float_layers"] == [f"{BLOCK}.branch2b.conv"]
    assert "0 more layers in float32: AP 0." in facts["trials"][0]
    assert "(limit: a loss of 0.1)" in facts["trials"][0]
    assert facts["trials"][1].startswith(f"1 more layer in float32 ({BLOCK}.branch2b.conv): AP 0.")
    assert facts["openvino_ap"] is None
    assert "best_int8.onnx: not verified in OpenVINO, which is not installed" in caplog.messages


def test_ap_in_openvino_is_verified_too(quantized, trained, tmp_path, monkeypatch):
    def worse(*arguments):
        return replace(evaluate(*arguments), stats={"AP": 0.0})

    evaluate, done = export.evaluate, []
    monkeypatch.setattr(export, "evaluate", worse)
    monkeypatch.setattr(export.Trials, "passes", lambda self, layers: True)
    output = tmp_path / "best_int8.onnx"
    data = find_splits(trained.data, tmp_path / "converted")
    options = {"search_minutes": 1e-6, "on_progress": lambda *args: done.append(args)}
    message = r"differ from onnxruntime: .*in OpenVINO, AP 0.0000 instead of 0\.\d+ \(limit: a loss"
    with pytest.raises(ExportError, match=message):
        export.export_int8(Source(checkpoint=quantized.source), output, data=data, **options)
    assert not list(tmp_path.glob("*.onnx"))
    assert done.count(("verifying in OpenVINO", 0, 4)) == 1  # not again when the time is over


def test_refused_where_nothing_helps(with_outliers, trained, tmp_path, monkeypatch):
    def fails(self, layers):
        return bool(not layers and passes(self, layers))

    passes = export.Trials.passes
    monkeypatch.setattr(export.Trials, "passes", fails)
    output = tmp_path / "best_int8.onnx"
    output.write_text("an earlier file")
    data = find_splits(trained.data, tmp_path / "converted")
    message = r"(\d+) of \1 layers would have to stay in float32 \(limit: \d+\). Tried on 4 of 4 "
    with pytest.raises(ExportError, match=message) as error:
        export.export_int8(Source(checkpoint=with_outliers), output, data=data)
    assert "0 more layers in float32: AP 0." in str(error.value)
    assert str(error.value).endswith("No file was written; use half precision")
    assert not list(tmp_path.glob("*.onnx"))


def test_time_limit(with_outliers, trained, tmp_path):
    data = find_splits(trained.data, tmp_path / "converted")
    source, output = Source(checkpoint=with_outliers), tmp_path / "best_int8.onnx"
    message = "no layers to keep in float32 were found in 1e-06 minutes. Tried on 4 of 4 images"
    activities = set()
    options = {"search_minutes": 1e-6, "on_progress": lambda name, *_: activities.add(name)}
    with pytest.raises(ExportError, match=message) as error:
        export.export_int8(source, output, data=data, **options)
    assert "give more time with search_minutes" in str(error.value)
    assert "measuring INT8, trial 1, 0 more layers in float32" in activities
    assert "measuring the error of each layer" not in activities
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--int8"], "--int8 needs --data: images of the training split"),
        (["--int8", "--fp16", "--data", "."], "--fp16 and --int8 are mutually exclusive"),
        (["--int8", "--data", ".", "--no-slim"], "--no-slim need a checkpoint"),
    ],
)
def test_tool_reports_invalid_options_of_int8(quantized, arguments, message, capfd):
    assert tool.main(["--onnx", str(quantized.source), *arguments]) == 2
    assert message in capfd.readouterr().err


def test_int8_files_are_not_converted_again(quantized, trained, tmp_path, capfd):
    options = ["--int8", "--data", str(trained.data), "-o", str(tmp_path / "a.onnx")]
    assert tool.main(["--onnx", str(quantized.path), *options]) == 1
    assert "best_int8.onnx: the file is in INT8 and cannot be converted" in capfd.readouterr().err
