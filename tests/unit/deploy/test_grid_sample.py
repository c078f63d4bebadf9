"""GridSample replaced by a gather, compared with torch's `grid_sample`."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from rtdetrv2_pytorch.src.deploy.graph.grid_sample import replace_grid_sample
from rtdetrv2_pytorch.src.misc.errors import ExportError


def one_node(opset=17, **attributes) -> onnx.ModelProto:
    mode = "linear" if opset >= 20 else "bilinear"
    node = helper.make_node(
        *("GridSample", ["level", "grid"], ["sampled"]),
        name="sample",
        **{"align_corners": 0, "mode": mode, "padding_mode": "zeros", **attributes},
    )
    level = helper.make_tensor_value_info("level", TensorProto.FLOAT, ["N", 3, "H", "W"])
    grid = helper.make_tensor_value_info("grid", TensorProto.FLOAT, ["N", "P", "Q", 2])
    sampled = helper.make_tensor_value_info("sampled", TensorProto.FLOAT, ["N", 3, "P", "Q"])
    graph = helper.make_graph([node], "one", [level, grid], [sampled])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString())


@pytest.fixture(scope="module")
def replaced():
    model = replace_grid_sample(one_node())
    assert "GridSample" not in {node.op_type for node in model.graph.node}
    assert not model.functions
    return session(model)


def sample(runtime, level: torch.Tensor, grid: torch.Tensor) -> np.ndarray:
    return runtime.run(None, {"level": level.numpy(), "grid": grid.numpy()})[0]


def expected(level: torch.Tensor, grid: torch.Tensor) -> np.ndarray:
    return F.grid_sample(level, grid, padding_mode="zeros", align_corners=False).numpy()


# Coordinates -1..1 cover the map. Borders, centers of border cells, half outside, far outside.
BORDERS = [-1.0, 1.0, 0.0, -1.5, 1.5, -1.01, 1.01, -50.0, 50.0]
coordinate = st.sampled_from(BORDERS) | st.floats(-3, 3, width=32)


@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    points=st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=12),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=200, deadline=None)
def test_result_is_that_of_grid_sample(replaced, size, points, seed):
    batch, height, width = size
    generator = torch.Generator().manual_seed(seed)
    level = torch.randn(batch, 3, height, width, generator=generator)
    # Another order of the points for each map: a wrong map would show.
    grid = torch.stack([torch.tensor(points).roll(n, 0) for n in range(batch)])[:, None]
    np.testing.assert_allclose(
        sample(replaced, level, grid), expected(level, grid), rtol=0, atol=5e-6
    )


def test_values_by_hand(replaced):
    level = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 3, 2, 2).contiguous()
    # The center; the center of the first cell; its outer corner, of which three quarters are
    # outside; half a cell outside; a whole cell outside.
    grid = torch.tensor([[0.0, 0.0], [-0.5, -0.5], [-1.0, -1.0], [-1.0, -0.5], [-1.5, 0.0]])
    found = sample(replaced, level, grid[None, None])
    assert found[0, 0, 0].tolist() == [2.5, 1.0, 0.25, 0.5, 0.0]


@pytest.mark.parametrize("opset", [18, 20, 22])
def test_newer_opsets(opset):
    runtime = session(replace_grid_sample(one_node(opset)))
    level = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    grid = torch.rand(2, 4, 6, 2, generator=torch.Generator().manual_seed(1)) * 3 - 1.5
    np.testing.assert_allclose(
        sample(runtime, level, grid), expected(level, grid), rtol=0, atol=5e-6
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("align_corners", 1), ("mode", "nearest"), ("padding_mode", "border")],
)
def test_other_kinds_of_sampling_are_rejected(name, value):
    with pytest.raises(
        ExportError, match=f"sample: GridSample with {name} = .* cannot be replaced"
    ):
        replace_grid_sample(one_node(**{name: value}))
