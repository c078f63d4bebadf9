"""An export exists only if it is right: what is left after success, failure and a wrong result."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetrv2_pytorch.src.deploy import export
from rtdetrv2_pytorch.src.deploy.comparison_images import given_images
from rtdetrv2_pytorch.src.deploy.export import Source, export_onnx, export_tensorrt
from rtdetrv2_pytorch.src.deploy.onnx import read_card
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError, ExportError
from tests.lively import pictures


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pictures of two sizes, as files."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for number, size_hw in enumerate([(96, 160)] * 6 + [(120, 90)] * 3):
        picture = pictures(1, size_hw, seed=number)[0].permute(1, 2, 0)
        path = folder / f"{number}.png"
        Image.fromarray((255 * picture.numpy()).astype(np.uint8)).save(path)
        paths.append(path)
    return paths


@pytest.fixture
def source(tiny, files):
    return Source(checkpoint=tiny.path, find_images=lambda names: given_images(files))


def test_the_file_is_proved_described_and_alone(source, tiny, tmp_path, caplog):
    output = tmp_path / "new" / "best.onnx"
    seen = []
    with caplog.at_level(logging.INFO):
        report = export_onnx(source, output, on_progress=lambda *args: seen.append(args))
    assert sorted(p.name for p in output.parent.iterdir()) == ["best.onnx", "parity.json"]
    assert read_card(output) == tiny.card
    assert report.failures == []
    assert report.num_detections > 50
    assert 0 < report.max_score_difference < 1e-3  # of another program: not the very same
    written = json.loads((output.parent / "parity.json").read_text())["best.onnx"]
    assert written["max_score_difference"] == report.max_score_difference
    assert written["sizes_wh"] == [[90, 120], [160, 96]]
    assert "best.onnx: onnxruntime against PyTorch on 9 given images" in caplog.text
    assert [what for what, *_ in seen[:2]] == ["loading", "exporting"]
    assert seen[-1] == ("comparing onnxruntime", 27, 27)


def test_a_wrong_result_leaves_nothing_not_even_what_was_there(
    source, tmp_path, monkeypatch, caplog
):
    output = tmp_path / "best.onnx"
    export_onnx(source, output, slim=False)
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


def test_an_export_that_breaks_off_leaves_nothing(source, tmp_path, monkeypatch):
    output = tmp_path / "best.onnx"
    output.write_bytes(b"of yesterday")

    def fail(detector, card, path, **options):
        path.write_bytes(b"half a file")
        raise ExportError("the exporter's reason")

    monkeypatch.setattr(export, "write_onnx", fail)
    with pytest.raises(ExportError, match="the exporter's reason"):
        export_onnx(source, output)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_cannot_be_used_leaves_the_earlier_file(tmp_path):
    output = tmp_path / "best.onnx"
    output.write_bytes(b"of yesterday")
    with pytest.raises(CheckpointError, match=r"none\.pth"):
        export_onnx(Source(checkpoint=tmp_path / "none.pth"), output)
    assert output.read_bytes() == b"of yesterday"


def test_a_place_that_cannot_be_written(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export_onnx(source, tmp_path / "file" / "best.onnx")


def test_without_images_generated_ones_are_used_and_named(tiny, tmp_path):
    report = export_onnx(Source(checkpoint=tiny.path), tmp_path / "a.onnx", slim=False)
    assert report.images == "6 generated images, for want of a data set"
    assert report.ap_exported is None


def test_suppression_in_the_graph_is_compared_with_that_of_pytorch(source, tmp_path):
    plain = export_onnx(source, tmp_path / "a.onnx", slim=False)
    report = export_onnx(source, tmp_path / "b.onnx", slim=False, nms_iou=0.1)
    assert read_card(tmp_path / "b.onnx").nms_iou == 0.1
    assert report.failures == []
    assert report.num_detections < plain.num_detections


def test_tensorrt_is_asked_for_first(source, tmp_path, monkeypatch):
    output = tmp_path / "best.engine"
    output.write_bytes(b"of yesterday")

    def missing():
        raise ConfigError("TensorRT cannot be used here")

    monkeypatch.setattr(export, "load_tensorrt", missing)
    with pytest.raises(ConfigError, match="TensorRT cannot be used here"):
        export_tensorrt(source, output)
    assert output.read_bytes() == b"of yesterday"


def test_an_engine_is_proved_like_any_file(source, tiny, tmp_path, monkeypatch):
    """With ONNX Runtime in the place of TensorRT: everything around the engine."""
    calls = {}

    def build(onnx_file, engine_file, **options):
        calls.update(options, card=read_card(onnx_file))
        engine_file.write_bytes(onnx_file.read_bytes())
        export.card_file(engine_file).write_text("{}")

    def open_engine(path, kind, *, device):
        calls.update(kind=kind, device=device)
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
    output = tmp_path / "best.engine"
    report = export_tensorrt(
        source,
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
    assert calls.pop("card").precision == "fp32"
    assert calls == {
        "batch_sizes": (1, 2, 8),
        "timing_cache": tmp_path / "cache",
        "kind": "tensorrt",
        "device": "cuda:1",
    }
