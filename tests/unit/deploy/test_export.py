"""Exports: files after success, failure and wrong results."""

import json
import logging
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from rtdetrv2_pytorch.src.deploy import export, parity
from rtdetrv2_pytorch.src.deploy.comparison_images import given_images
from rtdetrv2_pytorch.src.deploy.export import Source, export_onnx, export_tensorrt
from rtdetrv2_pytorch.src.deploy.onnx import convert_onnx
from rtdetrv2_pytorch.src.deploy.onnx_file import read_card
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError, ExportError
from tests.random_detectors import SIZE_HW, random_images


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Image files of two sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for number, size_hw in enumerate([(96, 160)] * 6 + [(120, 90)] * 3):
        picture = random_images(1, size_hw, seed=number)[0].permute(1, 2, 0)
        path = folder / f"{number}.png"
        Image.fromarray((255 * picture.numpy()).astype(np.uint8)).save(path)
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def source(tiny, files):
    return Source(checkpoint=tiny.path, find_images=lambda card: given_images(files, card))


@pytest.fixture(scope="module")
def exported(source, tmp_path_factory):
    """An export: its file, report, progress and log lines."""
    output = tmp_path_factory.mktemp("exported") / "new" / "best.onnx"
    seen, log = [], []
    handler = logging.Handler()
    handler.emit = lambda record: log.append(record.getMessage())
    level = parity.logger.level
    parity.logger.setLevel(logging.INFO)
    parity.logger.addHandler(handler)
    try:
        report = export_onnx(source, output, on_progress=lambda *args: seen.append(args))
    finally:
        parity.logger.removeHandler(handler)
        parity.logger.setLevel(level)
    card = read_card(output)
    return SimpleNamespace(output=output, card=card, report=report, seen=seen, log="\n".join(log))


def test_export_is_verified_and_described(exported, tiny):
    output, report, seen = exported.output, exported.report, exported.seen
    assert sorted(p.name for p in output.parent.iterdir()) == ["best.onnx", "parity.json"]
    assert read_card(output) == tiny.card
    assert report.failures == []
    assert report.num_detections > 50
    assert 0 < report.max_score_difference < 1e-3  # another runtime
    written = json.loads((output.parent / "parity.json").read_text())["best.onnx"]
    assert written["max_score_difference"] == report.max_score_difference
    assert written["sizes_wh"] == [[90, 120], [160, 96]]
    assert "best.onnx: onnxruntime against PyTorch on 9 given images" in exported.log
    assert [what for what, *_ in seen[:2]] == ["loading", "exporting"]
    assert seen[-1] == ("comparing onnxruntime", 34, 34)


def test_wrong_result_removes_all_files(source, exported, tmp_path, monkeypatch, caplog):
    output = tmp_path / "best.onnx"
    for path in exported.output.parent.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "other.txt").write_text("mine")
    write = export.write_onnx

    def write_another(detector, *args, **options):
        head = detector.model.decoder.dec_score_head[-1]
        with torch.no_grad():
            head.bias += 0.05
        try:
            return write(detector, *args, **options)
        finally:
            with torch.no_grad():
                head.bias -= 0.05

    monkeypatch.setattr(export, "write_onnx", write_another)
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(ExportError, match=r"scores differ by 0\.0\d+ \(limit: 0\.001\)"),
    ):
        export_onnx(source, output, slim=False)
    assert [p.name for p in tmp_path.iterdir()] == ["other.txt"]
    assert "scores differ by up to" in caplog.text


def test_failed_export_leaves_no_files(source, tmp_path, monkeypatch):
    output = tmp_path / "best.onnx"
    output.write_bytes(b"earlier")

    def fail(detector, card, path, **options):
        path.write_bytes(b"partial")
        raise ExportError("the exporter's reason")

    monkeypatch.setattr(export, "write_onnx", fail)
    with pytest.raises(ExportError, match="the exporter's reason"):
        export_onnx(source, output)
    assert list(tmp_path.iterdir()) == []


def test_unusable_checkpoint_keeps_the_earlier_file(tmp_path):
    output = tmp_path / "best.onnx"
    output.write_bytes(b"earlier")
    with pytest.raises(CheckpointError, match=r"none\.pth"):
        export_onnx(Source(checkpoint=tmp_path / "none.pth"), output)
    assert output.read_bytes() == b"earlier"


