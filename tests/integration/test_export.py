"""Exports of checkpoints that learned something, compared with PyTorch, and the command line."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
import torch
from PIL import Image

from rtdetrv2_pytorch.src.data.images.preprocess import preprocess
from rtdetrv2_pytorch.src.data.splits import find_splits
from rtdetrv2_pytorch.src.deploy.comparison_images import validation_images
from rtdetrv2_pytorch.src.deploy.export import Source, export_onnx
from rtdetrv2_pytorch.src.deploy.parity import check_parity
from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from tests.integration.trained import SIZE_HW, train_by_heart

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def make_trained(folder, config, backbone):
    checkpoint, data = train_by_heart(folder, config, backbone)
    split = find_splits(data).val

    def find_images(names):
        return validation_images(split.ann_file, split.img_folder, names)

    source = Source(checkpoint=checkpoint, find_images=find_images)
    return SimpleNamespace(source=source, checkpoint=checkpoint, data=data)


@pytest.fixture(scope="module")
def r18(tmp_path_factory):
    """RT-DETRv2-S with a small head, which found its four images again."""
    folder = tmp_path_factory.mktemp("r18")
    return make_trained(folder, "rtdetrv2_r18vd_120e_coco", "PResNet")


@pytest.fixture(scope="module")
def hgnet(tmp_path_factory):
    """The same with HGNetv2-L."""
    folder = tmp_path_factory.mktemp("hgnet")
    return make_trained(folder, "rtdetrv2_hgnetv2_l_6x_coco", "HGNetv2")


def batch_of_pictures(data, count):
    """Pictures of the split as an ONNX file takes them, each brighter than the one before."""
    files = sorted((data / "val").iterdir())
    pixels, sizes_wh = [], []
    for place in range(count):
        with Image.open(files[place % len(files)]) as file:
            picture = np.asarray(file).astype(np.float64) * (1 - 0.08 * place)
        prepared = preprocess(picture.astype(np.uint8), tuple(SIZE_HW))
        pixels.append(prepared.numpy().astype(np.float32) / 255)
        sizes_wh.append((320 + 40 * place, 256 - 10 * place))
    return np.stack(pixels), np.array(sizes_wh, np.int64)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("network", ["r18", "hgnet"])
def test_any_batch_is_what_its_images_are_alone(request, network, exporter, tmp_path):
    trained = request.getfixturevalue(network)
    output = tmp_path / "best.onnx"
    report = export_onnx(trained.source, output, exporter=exporter)
    assert report.failures == []
    assert report.compared == "above 0.3"
    assert report.num_detections >= 20
    assert report.ap_pytorch > 0.1
    assert report.ap_exported == pytest.approx(report.ap_pytorch, abs=1e-3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.onnx", "parity.json"]

    session = ort.InferenceSession(str(output))  # as anyone opens it, without our classes
    pixels, sizes_wh = batch_of_pictures(trained.data, 7)
    names = ["labels", "boxes", "scores"]
    alone = [
        session.run(names, {"images": pixels[i : i + 1], "orig_target_sizes": sizes_wh[i : i + 1]})
        for i in range(7)
    ]
    for count in (1, 2, 7):
        together = session.run(
            names, {"images": pixels[:count], "orig_target_sizes": sizes_wh[:count]}
        )
        for slot in range(count):
            labels, boxes, scores = (part[slot] for part in together)
            want_labels, want_boxes, want_scores = (part[0] for part in alone[slot])
            np.testing.assert_allclose(scores, want_scores, atol=1e-5)
            clear = want_scores > 0.1  # the others may change places
            assert (labels[clear] == want_labels[clear]).all()
            np.testing.assert_allclose(boxes[clear], want_boxes[clear], atol=1e-2)
    # Each picture has results of its own.
    assert len({one[2].tobytes() for one in alone}) == 7


def test_the_file_is_one_for_every_runtime(r18, tmp_path):
    output = tmp_path / "best.onnx"
    export_onnx(r18.source, output)
    model = onnx.load(output)
    operators = {node.op_type for node in model.graph.node}
    assert "LayerNormalization" in operators
    assert not {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    assert model.opset_import[0].version >= 17
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["input_size_hw"]) == SIZE_HW
    assert json.loads(metadata["class_names"]) == [str(n) for n in range(10)]
    assert 0 < json.loads(metadata["threshold"]) < 1
    assert json.loads(metadata["versions"])["torch"] == torch.__version__.split("+")[0]

    samples = r18.source.find_images([str(n) for n in range(10)])
    report = check_parity(
        open_runtime(output, "openvino"),
        open_runtime(r18.checkpoint),
        samples,
        file="best.onnx",
    )
    assert report.failures == []
    assert report.runtime == "openvino"
    assert report.num_detections >= 20


def test_openvino_in_bfloat16_keeps_the_ap_within_two_hundredths(r18, tmp_path, monkeypatch):
    output = tmp_path / "best.onnx"
    export_onnx(r18.source, output)
    samples = r18.source.find_images([str(n) for n in range(10)])
    if "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        report = check_parity(
            open_runtime(output, "openvino", bfloat16=True),
            open_runtime(r18.checkpoint),
            samples,
            file="best.onnx",
        )
        assert abs(report.ap_exported - report.ap_pytorch) < 0.02
        assert 1e-4 < report.max_score_difference < 0.05  # it did compute in 16 bits
    monkeypatch.setattr(ov.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(ConfigError, match="^bfloat16 = True: this processor does not compute in"):
        open_runtime(output, "openvino", bfloat16=True)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_half_precision_keeps_the_ap(r18, exporter, tmp_path):
    report = export_onnx(
        r18.source, tmp_path / "half.onnx", precision="fp16", exporter=exporter, nms_iou=0.7
    )
    assert report.failures == []
    assert report.max_score_difference > 1e-5  # it did compute in 16 bits
    assert report.ap_exported >= report.ap_pytorch - 0.005
    single = r18.checkpoint.stat().st_size
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * single


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_without_gridsample(r18, exporter, tmp_path, caplog):
    source = replace(r18.source, sampling="discrete")
    output = tmp_path / "discrete.onnx"
    with caplog.at_level(logging.WARNING):
        report = export_onnx(source, output, exporter=exporter)
    assert "GridSample" not in {node.op_type for node in onnx.load(output).graph.node}
    assert report.failures == []
    trained = export_onnx(r18.source, tmp_path / "default.onnx", slim=False)
    assert report.ap_trained == pytest.approx(trained.ap_pytorch)
    assert "with discrete sampling AP is" in caplog.text


def call(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "rtdetrv2_pytorch.tools.export_onnx", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_command_line_exports_beside_the_checkpoint(r18, tmp_path):
    checkpoint = tmp_path / "best.pth"
    checkpoint.write_bytes(r18.checkpoint.read_bytes())
    done = call("-r", checkpoint, "--data", r18.data, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "best.onnx" in done.stdout
    assert "images of instances_val.json" in done.stderr  # the log
    report = json.loads((tmp_path / "parity.json").read_text())["best.onnx"]
    assert report["ap_exported"] == pytest.approx(report["ap_pytorch"], abs=1e-3)


def test_the_command_line_takes_images_and_says_what_it_compared(r18, tmp_path):
    output = tmp_path / "a.onnx"
    done = call(
        *("-r", r18.checkpoint, "-o", output, "--images", r18.data / "val", "--no-slim"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "on 4 given images" in done.stderr
    done = call("-r", r18.checkpoint, "-o", output, "--no-slim", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "generated images, for want of a data set" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-r", "none.pth"], "CheckpointError: none.pth: no such file"),
        (["-r", "best.pth", "-o", "best.bin"], "best.bin: give a name that ends in .onnx"),
        (["-r", "best.pth", "--opset", "16"], "opset = 16: give 17 or more"),
        (["-r", "best.pth", "--nms-iou", "2"], "nms_iou = 2.0: give an overlap above 0"),
        (["-r", "best.pth", "--images", "empty"], "no image files are in this folder"),
        (["-r", "text.pth"], "CheckpointError: text.pth"),
    ],
)
def test_mistakes_on_the_command_line(r18, arguments, message, tmp_path):
    (tmp_path / "best.pth").write_bytes(r18.checkpoint.read_bytes())
    (tmp_path / "text.pth").write_text("no checkpoint")
    (tmp_path / "empty").mkdir()
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.onnx"))
    assert not list(tmp_path.glob(".*"))
