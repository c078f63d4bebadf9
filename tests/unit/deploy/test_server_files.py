"""Configuration for NVIDIA Triton, parsed with its published schema, and for DeepStream."""

import configparser
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from google.protobuf import text_format

from rtdetrv2_pytorch.src.deploy.onnx import write_onnx
from rtdetrv2_pytorch.src.deploy.server_files import write_deepstream, write_triton
from rtdetrv2_pytorch.src.deploy.tensorrt import card_file
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError, ExportError

TYPES = {"TYPE_FP32": np.float32, "TYPE_INT64": np.int64}


@pytest.fixture(scope="module")
def schema():
    """The module `model_config_pb2` of `tritonclient`, without its package, which needs gRPC."""
    package = importlib.util.find_spec("tritonclient")
    path = Path(package.origin).parent / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "best.onnx"
    write_onnx(tiny.detector, tiny.card, path)
    return path


@pytest.fixture
def engine(tiny, tmp_path):
    path = tmp_path / "best.engine"
    path.write_bytes(b"plan")
    facts = replace(tiny.card, precision="fp16").to_metadata()
    card_file(path).write_text(json.dumps(facts | {"batch_sizes": "[1, 2, 8]"}))
    return path


def parsed(schema, folder):
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, schema.ModelConfig())


def test_triton_runs_the_onnx_file_with_the_declared_tensors(schema, exported, tiny, tmp_path):
    folder = write_triton(exported, tmp_path / "models")
    assert folder == tmp_path / "models" / "best"
    config = parsed(schema, folder)
    assert (config.name, config.platform) == ("best", "onnxruntime_onnx")
    assert config.HasField("dynamic_batching")
    assert json.loads(config.parameters["class_names"].string_value) == ["cat", "dog", "owl"]
    assert (folder / "labels.txt").read_text() == "cat\ndog\nowl\n"
    model = folder / "1" / config.default_model_filename
    assert model.read_bytes() == exported.read_bytes()
    batch = 3
    inputs = {
        each.name: np.ones((batch, *each.dims), TYPES[schema.DataType.Name(each.data_type)])
        for each in config.input
    }
    found = ort.InferenceSession(str(model)).run([each.name for each in config.output], inputs)
    for each, value in zip(config.output, found, strict=True):
        assert value.shape == (batch, *each.dims)
        assert value.dtype == TYPES[schema.DataType.Name(each.data_type)]
    assert config.max_batch_size == 16


def test_triton_with_an_engine(schema, engine, tmp_path):
    config = parsed(schema, write_triton(engine, tmp_path))
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 8)
    assert (tmp_path / "best" / "1" / "model.plan").read_bytes() == b"plan"


@pytest.mark.parametrize("name", ['"quoted" \\ cat', "two\nlines", "Katze \u00e4\u732b"])
def test_any_class_name(schema, tiny, tmp_path, name):
    path = tmp_path / "named.onnx"
    write_onnx(tiny.detector, replace(tiny.card, class_names=(name, "b", "c")), path, slim=False)
    folder = write_triton(path, tmp_path)
    parameter = parsed(schema, folder).parameters["class_names"].string_value
    assert json.loads(parameter) == [name, "b", "c"]
    assert len((folder / "labels.txt").read_text(encoding="utf-8").splitlines()) == 3


def test_other_models_of_the_repository_stay(exported, tmp_path):
    (tmp_path / "other").mkdir()
    write_triton(exported, tmp_path)
    write_triton(exported, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "other"]


@pytest.mark.parametrize("kind", ["onnx", "engine"])
def test_deepstream(exported, engine, tmp_path, kind):
    file = exported if kind == "onnx" else engine
    target = write_deepstream(file, tmp_path / "ds")
    config = configparser.ConfigParser()
    config.read(target)
    values = config["property"]
    assert values["onnx-file" if kind == "onnx" else "model-engine-file"] == str(file)
    assert Path(values["labelfile-path"]).read_text() == "cat\ndog\nowl\n"
    assert values["output-blob-names"] == "labels;boxes;scores"
    assert (values["num-detected-classes"], values["infer-dims"]) == ("3", "3;96;160")
    assert float(values["net-scale-factor"]) == pytest.approx(1 / 255, rel=1e-12)
    assert (values["network-mode"], values["batch-size"]) == (
        ("0", "16") if kind == "onnx" else ("2", "8")
    )
    assert config["class-attrs-all"]["pre-cluster-threshold"] == "0.4"


@pytest.mark.parametrize("write", [write_triton, write_deepstream])
def test_errors(write, exported, engine, tmp_path):
    with pytest.raises(ConfigError, match=r"best\.pth: give an ONNX file or an engine"):
        write(tmp_path / "best.pth", tmp_path)
    used = tmp_path / "file"
    used.write_text("")
    with pytest.raises(ExportError, match="cannot be written .*; choose another directory"):
        write(exported, used)
    card_file(engine).unlink()
    with pytest.raises(CheckpointError, match="file is missing"):
        write(engine, tmp_path)
