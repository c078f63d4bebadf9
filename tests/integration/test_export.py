"""Exports of a trained checkpoint, compared with PyTorch, and the command line."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
import torch
from PIL import Image

from rtdetrv2.commands import export_onnx as tool
from rtdetrv2_pytorch.src.data.images.preprocess import preprocess
from rtdetrv2_pytorch.src.deploy import export
from rtdetrv2_pytorch.src.deploy.detector import load_detector
from rtdetrv2_pytorch.src.deploy.export import export_onnx
from rtdetrv2_pytorch.src.deploy.model_card import ModelCard
from rtdetrv2_pytorch.src.deploy.onnx import read_card, write_onnx
from rtdetrv2_pytorch.src.deploy.parity import check_parity
from rtdetrv2_pytorch.src.deploy.runtimes import PyTorchRuntime, open_runtime, openvino_core
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from tests.integration.overfitted_checkpoint import SIZE_HW
from tests.random_detectors import assert_same_detections, random_images, save_random_detector
from tests.tiny import NETWORK

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAMES = [str(n) for n in range(10)]
SQUARE, WIDE = (128, 128), (96, 160)
CARD = ModelCard(class_names=tuple(NAMES), input_size_hw=(64, 64))


def batch_of_images(data, count, size_hw=tuple(SIZE_HW)):
    """Images of the split as input of an ONNX file, each darker than the previous one."""
    files = sorted((data / "val").iterdir())
    pixels, sizes_wh = [], []
    for place in range(count):
        with Image.open(files[place % len(files)]) as file:
            picture = np.asarray(file).astype(np.float64) * (1 - 0.08 * place)
        prepared = preprocess([picture.astype(np.uint8)], size_hw, torch.device("cpu"))
        pixels.append(prepared[0].numpy().astype(np.float32) / 255)
        sizes_wh.append((320 + 40 * place, 256 - 10 * place))
    return np.stack(pixels), np.array(sizes_wh, np.int64)


def open_in_both(file):
    """Return a function that runs a file in ONNX Runtime and in OpenVINO, in float32."""
    session = ort.InferenceSession(str(file))
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino_core().compile_model(str(file), "CPU", precise)
    names = ["labels", "boxes", "scores"]

    def run(images, sizes_wh):
        inputs = {"images": images, "orig_target_sizes": sizes_wh}
        found = compiled(inputs)
        return session.run(names, inputs), [found[name] for name in names]

    return run


@pytest.mark.parametrize(
    ("precision", "size_hw"), [("fp32", None), ("fp32", SQUARE), ("fp16", None)]
)
def test_export_without_grid_sample(trained, tmp_path, precision, size_hw):
    output = tmp_path / "best.onnx"
    source = replace(trained.source, input_size_hw=size_hw)
    report = export_onnx(source, output, precision=precision, grid_sample=False)  # verified with AP
    assert report.ap_exported > 0.3
    assert "GridSample" not in {node.op_type for node in onnx.load(output).graph.node}
    detector, card = source.load(input_size_hw=size_hw)
    if precision == "fp16":
        runtime = open_runtime(output, "openvino")
        reference = PyTorchRuntime(detector, card, torch.device("cpu"))
        report = check_parity(runtime, reference, source.find_images(card), file=output.name)
        assert report.failures == []
        assert report.ap_exported > 0.5
        return
    run = open_in_both(output)
    for count in (1, 2, 7, 16):
        images, sizes_wh = batch_of_images(trained.data, count, card.input_size_hw)
        with torch.inference_mode():
            wanted = detector(torch.from_numpy(images), torch.from_numpy(sizes_wh))
        for labels, boxes, scores in run(images, sizes_wh):
            np.testing.assert_allclose(scores, wanted[2].numpy(), rtol=0, atol=1e-5)
            confident = scores > 0.3
            assert confident.sum() >= count
            np.testing.assert_array_equal(labels[confident], wanted[0].numpy()[confident])
            np.testing.assert_allclose(
                boxes[confident], wanted[1].numpy()[confident], rtol=1e-5, atol=1e-3
            )


def test_hgnetv2_without_grid_sample(tmp_path):
    """With random weights, whose last layers are scaled so that rounding stays below 1e-5."""
    network = {**NETWORK, "HGNetv2": {"pretrained": False}}
    checkpoint = save_random_detector(
        tmp_path / "best.pth", "rtdetrv2_hgnetv2_l_6x_coco", network=network
    )
    size_hw = (96, 128)
    detector, card = load_detector(checkpoint, input_size_hw=size_hw)
    heads = detector.model.decoder
    with torch.no_grad():
        heads.dec_score_head[-1].weight.mul_(0.3)
        for head in (heads.enc_bbox_head, *heads.dec_bbox_head):
            head.layers[-1].weight.mul_(0.1)
    output = tmp_path / "best.onnx"
    write_onnx(detector, card, output, grid_sample=False)
    assert "GridSample" not in {node.op_type for node in onnx.load(output).graph.node}
    run = open_in_both(output)
    for count in (1, 2, 7, 16):
        images = random_images(count, size_hw)
        sizes_wh = torch.tensor([[320 + 40 * n, 256 - 10 * n] for n in range(count)])
        with torch.inference_mode():
            wanted = detector(images, sizes_wh)
        for found in run(images.numpy(), sizes_wh.numpy()):
            tensors = [torch.from_numpy(np.asarray(part)) for part in found]
            assert_same_detections(tensors, wanted, score=1e-5, pixels=0.009)


def test_batches_agree_with_batch_size_1(trained, exported):
    output, report = exported()
    assert report.failures == []
    assert report.compared == "above 0.3"
    assert report.num_detections >= 20
    assert report.ap_pytorch > 0.1
    assert report.ap_exported == pytest.approx(report.ap_pytorch, abs=1e-3)
    assert sorted(p.name for p in output.parent.iterdir()) == ["best.onnx", "parity.json"]

    session = ort.InferenceSession(str(output))  # without our classes
    pixels, sizes_wh = batch_of_images(trained.data, 7)
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
            clear = want_scores > 0.1  # low scores may swap
            assert (labels[clear] == want_labels[clear]).all()
            np.testing.assert_allclose(boxes[clear], want_boxes[clear], atol=1e-2)
    # Every image has different results.
    assert len({one[2].tobytes() for one in alone}) == 7


def test_file_works_in_every_runtime(trained, exported):
    output, _ = exported()
    model = onnx.load(output)
    operators = {node.op_type for node in model.graph.node}
    assert "LayerNormalization" in operators
    assert not {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    assert model.opset_import[0].version >= 17
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["input_size_hw"]) == SIZE_HW
    assert json.loads(metadata["class_names"]) == NAMES
    assert 0 < json.loads(metadata["threshold"]) < 1
    assert json.loads(metadata["versions"])["torch"] == torch.__version__.split("+")[0]

    images = trained.source.find_images(CARD)
    reference = open_runtime(trained.checkpoint)
    report = check_parity(open_runtime(output, "openvino"), reference, images, file="best.onnx")
    assert report.failures == []
    assert report.runtime == "openvino"
    assert report.num_detections >= 20


def test_openvino_in_bfloat16(trained, exported, monkeypatch):
    output, _ = exported()
    images = trained.source.find_images(CARD)
    if "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        half = open_runtime(output, "openvino", bfloat16=True)
        report = check_parity(half, open_runtime(trained.checkpoint), images, file="best.onnx")
        assert abs(report.ap_exported - report.ap_pytorch) < 0.02
        assert 1e-4 < report.max_score_difference < 0.05  # it computed in bfloat16
    monkeypatch.setattr(ov.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(ConfigError, match="^bfloat16 = True: this CPU does not support bfloat16"):
        open_runtime(output, "openvino", bfloat16=True)


def test_half_precision_keeps_the_ap(trained, tmp_path):
    report = export_onnx(trained.source, tmp_path / "half.onnx", precision="fp16", nms_iou=0.7)
    assert report.failures == []
    assert report.max_score_difference > 1e-5  # it computed in float16
    assert report.ap_exported >= report.ap_pytorch - 0.005
    single = trained.checkpoint.stat().st_size
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * single


def test_discrete_sampling_reports_the_ap_of_the_trained_one(trained, exported, tmp_path, caplog):
    source = replace(trained.source, sampling="discrete")
    output = tmp_path / "discrete.onnx"
    with caplog.at_level(logging.WARNING):
        report = export_onnx(source, output)
    assert "GridSample" not in {node.op_type for node in onnx.load(output).graph.node}
    assert report.failures == []
    assert report.ap_trained == pytest.approx(exported()[1].ap_pytorch)
    assert "with discrete sampling and an input of" in caplog.text


def test_export_with_another_input_size(trained, exported, tmp_path, caplog):
    source = replace(trained.source, input_size_hw=WIDE)
    output = tmp_path / "wide.onnx"
    with caplog.at_level(logging.WARNING):
        report = export_onnx(source, output)  # compared at this size
    shape = onnx.load(output).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in shape[1:]] == [3, 96, 160]
    card = read_card(output)
    assert (card.input_size_hw, card.trained_size_hw) == ((96, 160), tuple(SIZE_HW))
    assert report.failures == []
    assert report.ap_trained == pytest.approx(exported()[1].ap_pytorch)
    assert report.ap_exported != report.ap_trained
    assert f"wide.onnx: AP is {report.ap_exported:.4f} with default sampling and an input of" in (
        caplog.text
    )
    assert f"96 x 160 pixels, and {report.ap_trained:.4f} as trained" in caplog.text
    # Without annotations there is no AP to compare.
    caplog.clear()
    export_onnx(replace(source, find_images=None), output, slim=False)
    trained_at = f"trained with {SIZE_HW[0]} x {SIZE_HW[1]}: check the accuracy"
    assert f"an input of 96 x 160 pixels, but {trained_at}" in caplog.text


def test_tool_exports_next_to_the_checkpoint(trained, tmp_path, capfd):
    checkpoint = tmp_path / "best.pth"
    checkpoint.write_bytes(trained.checkpoint.read_bytes())
    assert tool.main(["-r", str(checkpoint), "--data", str(trained.data)]) == 0
    out, err = capfd.readouterr()
    assert "best.onnx" in out
    assert "images of instances_val.json" in err  # the log
    report = json.loads((tmp_path / "parity.json").read_text())["best.onnx"]
    assert report["ap_exported"] == pytest.approx(report["ap_pytorch"], abs=1e-3)


def test_tool_compares_on_given_images(trained, tmp_path, capfd):
    arguments = ["-r", str(trained.checkpoint), "-o", str(tmp_path / "a.onnx"), "--no-slim"]
    servers = ["--triton", str(tmp_path / "models"), "--deepstream", str(tmp_path / "ds")]
    assert tool.main([*arguments, "--images", str(trained.data / "val"), *servers]) == 0
    out, err = capfd.readouterr()
    assert "on 4 given images" in err
    for path in ("models/a", "ds/config_infer.txt"):
        assert path in out
    assert (tmp_path / "models" / "a" / "config.pbtxt").is_file()
    assert (tmp_path / "ds" / "config_infer.txt").is_file()


def test_tool_compares_on_generated_images_by_default(trained, tmp_path, monkeypatch):
    sources = []

    def remember(source, output, **options):
        sources.append(source)
        output.write_bytes(b"model")
        return "report"

    monkeypatch.setattr(export, "export_onnx", remember)
    assert tool.main(["-r", str(trained.checkpoint), "-o", str(tmp_path / "a.onnx")]) == 0
    (source,) = sources
    assert source.find_images is None  # see test_generated_images_are_the_default


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-r", "none.pth"], "CheckpointError: none.pth: no such file"),
        (["-r", "best.pth", "-o", "best.bin"], "best.bin: give a name that ends in .onnx"),
        (["-r", "best.pth", "--opset", "16"], "opset = 16: must be 17 or higher"),
        (["-r", "best.pth", "--nms-iou", "2"], "nms_iou = 2.0: must be above 0"),
        (["-r", "best.pth", "--images", "empty"], "the folder contains no image files"),
        (["-r", "text.pth"], "CheckpointError: text.pth"),
    ],
)
def test_tool_reports_invalid_arguments(trained, arguments, message, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("best.pth").symlink_to(trained.checkpoint)
    Path("text.pth").write_text("not a checkpoint")
    Path("empty").mkdir()
    assert tool.main(arguments) == 1
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("*.onnx"))
    assert not list(tmp_path.glob(".*"))


def test_tool_process_exits_with_1(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "rtdetrv2_pytorch.tools.export_onnx", "-r", "none.pth"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert "CheckpointError: none.pth: no such file" in done.stderr
    assert "Traceback" not in done.stderr
