"""TensorRT engines with a fake of its API, and with TensorRT where installed."""

import json
import sys
from pathlib import Path

import onnx
import pytest
import torch

from rtdetrv2_pytorch.src.deploy.model_card import ModelCard
from rtdetrv2_pytorch.src.deploy.onnx import write_onnx
from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from rtdetrv2_pytorch.src.deploy.tensorrt import (
    TensorRTRuntime,
    build_engine,
    card_file,
    load_tensorrt,
)
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError, ExportError
from tests.fake_tensorrt import fake_tensorrt

CARD = ModelCard(class_names=("cat", "dog"), input_size_hw=(320, 256), precision="fp16")
VERSIONS = ["10.13.3", "11.0.1"]


@pytest.fixture(params=VERSIONS)
def trt(request, monkeypatch):
    module = fake_tensorrt(request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


def write_model(path: Path, node: str = "scores = Relu (images)", card: ModelCard | None = CARD):
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["": 17, "unknown": 1]>
        g (float[N, 3, 320, 256] images) => (float[N, 3, 320, 256] scores) {{ {node} }}
        """
    )
    if card is not None:
        onnx.helper.set_model_props(model, card.to_metadata())
    onnx.save(model, path)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_build_writes_engine_and_model_card(trt, tmp_path):
    source = write_model(tmp_path / "m.onnx")
    engine = tmp_path / "m.engine"
    assert build_engine(source, engine, batch_sizes=(1, 4, 8)) == CARD
    assert json.loads(engine.read_bytes())["version"] == trt.__version__
    assert names(tmp_path) == ["m.engine", "m.engine.json", "m.onnx"]
    metadata = json.loads(card_file(engine).read_text(encoding="utf-8"))
    assert ModelCard.from_metadata(metadata, source="x") == CARD
    assert (metadata["tensorrt"], json.loads(metadata["batch_sizes"])) == (
        trt.__version__,
        [1, 4, 8],
    )
    assert metadata["gpu"] == (torch.cuda.get_device_name() if torch.cuda.is_available() else "")
    (build,) = trt.builds
    assert len(build.network.model.graph.node) == 1


def test_networks_are_strongly_typed(trt, tmp_path):
    build_engine(write_model(tmp_path / "m.onnx"), tmp_path / "m.engine")
    # Bit 1 of the flags in TensorRT 10; TensorRT 11 has only strongly typed networks.
    assert trt.builds[0].network.flags == {"10": 2, "11": 0}[trt.__version__.split(".")[0]]


def test_profile_precision_and_memory(trt, tmp_path):
    build_engine(
        write_model(tmp_path / "m.onnx"),
        tmp_path / "m.engine",
        batch_sizes=(2, 4, 16),
    )
    config = trt.builds[0].config
    (profile,) = config.profiles
    assert profile.shapes == {
        "images": ((2, 3, 320, 256), (4, 3, 320, 256), (16, 3, 320, 256)),
        "orig_target_sizes": ((2, 2), (4, 2), (16, 2)),
    }
    # TF32 is disabled; other precisions come from the types in the file.
    assert config.flags == set()
    assert config.limits == {trt.MemoryPoolType.WORKSPACE: 4 << 30}


@pytest.mark.parametrize(
    ("version", "warns"), [("10.12.0.1", False), ("10.13.3.9", True), ("11.1.0", True)]
)
def test_known_faults_of_a_version_are_named(version, warns, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(version))
    node = "scores = GridSample (images, images)"
    build_engine(write_model(tmp_path / "m.onnx", node), tmp_path / "m.engine")
    build_engine(write_model(tmp_path / "other.onnx"), tmp_path / "other.engine")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == warns
    for message in messages:
        assert message.startswith(
            f"m.onnx contains GridSample, which TensorRT {version} is reported to compute wrongly"
        )
        assert "NVIDIA/TensorRT issues 4646" in message


def test_parser_error(trt, tmp_path):
    source = write_model(tmp_path / "m.onnx", "scores = unknown.Op (images)")
    reason = r"^m\.onnx: TensorRT cannot parse the file: In node 0: no importer for Op$"
    with pytest.raises(ExportError, match=reason):
        build_engine(source, tmp_path / "m.engine")
    assert names(tmp_path) == ["m.onnx"]


def test_build_error(trt, tmp_path):
    trt.fails_with = ["out of memory", " no kernel \n"]
    reason = r"^m\.onnx: TensorRT cannot build an engine: out of memory; no kernel$"
    with pytest.raises(ExportError, match=reason):
        build_engine(write_model(tmp_path / "m.onnx"), tmp_path / "m.engine")
    assert names(tmp_path) == ["m.onnx"]


def test_build_error_without_message(trt, tmp_path, monkeypatch):
    class Silent(type(trt.Builder(trt.ILogger()))):
        def build_serialized_network(self, network, config):
            return None

    monkeypatch.setattr(trt, "Builder", lambda logger: Silent(trt, logger))
    with pytest.raises(ExportError, match="no reason given"):
        build_engine(write_model(tmp_path / "m.onnx"), tmp_path / "m.engine")


def test_failed_build_removes_an_earlier_engine(trt, tmp_path):
    source, engine = write_model(tmp_path / "m.onnx"), tmp_path / "m.engine"
    build_engine(source, engine, batch_sizes=(1, 1, 1))
    build_engine(source, engine, batch_sizes=(1, 2, 3))  # replaced
    assert json.loads(json.loads(card_file(engine).read_text())["batch_sizes"]) == [1, 2, 3]
    trt.fails_with = ["no"]
    with pytest.raises(ExportError):
        build_engine(source, engine)
    assert names(tmp_path) == ["m.onnx"]


@pytest.mark.parametrize("sizes", [(0, 1, 2), (2, 1, 4), (1, 8, 4), (-1, 1, 1)])
def test_invalid_batch_sizes_are_rejected(trt, tmp_path, sizes):
    with pytest.raises(ExportError, match="must be minimum <= optimum <= maximum, from 1"):
        build_engine(write_model(tmp_path / "m.onnx"), tmp_path / "m.engine", batch_sizes=sizes)
    assert trt.builds == []


def test_onnx_file_without_model_card_is_rejected(trt, tmp_path):
    source = write_model(tmp_path / "m.onnx", card=None)
    with pytest.raises(CheckpointError, match="the metadata .* is missing"):
        build_engine(source, tmp_path / "m.engine")
    assert trt.builds == []


def build_with_cache(trt, tmp_path, cache):
    build_engine(write_model(tmp_path / "m.onnx"), tmp_path / "m.engine", timing_cache=cache)
    return trt.builds[-1].config.cache


def test_timing_cache_is_written_and_reused(trt, tmp_path):
    cache = tmp_path / "caches" / "timing.cache"
    build_with_cache(trt, tmp_path, cache)
    first = cache.read_bytes()
    assert first == f"cache of {trt.__version__}+".encode()
    build_with_cache(trt, tmp_path, cache)
    assert cache.read_bytes() == first + b"+"


@pytest.mark.parametrize("content", [b"cache of 9.9.9+++", b"garbage"])
def test_incompatible_timing_cache_is_replaced(trt, tmp_path, content):
    cache = tmp_path / "timing.cache"
    cache.write_bytes(content)
    assert build_with_cache(trt, tmp_path, cache) is not None
    assert cache.read_bytes() == f"cache of {trt.__version__}+".encode()


def test_build_without_timing_cache(trt, tmp_path):
    assert build_with_cache(trt, tmp_path, None) is None
    assert names(tmp_path) == ["m.engine", "m.engine.json", "m.onnx"]


def test_unwritable_timing_cache_is_a_warning(trt, tmp_path, caplog):
    (tmp_path / "file").write_text("not a directory")
    build_with_cache(trt, tmp_path, tmp_path / "file" / "timing.cache")
    assert "Could not write the timing cache" in caplog.text
    assert (tmp_path / "m.engine").is_file()


@pytest.mark.parametrize("version", ["8.6.1", "9.3.0", "12.0.0"])
def test_unsupported_version_is_rejected(monkeypatch, tmp_path, version):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(version))
    with pytest.raises(ConfigError, match=rf"^TensorRT {version} is not supported; .* 10 or 11$"):
        build_engine(write_model(tmp_path / "m.onnx"), tmp_path / "m.engine")


def test_missing_tensorrt(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ConfigError, match=r"not available .*rtdetrv2\[tensorrt\].* or c"):
        load_tensorrt()


def test_cpu_is_rejected(trt, tmp_path):
    engine = tmp_path / "m.engine"
    build_engine(write_model(tmp_path / "m.onnx"), engine)
    with pytest.raises(ConfigError, match=r"^device = 'cpu': TensorRT needs a GPU; use cuda$"):
        open_runtime(engine, device="cpu")


def test_missing_model_card_is_rejected(trt, tmp_path):
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"plan")
    with pytest.raises(CheckpointError, match=r"m\.engine\.json: file is missing; it contains"):
        TensorRTRuntime(engine, torch.device("cuda"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged; build the engine again"),
        ("{}", "the metadata .* is missing"),
        (json.dumps(CARD.to_metadata()), "is damaged; build the engine again"),  # no batch sizes
        (json.dumps(CARD.to_metadata() | {"batch_sizes": "[1]"}), "is damaged; build the engine"),
    ],
    ids=["text", "foreign", "sizes", "size"],
)
def test_damaged_model_card_is_rejected(trt, tmp_path, text, message):
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"plan")
    card_file(engine).write_text(text)
    with pytest.raises(CheckpointError, match=rf"m\.engine\.json: .*{message}"):
        TensorRTRuntime(engine, torch.device("cuda"))


@pytest.fixture
def real_tensorrt(gpu):
    try:
        return load_tensorrt()
    except ConfigError as error:
        pytest.skip(f"no TensorRT: {error}")


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engine_agrees_with_pytorch(tiny, real_tensorrt, gpu, tmp_path, precision):
    source, engine = tmp_path / "m.onnx", tmp_path / "m.engine"
    write_onnx(tiny.detector, tiny.card, source, precision=precision)
    card = build_engine(source, engine, batch_sizes=(1, 2, 7), timing_cache=tmp_path / "cache")
    runtime = open_runtime(engine, device=gpu)
    assert runtime.card == card
    assert runtime.max_batch_size == 7
    pixels = (tiny.images * 255).round().to(torch.uint8)
    with torch.inference_mode():
        expected = tiny.detector(pixels, tiny.sizes_wh)
    for batch in (1, 2, 7):
        labels, boxes, scores = runtime(pixels[:batch].to(gpu), tiny.sizes_wh[:batch])
        error = (scores.cpu() - expected[2][:batch]).abs()
        if precision == "fp32":
            assert error.max() < 5e-3
            near = (boxes.cpu() - expected[1][:batch]).abs().amax(-1) < 1
            assert (near & (labels.cpu() == expected[0][:batch])).float().mean() > 0.9
        else:
            assert error.mean() < 0.03
    with pytest.raises(ConfigError, match="the engine supports up to 7 images"):
        runtime(torch.cat((pixels, pixels)).to(gpu), tiny.sizes_wh.repeat(2, 1))
