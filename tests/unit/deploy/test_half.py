"""Mixed precision on small graphs, against numpy."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, parser
from onnx.reference import ReferenceEvaluator

from rtdetrv2_pytorch.src.deploy.graph.half import to_half

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def graph(text):
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
    onnx.checker.check_model(model, full_check=True)
    return model


def converted(text):
    """Return the converted, checked model and the type of every tensor."""
    result = to_half(graph(text))
    onnx.checker.check_model(result, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(result, strict_mode=True, data_prop=True).graph
    infos = [*inferred.input, *inferred.value_info, *inferred.output]
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    return result, types | {tensor.name: tensor.data_type for tensor in result.graph.initializer}


def run(model, **inputs):
    options = ort.SessionOptions()
    # Disable fusion of casts.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def nodes(model, op_type):
    return [node for node in model.graph.node if node.op_type == op_type]


def half(values):
    return np.asarray(values, np.float32).astype(np.float16).astype(np.float32)


PRODUCTS = """
g (float[N, 3] x) => (float[N, 2] y)
<float[3, 3] w = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9},
 float[3] scale = {1, 2, 3}, float[3] shift = {0.5, 0.25, 0.125},
 float[3, 2] v = {1, 0.5, 0.25, 3, 0.1, 0.7}>
{
    a = MatMul (x, w)
    b = Relu (a)
    c = LayerNormalization <axis = -1> (b, scale, shift)
    d = MatMul (c, v)
    e = Tanh (c)
    f = MatMul (e, v)
    g = Add (d, f)
    y = Softmax <axis = -1> (g)
}
"""


def test_norm_and_softmax_stay_float32():
    model, types = converted(PRODUCTS)
    wanted = {"LayerNormalization": FLOAT, "Softmax": FLOAT}
    for node in model.graph.node:
        if node.op_type != "Cast":
            found = {types[name] for name in node.input}
            assert found == {wanted.get(node.op_type, HALF)}, node.op_type
    assert types["x"] == types["y"] == FLOAT


def test_each_tensor_is_cast_once():
    model, _ = converted(PRODUCTS)
    # x, input and output of the norm, input of the softmax.
    assert [node.input[0] for node in nodes(model, "Cast")] == ["x", "b", "c", "g"]
    assert sorted(tensor.name for tensor in model.graph.initializer) == [
        "scale",
        "shift",
        "v_half",  # used twice, converted once
        "w_half",
    ]


def test_values_match_numpy():
    x = np.array([[1.2345, -2.5, 3.75], [0.1, 0.2, -0.3]], np.float32)
    w = half(np.arange(1, 10).reshape(3, 3) / 10)
    v = half([[1, 0.5], [0.25, 3], [0.1, 0.7]])
    b = half(np.maximum(half(half(x) @ w), 0))
    norm = (b - b.mean(-1, keepdims=True)) / np.sqrt(b.var(-1, keepdims=True) + 1e-5)
    c = half(norm * [1, 2, 3] + [0.5, 0.25, 0.125])
    g = half(half(c @ v) + half(half(np.tanh(c)) @ v))
    powers = np.exp(g - g.max(-1, keepdims=True))
    expected = powers / powers.sum(-1, keepdims=True)
    (y,) = run(converted(PRODUCTS)[0], x=x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, atol=2e-3)
    (exact,) = ReferenceEvaluator(converted(PRODUCTS)[0]).run(None, {"x": x})
    np.testing.assert_allclose(exact, expected, atol=1e-3)
    np.testing.assert_allclose(run(graph(PRODUCTS), x=x)[0], expected, atol=5e-3)


AFTER_TOPK = """
g (float[N, 4] scores, float[N, 4] boxes) => (float[N, 2] best, float[N, 2] places)
<int64[1] two = {2}, float[2, 2] w = {1.0001, 0, 0, 1.0001}, float shift = {0.3}>
{
    s = Relu (scores)
    best, order = TopK <axis = 1> (s, two)
    chosen = GatherElements <axis = 1> (boxes, order)
    moved = Add (chosen, shift)
    places = Mul (moved, shift)
}
"""


def test_boxes_after_topk_stay_float32():
    model, types = converted(AFTER_TOPK)
    for op_type in ("TopK", "GatherElements", "Add", "Mul"):
        (node,) = nodes(model, op_type)
        assert HALF not in {types[name] for name in [*node.input, *node.output]}
    scores = np.array([[0.1, 0.9, 0.5, 0.7]], np.float32)
    boxes = np.array([[1.125, 4097.123, 2.25, 70001.77]], np.float32)  # float16: 4096, inf
    _, places = run(model, scores=scores, boxes=boxes)
    expected = (boxes[:, [1, 3]] + np.float32(0.3)) * np.float32(0.3)
    np.testing.assert_allclose(places, expected, rtol=1e-7)


def test_only_products_after_topk_are_float16():
    model, types = converted(
        AFTER_TOPK.replace("moved = Add (", "moved = MatMul (").replace(
            "MatMul (chosen, shift)", "MatMul (chosen, w)"
        )
    )
    (product,) = nodes(model, "MatMul")
    assert {types[name] for name in [*product.input, *product.output]} == {HALF}
    (times,) = nodes(model, "Mul")
    assert {types[name] for name in [*times.input, *times.output]} == {FLOAT}
    scores = np.array([[0.1, 0.9, 0.5, 0.7]], np.float32)
    boxes = np.array([[1.125, 40.123, 2.25, 0.7]], np.float32)
    # ONNX Runtime computes half products on a CPU in 32 bits; ONNX's own evaluator does not.
    _, places = ReferenceEvaluator(model).run(None, {"scores": scores, "boxes": boxes})
    # 1.0001 is 1 in half precision; the sum is rounded to it, the product with 0.3 is not.
    np.testing.assert_allclose(places, half(boxes[:, [1, 3]]) * np.float32(0.3), rtol=1e-7)


LARGE = """
g (float[2] x) => (float[2] y)
<float[2] most = {1e9, -1e9}>
{
    y = Add (x, most)
}
"""
LARGE_NODE = """
g (float[2] x) => (float[2] y)
{
    most = Constant <value = float[2] {1e9, -1e9}> ()
    y = Add (x, most)
}
"""
LARGE_FLOATS = LARGE_NODE.replace("value = float[2] {1e9, -1e9}", "value_floats = [1e9, -1e9]")


@pytest.mark.parametrize("text", [LARGE, LARGE_NODE, LARGE_FLOATS], ids=["init", "node", "floats"])
def test_large_constants_are_clipped(text):
    (y,) = run(converted(text)[0], x=np.zeros(2, np.float32))
    assert y.tolist() == [65504.0, -65504.0]


def test_integers_and_booleans_are_unchanged():
    model, types = converted(
        """
        g (float[N, 4] x) => (float[N, 2] y, int64[2] size)
        <int64[2] where = {1, 3}, float zero = {0.0}>
        {
            one = Constant <value_int = 1> ()
            size = Shape (x)
            next = Add (size, one)
            even = Mod (next, size)
            positive = Greater (x, zero)
            kept = Where (positive, x, zero)
            y = Gather <axis = 1> (kept, where)
        }
        """
    )
    assert types["positive"] == TensorProto.BOOL
    assert types["next"] == types["one"] == types["where"] == TensorProto.INT64
    x = np.array([[1, -2, 3, 4.5]], np.float32)
    y, size = run(model, x=x)
    assert (y.tolist(), size.tolist()) == ([[0, 4.5]], [1, 4])


def test_outputs_are_float32():
    model, types = converted(
        """
        g (float[2, 2] x) => (float[2, 2] y, float[2, 2] z)
        <float[2, 2] w = {1, 2, 3, 4}>
        {
            y = MatMul (x, w)
            a = Exp (y)
            z = MatMul (y, w)
        }
        """
    )
    assert types["y"] == types["z"] == FLOAT
    first, second = nodes(model, "MatMul")
    assert second.input[0] == first.output[0]  # the second uses the float16 tensor
    (exp,) = nodes(model, "Exp")
    assert types[exp.input[0]] == FLOAT
    names = [name for node in model.graph.node for name in node.output]
    assert len(names) == len(set(names))
    x = np.array([[1, 2], [3, 4]], np.float32)
    y, z = run(model, x=x)
    w = np.array([[1, 2], [3, 4]], np.float32)
    assert y.tolist() == (x @ w).tolist()
    assert z.tolist() == (x @ w @ w).tolist()


def test_resize_scales_stay_float32():
    model, types = converted(
        """
        g (float[1, 1, 1, 2] x) => (float[1, 1, 2, 4] y)
        <float[4] scales = {1, 1, 2, 2}>
        {
            y = Resize <mode = "nearest"> (x, , scales)
        }
        """
    )
    (resize,) = nodes(model, "Resize")
    assert (types[resize.input[0]], types[resize.input[2]]) == (HALF, FLOAT)
    (y,) = run(model, x=np.array([[[[1, 2]]]], np.float32))
    assert y[0, 0].tolist() == [[1, 1, 2, 2]] * 2


def test_existing_casts_are_kept():
    model, types = converted(
        """
        g (int64[2] sizes, float[2] x) => (float[2] y)
        {
            wide = Cast <to = 1> (sizes)
            y = Mul (x, wide)
        }
        """
    )
    assert types["wide"] == FLOAT
    (times,) = nodes(model, "Mul")
    assert {types[name] for name in times.input} == {HALF}
    (y,) = run(model, sizes=np.array([640, 480]), x=np.array([0.5, 2], np.float32))
    assert y.tolist() == [320, 960]


def test_grid_sample_is_float32():
    model, types = converted(
        """
        g (float[1, 1, 2, 2] level, float[1, 1, 1, 2] where) => (float[1, 1, 1, 1] y)
        {
            a = Relu (level)
            b = Tanh (where)
            y = GridSample <align_corners = 0> (a, b)
        }
        """
    )
    (sample,) = nodes(model, "GridSample")
    assert {types[name] for name in [*sample.input, *sample.output]} == {FLOAT}
    assert {types[node.input[0]] for node in nodes(model, "Tanh")} == {HALF}


def test_range_is_float32():
    model, types = converted(
        """
        g (float x) => (float[N] y)
        <float zero = {0.0}, float one = {1.0}>
        {
            counted = Range (zero, x, one)
            y = Mul (counted, x)
        }
        """
    )
    assert types["counted"] == FLOAT
    (y,) = run(model, x=np.array(3, np.float32))
    assert y.tolist() == [0, 3, 6]


def test_input_model_is_not_modified():
    model = graph(PRODUCTS)
    before = model.SerializeToString()
    to_half(model)
    assert model.SerializeToString() == before
