"""Runtimes: supported files, results, thread safety and signals."""

import gc
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import onnx
import onnxruntime
import pytest
import torch

from rtdetrv2_pytorch.src.deploy.onnx import write_onnx
from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError, ExportError
from tests.random_detectors import assert_same_detections


@pytest.fixture(scope="module")
def files(tiny, tmp_path_factory):
    """The tiny detector as a checkpoint and as an ONNX file; its images as uint8."""
    path = tmp_path_factory.mktemp("runtimes") / "model.onnx"
    write_onnx(tiny.detector, tiny.card, path, slim=False)
    pixels = (tiny.images * 255).round().to(torch.uint8)
    with torch.inference_mode():
        found = tiny.detector(pixels, tiny.sizes_wh)
    return SimpleNamespace(onnx=path, pth=tiny.path, pixels=pixels, found=found)


@pytest.mark.parametrize(
    ("file", "kind", "opened"),
    [
        ("pth", None, "pytorch"),
        ("pth", "pytorch", "pytorch"),
        ("onnx", None, "onnxruntime"),
        ("onnx", "onnxruntime", "onnxruntime"),
        ("onnx", "openvino", "openvino"),
    ],
)
def test_runtimes_agree(tiny, files, file, kind, opened):
    runtime = open_runtime(getattr(files, file), kind)
    assert (runtime.kind, runtime.device, runtime.max_batch_size) == (
        opened,
        torch.device("cpu"),
        None,
    )
    assert runtime.card == tiny.card
    for batch in (1, 7):
        found = runtime(files.pixels[:batch], tiny.sizes_wh[:batch])
        assert [value.dtype for value in found] == [torch.int64, torch.float32, torch.float32]
        assert_same_detections(found, [value[:batch] for value in files.found])


def test_signal_after_openvino_was_released(tiny, files):
    """A stop request has to reach its handler; in a child, because the process may crash."""
    opened = [open_runtime(files.onnx, "openvino") for _ in range(2)]
    while opened:
        opened.pop(0)(files.pixels[:1], tiny.sizes_wh[:1])
        gc.collect()
    child = os.fork()
    if not child:
        received = []
        signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
        signal.raise_signal(signal.SIGTERM)
        os._exit(7 if received == [signal.SIGTERM] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_upper_case_suffix(tiny, files, tmp_path):
    capitals = tmp_path / "MODEL.ONNX"
    capitals.write_bytes(files.onnx.read_bytes())
    assert open_runtime(str(capitals)).kind == "onnxruntime"


def test_options_are_passed_to_the_detector(files):
    runtime = open_runtime(files.pth, sampling="discrete", class_names=["x", "y", "z"])
    assert (runtime.card.sampling, runtime.card.class_names) == ("discrete", ("x", "y", "z"))


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_runtime_is_thread_safe(tiny, files, kind):
    runtime = open_runtime(files.onnx, kind)
    alone = [runtime(files.pixels[i : i + 1], tiny.sizes_wh[i : i + 1]) for i in range(7)]
    work = list(range(7)) * 4
    with ThreadPoolExecutor(4) as threads:
        together = list(
            threads.map(lambda i: runtime(files.pixels[i : i + 1], tiny.sizes_wh[i : i + 1]), work)
        )
    for i, found in zip(work, together, strict=True):
        for value, expected in zip(found, alone[i], strict=True):
            torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (
            "x.pth",
            "tflite",
            r"^runtime = 'tflite': unknown; choose pytorch, onnxr",
        ),
        (
            "x.zip",
            None,
            r"^runtime = '\.zip': unknown; .*, openvino, tensorrt$",
        ),
        ("x.pth", "onnxruntime", r"^x\.pth: onnxruntime needs a \.onnx file; give one, or choose"),
        ("x.onnx", "pytorch", r"^x\.onnx: pytorch needs a \.pth or \.pt file"),
        ("x.engine", "openvino", r"^x\.engine: openvino needs a \.onnx file"),
        ("x.onnx", "tensorrt", r"^x\.onnx: tensorrt needs a \.engine file"),
    ],
)
def test_invalid_choices_are_rejected(name, kind, message):
    with pytest.raises(ConfigError, match=message):
        open_runtime(name, kind)


@pytest.mark.parametrize("name", ["x.onnx", "x.engine", "x.pth"])
def test_missing_file_is_rejected(tmp_path, name):
    with pytest.raises(CheckpointError, match=rf"{name}: no such file; "):
        open_runtime(tmp_path / name)


@pytest.mark.parametrize(
    ("kind", "who"), [("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO")]
)
def test_error_contains_the_reason_of_the_runtime(tiny, tmp_path, kind, who):
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17, "unknown": 1]>
        g (float[2] x) => (float[2] y) { y = unknown.Op (x) }
        """
    )
    onnx.helper.set_model_props(model, tiny.card.to_metadata())
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(ExportError, match=rf"x\.onnx: {who} cannot load the file \(.*\)"):
        open_runtime(tmp_path / "x.onnx", kind)


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_files_without_model_card_or_damaged_are_rejected(files, tmp_path, kind):
    model = onnx.load(files.onnx)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "theirs.onnx")
    with pytest.raises(CheckpointError, match=r"theirs\.onnx: the metadata .* is missing"):
        open_runtime(tmp_path / "theirs.onnx", kind)
    (tmp_path / "damaged.onnx").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ExportError, match=r"damaged\.onnx: not an ONNX model, or damaged"):
        open_runtime(tmp_path / "damaged.onnx", kind)


def test_openvino_on_a_gpu_is_rejected(files, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"^device = 'cuda': OpenVINO runs on the CPU; use cpu"):
        open_runtime(files.onnx, "openvino", device="cuda")


def test_onnx_runtime_fallback_to_the_cpu_is_rejected(files, monkeypatch):
    """Without the CUDA libraries the session is created on the CPU."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    make = onnxruntime.InferenceSession

    def on_the_cpu(path, options, providers):
        assert providers[0] == ("CUDAExecutionProvider", {"device_id": 0, "use_tf32": 0})
        return make(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    with pytest.raises(ConfigError, match="ONNX Runtime does not find CUDA .* use the runtime pyt"):
        open_runtime(files.onnx, device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize(("file", "kind"), [("pth", "pytorch"), ("onnx", "onnxruntime")])
def test_gpu_agrees(tiny, files, gpu, file, kind):
    runtime = open_runtime(getattr(files, file), kind, device=gpu)
    found = runtime(files.pixels.to(gpu), tiny.sizes_wh)
    assert {value.device.type for value in found} == {"cuda"}
    torch.testing.assert_close(found[2].cpu(), files.found[2], rtol=0, atol=5e-3)
