"""Convert an ONNX graph to mixed precision: float16 where it is safe, float32 elsewhere.

float16 has 11 significant bits: enough for features, too few for pixel coordinates, and squares
above 255 overflow. Norms, softmax and sampling therefore stay in float32. After query selection
(boxes, offsets, scores) only the products with weights use float16. The types are part of the
graph, so every runtime computes the same, including strongly typed TensorRT networks.

Converters with a list of operators insert casts around each operator and round the boxes between
two of them to float16; see docs/decisions/0011.
"""

from collections.abc import Iterable
from copy import deepcopy

import numpy as np

from ...misc.errors import extra

with extra("onnx"):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

_FLOAT, _HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
_FLOAT_OPS = {
    *("LayerNormalization", "Softmax", "GridSample", "TopK", "ReduceMax", "ReduceSum"),
    *("Exp", "Log", "Pow", "Sqrt", "Reciprocal", "NonMaxSuppression"),
    *("Range", "EyeLike"),
}
_PRODUCT_OPS = {"Conv", "Gemm", "MatMul"}
# Their output type does not depend on their input type.
_EXPLICIT_TYPE_OPS = {"Cast", "ConstantOfShape"}
_MAX_HALF = 65504.0


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a detector's graph to mixed precision; inputs and outputs stay float32.

    Args:
        model: a float32 graph without subgraphs.

    Returns:
        A new model.
    """
    result = onnx.shape_inference.infer_shapes(model)  # a copy
    _Converter(result.graph).run()
    del result.graph.value_info[:]  # they contain the old types
    return result


class _Converter:
    """Visit the nodes in order; cast every tensor at most once per type."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        infos = [*graph.value_info, *graph.input, *graph.output]
        self.types = {info.name: info.type.tensor_type.elem_type for info in infos}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.types |= {name: tensor.data_type for name, tensor in self.constants.items()}
        self.nodes: list[onnx.NodeProto] = []
        self.cast: dict[tuple[str, int], str] = {}

    def run(self) -> None:
        """Rewrite the graph in place."""
        outputs = {info.name for info in self.graph.output}
        late: set[str] = set()  # tensors after query selection
        for node in self.graph.node:
            is_late = node.op_type == "TopK" or not late.isdisjoint(node.input)
            if is_late:
                late.update(node.output)
            if node.op_type == "Constant":
                self._keep_constant(node)
                continue
            wanted = self._precision(node, is_late)
            node = deepcopy(node)
            self._cast_inputs(node, wanted)
            self.nodes.append(node)
            self._note_outputs(node, wanted, outputs)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input} | outputs
        kept = [t for name, t in self.constants.items() if name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _precision(self, node: onnx.NodeProto, is_late: bool) -> int:
        if node.op_type in _FLOAT_OPS or (is_late and node.op_type not in _PRODUCT_OPS):
            return _FLOAT
        return _HALF

    def _keep_constant(self, node: onnx.NodeProto) -> None:
        """Turn a Constant into an initializer, which can be converted without overflow."""
        name, value = node.output[0], helper.get_node_attr_value(node, node.attribute[0].name)
        if isinstance(value, onnx.TensorProto):
            tensor = deepcopy(value)
            tensor.name = name
        else:
            kind = np.float32 if node.attribute[0].name.startswith("value_float") else np.int64
            tensor = numpy_helper.from_array(np.array(value, kind), name)
        self.constants[name] = tensor
        self.types[name] = tensor.data_type

    def _cast_inputs(self, node: onnx.NodeProto, wanted: int) -> None:
        if node.op_type == "Cast":
            return
        for place, name in enumerate(node.input):
            is_value = place == 0 or node.op_type != "Resize"  # regions and scales stay float32
            if name and is_value and self.types.get(name) in (_FLOAT, _HALF):
                node.input[place] = self._as(name, wanted)

    def _as(self, name: str, wanted: int) -> str:
        if self.types[name] == wanted:
            return name
        if (name, wanted) not in self.cast:
            suffix = "half" if wanted == _HALF else "single"
            other = f"{name}_{suffix}"
            self.cast[name, wanted] = other
            self.types[other] = wanted
            if name in self.constants:
                self.constants[other] = _converted(self.constants[name], other)
            else:
                self.nodes.append(helper.make_node("Cast", [name], [other], other, to=wanted))
        return self.cast[name, wanted]

    def _note_outputs(self, node: onnx.NodeProto, wanted: int, outputs: Iterable[str]) -> None:
        if wanted == _FLOAT or node.op_type in _EXPLICIT_TYPE_OPS:
            return
        for place, name in enumerate(node.output):
            if self.types.get(name) != _FLOAT:
                continue
            if name in outputs:  # outputs are float32
                half = self.cast[name, _HALF] = f"{name}_half"
                self.types[half] = _HALF
                node.output[place] = half
                self.nodes.append(helper.make_node("Cast", [half], [name], to=_FLOAT))
            else:
                self.types[name] = _HALF


def _converted(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor).astype(np.float32)
    # Clip, so that large values do not become infinite.
    halves = np.clip(values, -_MAX_HALF, _MAX_HALF).astype(np.float16)
    return numpy_helper.from_array(halves, name)