def test_unwritable_output(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export_onnx(source, tmp_path / "file" / "best.onnx")


def test_generated_images_are_the_default(tiny, tmp_path):
    report = export_onnx(Source(checkpoint=tiny.path), tmp_path / "a.onnx", slim=False)
    assert report.images == "6 generated images"
    assert report.ap_exported is None


def test_nms_in_the_graph_matches_pytorch(source, exported, tmp_path):
    report = export_onnx(source, tmp_path / "b.onnx", slim=False, nms_iou=0.1)
    assert read_card(tmp_path / "b.onnx").nms_iou == 0.1
    assert report.failures == []
    assert report.num_detections < exported.report.num_detections


def test_missing_tensorrt_fails_first(source, tmp_path, monkeypatch):
    output = tmp_path / "best.engine"
    output.write_bytes(b"earlier")

    def missing():
        raise ConfigError("TensorRT is not available")

    monkeypatch.setattr(export, "load_tensorrt", missing)
    with pytest.raises(ConfigError, match="TensorRT is not available"):
        export_tensorrt(source, output)
    assert output.read_bytes() == b"earlier"


@pytest.fixture
def built(monkeypatch):
    """ONNX Runtime in place of TensorRT; the options and operators of the last build."""
    calls = {}

    def build(onnx_file, engine_file, **options):
        operators = {node.op_type for node in onnx.load(onnx_file).graph.node}
        calls.update(options, card=read_card(onnx_file), operators=operators)
        engine_file.write_bytes(onnx_file.read_bytes())
        export.card_file(engine_file).write_text("{}")

    def open_engine(path, kind, **options):
        if kind != "tensorrt":
            return open_runtime(path, kind, **options)
        calls.update(kind=kind, **options)
        copy = path.with_suffix(".onnx")
        copy.write_bytes(path.read_bytes())
        try:
            return open_runtime(copy, "onnxruntime")
        finally:
            copy.unlink()

    open_runtime = export.open_runtime
    monkeypatch.setattr(export, "load_tensorrt", lambda: None)
    monkeypatch.setattr(export, "build_engine", build)
    monkeypatch.setattr(export, "open_runtime", open_engine)
    return calls


def test_engine_is_verified(source, tmp_path, built):
    output = tmp_path / "best.engine"
    report = export_tensorrt(
        replace(source, input_size_hw=(64, 128)),
        output,
        precision="fp32",
        batch_sizes=(1, 2, 8),
        timing_cache=tmp_path / "cache",
        device="cuda:1",
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.engine",
        "best.engine.json",
        "parity.json",
    ]
    assert (report.file, report.precision, report.failures) == ("best.engine", "fp32", [])
    card = built.pop("card")
    assert (card.precision, card.input_size_hw) == ("fp32", (64, 128))
    assert card.trained_size_hw == SIZE_HW
    assert {"GridSample", "Range"} & built.pop("operators") == {"Range"}
    assert built == {
        "batch_sizes": (1, 2, 8),
        "timing_cache": tmp_path / "cache",
        "kind": "tensorrt",
        "device": "cuda:1",
    }


def test_engine_with_grid_sample(source, tmp_path, built):
    export_tensorrt(source, tmp_path / "a.engine", precision="fp32", grid_sample=True)
    assert "GridSample" in built["operators"]


def test_engine_of_an_onnx_file(exported, source, tmp_path, built):
    file = Source(checkpoint=exported.output, find_images=source.find_images)
    report = export_tensorrt(file, tmp_path / "b.engine", precision="fp32", nms_iou=0.5)
    assert (report.reference, report.precision, report.failures) == ("onnxruntime", "fp32", [])
    assert str(report).startswith("b.engine: onnxruntime against onnxruntime on 9 given images")
    assert built["card"] == replace(exported.card, nms_iou=0.5)
    operators = built["operators"]
    assert {"GridSample", "NonMaxSuppression"} & operators == {"NonMaxSuppression"}


def test_options_that_need_the_checkpoint_are_rejected_for_an_onnx_file(exported, tmp_path, built):
    file = Source(checkpoint=exported.output, sampling="discrete")
    with pytest.raises(ConfigError, match=r"sampling: .*best\.onnx is exported; give its"):
        export_tensorrt(file, tmp_path / "b.engine")
    with pytest.raises(ConfigError, match=r"best\.onnx: already exported; give its checkpoint"):
        export_onnx(file, tmp_path / "b.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_onnx_file_is_not_converted_back(exported, tmp_path):
    half, twice = tmp_path / "half.onnx", tmp_path / "twice.onnx"
    convert_onnx(exported.output, half, precision="fp16", nms_iou=0.6)
    with pytest.raises(ExportError, match="in half precision and cannot be converted to float32"):
        convert_onnx(half, twice, precision="fp32")
    with pytest.raises(ExportError, match=r"already applies NMS with nms_iou = 0\.6; export the"):
        convert_onnx(half, twice, precision="fp16", nms_iou=0.7)
    card = convert_onnx(half, twice, precision="fp16")
    assert read_card(twice) == card == replace(exported.card, precision="fp16", nms_iou=0.6)
    assert twice.stat().st_size == half.stat().st_size
