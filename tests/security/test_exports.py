"""Untrusted ONNX files and model cards of engines."""

import json
import random

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from rtdetrv2_pytorch.src.deploy import tensorrt as trt_module
from rtdetrv2_pytorch.src.deploy.model_card import ModelCard
from rtdetrv2_pytorch.src.deploy.onnx_file import read_card
from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from rtdetrv2_pytorch.src.deploy.tensorrt import card_file
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ExportError, RTDETRError
from tests.security.peak_memory import at_most

MB = 1 << 20
CARD = ModelCard(class_names=("cat", "dog"), input_size_hw=(64, 64))


def model(*initializers, nodes=(), metadata=None):
    """Return a model with our model card; its graph is an identity."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["labels"]), *nodes],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("labels", TensorProto.FLOAT, [1])],
        initializer=initializers,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    helper.set_model_props(made, CARD.to_metadata() | (metadata or {}))
    return made


def write(path, made):
    path.write_bytes(made.SerializeToString())
    return path


def external(location, name="w"):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def in_a_constant(tensor):
    return helper.make_node("Constant", [], ["c"], value=tensor)


def in_a_branch(tensor):
    branch = helper.make_graph([in_a_constant(tensor)], "b", [], [])
    return helper.make_node("If", ["images"], ["d"], then_branch=branch, else_branch=branch)


@pytest.fixture
def secret(tmp_path):
    (tmp_path / "model").mkdir()
    path = tmp_path / "secret.bin"
    path.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path / "model" / "beside.bin").write_bytes(path.read_bytes())
    (tmp_path / "model" / "link.bin").symlink_to(path)
    return path


@pytest.mark.parametrize("location", ["../secret.bin", "{secret}", "link.bin", "beside.bin"])
@pytest.mark.parametrize("place", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_external_data_is_rejected(tmp_path, secret, location, place, kind):
    tensor = external(location.format(secret=secret))
    made = {
        "initializer": lambda: model(tensor),
        "constant": lambda: model(nodes=[in_a_constant(tensor)]),
        "branch": lambda: model(nodes=[in_a_branch(tensor)]),
    }[place]()
    path = write(tmp_path / "model" / "m.onnx", made)
    with pytest.raises(ExportError, match=r"m\.onnx: the weights 'w' are external data"):
        open_runtime(path, kind)


def test_valid_file_is_accepted(tmp_path):
    weights = numpy_helper.from_array(np.ones(4, np.float32), "w")
    assert read_card(write(tmp_path / "m.onnx", model(weights))) == CARD
    assert open_runtime(tmp_path / "m.onnx").card == CARD


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("dims", [[1 << 40], [1 << 31, 1 << 31], [-1], [1 << 62, 4]])
def test_declared_shape_allocates_no_memory(tmp_path, dims, kind):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"\0" * 16)
    used = helper.make_node("Identity", ["w"], ["d"])
    path = write(tmp_path / "m.onnx", model(tensor, nodes=[used]))
    with at_most(256 * MB), pytest.raises(ExportError, match=r"m\.onnx"):
        open_runtime(path, kind)


def test_damaged_protobuf_is_rejected(tmp_path):
    data = model(numpy_helper.from_array(np.ones(4, np.float32), "w")).SerializeToString()
    numbers = random.Random(0)
    path = tmp_path / "m.onnx"
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(numbers.randint(1, 8)):
            damaged[numbers.randrange(len(data))] = numbers.randrange(256)
        path.write_bytes(damaged[: numbers.randint(0, len(data))])
        try:
            open_runtime(path)
        except RTDETRError:
            refused += 1
    assert refused > 100  # the others were damaged in unused bytes


CARDS = [
    {"class_names": "5"},
    {"class_names": '"cat"'},
    {"class_names": "[]"},
    {"class_names": "[" * 100_000},
    {"input_size_hw": "[1000000000, 1000000000]"},
    {"input_size_hw": "[0, 64]"},
    {"input_size_hw": "[-64, 64]"},
    {"input_size_hw": "[1e999, 64]"},
    {"input_size_hw": "[64]"},
    {"input_size_hw": "null"},
    {"num_detections": "-1"},
    {"num_detections": "1e12"},
    {"num_detections": '"many"'},
    {"threshold": "NaN"},
    {"threshold": "7"},
    {"class_thresholds": "[1]"},
    {"class_thresholds": '{"cat": "x"}'},
    {"nms_iou": "-1"},
]


@pytest.mark.parametrize("change", CARDS, ids=range(len(CARDS)))
def test_invalid_metadata_is_rejected(tmp_path, change):
    path = write(tmp_path / "m.onnx", model(metadata=change))
    with at_most(64 * MB), pytest.raises(CheckpointError, match="the metadata is damaged"):
        read_card(path)


@pytest.mark.parametrize("text", ["[]", "5", "null", '{"a": 1}', "{", "[" * 100_000, "\xff"])
def test_invalid_model_card_of_an_engine_is_rejected(tmp_path, text):
    engine = tmp_path / "m.engine"
    card_file(engine).write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"m\.engine\.json: file is damaged; build"):
        trt_module.read_card_file(engine)


@pytest.mark.parametrize("text", ["5", "[1]", '["a", "b", "c"]', "[1, 2, 1e999]", "["])
def test_invalid_batch_sizes_of_an_engine_are_rejected(tmp_path, text):
    engine = tmp_path / "m.engine"
    metadata = CARD.to_metadata() | {"batch_sizes": text}
    card_file(engine).write_text(json.dumps(metadata))
    with pytest.raises(CheckpointError, match=r"m\.engine\.json: file is damaged; build"):
        trt_module.read_card_file(engine)
