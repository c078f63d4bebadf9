"""Detector graphs of which a part computes in INT8.

INT8 suits the convolutions of the backbone and the encoder. The decoder, whose tensors contain box
coordinates, and attention lose accuracy; OpenVINO computes the stem wrongly in INT8, see
docs/decisions/0031-int8.md. All are found by the structure of the graph: names of nodes depend on
the exporter.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import deepcopy

from ...misc.errors import extra

with extra("onnx"):
    import onnx
    from onnx import TensorProto, helper

_STEM_STRIDE = 4  # the stem is all convolutions before this stride
_ATTENTION_OPS = ("MatMul", "Gemm")
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def with_node_names(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return a copy in which every node has a name of its own."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    taken: set[str] = set()
    for place, node in enumerate(result.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{place}"
        taken.add(node.name)
    return result


def float_nodes(model: "onnx.ModelProto") -> list[str]:
    """Return the names of the nodes that stay in float32.

    These are the stem, the products of the encoder's attention, and the decoder: everything that
    leads to no convolution.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    heights = {
        info.name: info.type.tensor_type.shape.dim[2].dim_value
        for info in (*inferred.value_info, *inferred.input)
        if len(info.type.tensor_type.shape.dim) == 4
    }
    (images,) = (info for info in model.graph.input if info.name == "images")
    height = images.type.tensor_type.shape.dim[2].dim_value
    before_convolutions: set[str] = set()
    names: list[str] = []
    for node in reversed(model.graph.node):
        is_convolution = node.op_type == "Conv"
        if not is_convolution and before_convolutions.isdisjoint(node.output):
            names.append(node.name)
            continue
        is_in_stem = is_convolution and heights.get(node.input[0], 0) * _STEM_STRIDE > height
        if is_in_stem or node.op_type in _ATTENTION_OPS:
            names.append(node.name)
        before_convolutions.update(node.input)
    return names[::-1]


class MixedGraph:
    """A detector in float32 and in INT8, and all mixtures of the two.

    Quantization adds nodes that round tensors, and changes the inputs of the nodes that read them.
    A node with its original inputs computes in float32 again.

    Args:
        single: the graph in float32; every node has a name of its own.
        quantized: the result of its quantization.
    """

    def __init__(self, single: "onnx.ModelProto", quantized: "onnx.ModelProto") -> None:
        self._originals = {node.name: node for node in single.graph.node}
        self._constants = {tensor.name: tensor for tensor in single.graph.initializer}
        self._quantized = quantized
        nodes = {node.name: node for node in quantized.graph.node if node.name in self._originals}
        rounded = {node.output[0] for node in quantized.graph.node if node.op_type in _QUANTIZERS}
        self.layers: Sequence[str] = [
            name for name, node in nodes.items() if not rounded.isdisjoint(node.input)
        ]

    def title(self, layer: str) -> str:
        """Return the name of a layer's weights without its suffix, or else the node's name."""
        for name in self._originals[layer].input:
            if name in self._constants and name.endswith(".weight"):
                return name.removesuffix(".weight")
        return layer

    def with_float(self, layers: Collection[str]) -> "onnx.ModelProto":
        """Return a model with some of the layers in float32."""
        model = self._mixed(layers)
        _remove_unused(model.graph)
        return model

    def with_noise(self) -> tuple["onnx.ModelProto", list[tuple[str, str]]]:
        """Return the float32 graph with outputs that measure the rounding of every layer.

        Returns:
            The model, and for each layer the names of two outputs: the sum of squares of what
            quantization of this layer alone changes in its output, and of the output itself.
        """
        model = self._mixed(self.layers)
        graph = model.graph
        quantized = {node.name: node for node in self._quantized.graph.node}
        outputs: list[tuple[str, str]] = []
        for place, layer in enumerate(self.layers):
            twin = deepcopy(quantized[layer])
            exact = twin.output[0]
            twin.name = f"{layer}_twin"
            del twin.output[1:]
            twin.output[0] = f"twin_{place}"
            noise, signal = f"noise_{place}", f"signal_{place}"
            graph.node.extend(
                [
                    twin,
                    helper.make_node("Sub", [f"twin_{place}", exact], [f"error_{place}"]),
                    helper.make_node("ReduceSumSquare", [f"error_{place}"], [noise], keepdims=0),
                    helper.make_node("ReduceSumSquare", [exact], [signal], keepdims=0),
                ]
            )
            outputs.append((noise, signal))
        del graph.output[:]
        for name in (name for pair in outputs for name in pair):
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ()))
        _remove_unused(graph)
        return model, outputs

    def _mixed(self, layers: Collection[str]) -> "onnx.ModelProto":
        model = onnx.ModelProto()
        model.CopyFrom(self._quantized)
        added: dict[str, TensorProto] = {}
        for node in model.graph.node:
            if node.name in layers:
                del node.input[:]
                node.input.extend(self._float_inputs(self._originals[node.name].input, added))
        model.graph.initializer.extend(added.values())
        return model

    def _float_inputs(self, names: Iterable[str], added: dict[str, TensorProto]) -> Iterator[str]:
        """Yield input names; constants get new ones, because quantization changes biases."""
        for name in names:
            if name in self._constants:
                copied = f"{name}_float32"
                added[copied] = deepcopy(self._constants[name])
                added[copied].name = name = copied
            yield name


def _remove_unused(graph: "onnx.GraphProto") -> None:
    """Remove nodes and constants that no output depends on."""
    used = {info.name for info in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if not used.isdisjoint(node.output):
            used.update(node.input)
            nodes.append(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes[::-1])
    graph.initializer.extend(constants)
