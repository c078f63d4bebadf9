"""Replace the operator GridSample by an exact gather.

TensorRT is reported to compute GridSample wrongly in strongly typed networks, mostly at batch
sizes above 1; `tensorrt.KNOWN_FAULTS` lists the reports. The replacement consists of basic
operators. It follows the definition of GridSample in the ONNX specification (opset 16): bilinear,
zeros outside the map, `align_corners = 0`.
"""

from collections.abc import Mapping

from ...misc.errors import ExportError, extra

with extra("onnx"):
    import onnx
    from onnx import helper, inliner, parser

_DOMAIN, _NAME = "rtdetrv2", "gather_bilinear"
_ATTRIBUTES: Mapping[str, object] = {
    "align_corners": 0,
    "mode": (b"bilinear", b"linear"),  # renamed in opset 20
    "padding_mode": (b"zeros",),
}
# level [N, C, H, W], grid [N, P, Q, 2] (x, y), -1..1 across the map -> sampled [N, C, P, Q].
# The four cells around a point are the axis 1 of the tensors of rank 4 and 5. `table` contains one
# row per cell of all maps, so that runtimes copy whole rows.
_FUNCTION = """
<domain: "rtdetrv2", opset_import: ["" : OPSET]>
gather_bilinear (level, grid) => (sampled)
{
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    two = Constant <value_int = 2> ()
    three = Constant <value_int = 3> ()
    minus_one = Constant <value_ints = [-1]> ()
    axis_1 = Constant <value_ints = [1]> ()
    axis_2 = Constant <value_ints = [2]> ()
    last_axes = Constant <value_ints = [1, 2, 3]> ()
    zero_f = Constant <value_float = 0.0> ()
    half_f = Constant <value_float = 0.5> ()
    one_f = Constant <value_float = 1.0> ()
    right_f = Constant <value = float[1, 4, 1, 1] {0.0, 1.0, 0.0, 1.0}> ()
    below_f = Constant <value = float[1, 4, 1, 1] {0.0, 0.0, 1.0, 1.0}> ()

    shape = Shape (level)
    count = Gather (shape, zero)
    channels = Slice (shape, axis_1, axis_2)
    height = Gather (shape, two)
    width = Gather (shape, three)
    rows = Cast <to = 1> (height)
    columns = Cast <to = 1> (width)

    x_grid = Gather <axis = 3> (grid, zero)
    y_grid = Gather <axis = 3> (grid, one)
    x_moved = Add (x_grid, one_f)
    y_moved = Add (y_grid, one_f)
    x_scaled = Mul (x_moved, columns)
    y_scaled = Mul (y_moved, rows)
    x_twice = Sub (x_scaled, one_f)
    y_twice = Sub (y_scaled, one_f)
    x_cells = Mul (x_twice, half_f)
    y_cells = Mul (y_twice, half_f)
    x = Unsqueeze (x_cells, axis_1)
    y = Unsqueeze (y_cells, axis_1)

    left = Floor (x)
    top = Floor (y)
    column = Add (left, right_f)
    row = Add (top, below_f)
    x_distance = Sub (x, column)
    y_distance = Sub (y, row)
    x_absolute = Abs (x_distance)
    y_absolute = Abs (y_distance)
    x_weight = Sub (one_f, x_absolute)
    y_weight = Sub (one_f, y_absolute)
    last_column = Sub (columns, one_f)
    last_row = Sub (rows, one_f)
    column_right = Max (column, zero_f)
    row_below = Max (row, zero_f)
    column_inside = Min (column_right, last_column)
    row_inside = Min (row_below, last_row)
    is_column = Equal (column, column_inside)
    is_row = Equal (row, row_inside)
    is_cell = And (is_column, is_row)
    mask = Cast <to = 1> (is_cell)
    xy_weight = Mul (x_weight, y_weight)
    weight = Mul (xy_weight, mask)

    column_index = Cast <to = 7> (column_inside)
    row_index = Cast <to = 7> (row_inside)
    row_start = Mul (row_index, width)
    cell = Add (row_start, column_index)
    map_cells = Mul (height, width)
    map_numbers = Range (zero, count, one)
    map_starts = Mul (map_numbers, map_cells)
    map_start = Unsqueeze (map_starts, last_axes)
    index = Add (cell, map_start)

    by_cell = Transpose <perm = [0, 2, 3, 1]> (level)
    table_shape = Concat <axis = 0> (minus_one, channels)
    table = Reshape (by_cell, table_shape)
    cells = Gather <axis = 0> (table, index)
    weights = Unsqueeze (weight, minus_one)
    weighted = Mul (cells, weights)
    mixed = ReduceSum <keepdims = 0> (weighted, axis_1)
    sampled = Transpose <perm = [0, 3, 1, 2]> (mixed)
}
"""


def replace_grid_sample(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace every GridSample by basic operators with the same result.

    Args:
        model: a graph without subgraphs whose GridSample nodes have float32 inputs.

    Returns:
        A new model without GridSample.

    Raises:
        ExportError: if a GridSample has another mode, padding or alignment of corners.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    opset = next(entry.version for entry in result.opset_import if entry.domain == "")
    for node in result.graph.node:
        if node.op_type == "GridSample":
            _check(node)
            node.op_type, node.domain = _NAME, _DOMAIN
            del node.attribute[:]
    result.functions.append(parser.parse_function(_FUNCTION.replace("OPSET", str(opset))))
    result.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return inliner.inline_local_functions(result)


def _check(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        value, expected = helper.get_attribute_value(attribute), _ATTRIBUTES[attribute.name]
        if value not in (expected if isinstance(expected, tuple) else (expected,)):
            raise ExportError(
                f"{node.name}: GridSample with {attribute.name} = {value!r} cannot be replaced; "
                "export with GridSample"
            )
