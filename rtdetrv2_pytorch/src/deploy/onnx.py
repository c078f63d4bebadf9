"""Write a detector to one self-contained ONNX file."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import onnx
import onnxslim
import torch
from onnx import helper

from ..misc.errors import ExportError
from ..misc.text import first_line
from .detector import Detector, example_inputs
from .half import to_half
from .model_card import ExportPrecision, ModelCard
from .suppression import add_suppression, set_output_sizes

Exporter = Literal["torchscript", "dynamo"]

INPUTS, OUTPUTS = ("images", "orig_target_sizes"), ("labels", "boxes", "scores")
OPSET = 17  # the first with LayerNormalization; its parts overflow in half precision
_MAX_BATCH = 4096


class OnnxOptions(TypedDict, total=False):
    """Options of `write_onnx`."""

    opset: int
    exporter: Exporter
    slim: bool
    precision: ExportPrecision
    nms_iou: float | None


def write_onnx(
    detector: Detector,
    card: ModelCard,
    path: Path,
    *,
    opset: int = OPSET,
    exporter: Exporter = "torchscript",
    slim: bool = True,
    precision: ExportPrecision = "fp32",
    nms_iou: float | None = None,
) -> ModelCard:
    """Export, simplify and convert; `export.export_onnx` also verifies the result.

    Args:
        detector: what to export.
        card: model card of the checkpoint.
        path: file to write; an existing file is replaced.
        opset: 17 or higher.
        exporter: exporter of torch; both give the same results.
        slim: whether to simplify the graph with onnxslim.
        precision: "fp16" computes most of the network in half precision.
        nms_iou: adds NMS within classes at this IoU.

    Returns:
        The model card in the file.

    Raises:
        ExportError: with the reason of torch or ONNX.
    """
    if opset < OPSET:
        raise ExportError(
            f"opset = {opset}: must be {OPSET} or higher; older opsets have no LayerNormalization, "
            "and its parts overflow in half precision"
        )
    if nms_iou is not None and not 0 < nms_iou <= 1:
        raise ExportError(f"nms_iou = {nms_iou}: must be above 0 and at most 1")
    card = replace(card, precision=precision, nms_iou=nms_iou)
    try:
        _export(detector, card, path, opset, exporter)
        model = onnx.load(path)
        set_output_sizes(model, card.num_detections)
        if slim:
            model = onnxslim.slim(model)
        if nms_iou is not None:
            model = add_suppression(model, nms_iou, card.num_detections)
        if precision == "fp16":
            model = to_half(model)
        helper.set_model_props(model, card.to_metadata())
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
    except ExportError:
        raise
    except Exception as error:  # noqa: BLE001 (torch raises many types)
        path.unlink(missing_ok=True)
        raise ExportError(
            f"{path.name}: the {exporter} exporter of torch {torch.__version__} failed "
            f"({first_line(error)}); try the other exporter"
        ) from error
    return card


def _export(
    detector: Detector, card: ModelCard, path: Path, opset: int, exporter: Exporter
) -> None:
    inputs = example_inputs(card)
    options: dict[str, Any] = {
        "input_names": list(INPUTS),
        "output_names": list(OUTPUTS),
        "opset_version": opset,
    }
    if exporter == "dynamo":
        batch = torch.export.Dim("N", min=1, max=_MAX_BATCH)
        options |= {
            "dynamo": True,
            "external_data": False,
            "dynamic_shapes": {name: {0: batch} for name in INPUTS},
            "verbose": False,
        }
    else:
        options |= {
            "dynamo": False,
            "dynamic_axes": {name: {0: "N"} for name in (*INPUTS, *OUTPUTS)},
        }
    with _quiet():
        torch.onnx.export(detector, inputs, path, **options)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters; the result is checked later."""
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def read_card(path: Path) -> ModelCard:
    """Read the model card of an ONNX file.

    Files with external data are rejected, because a runtime would read any path they name.

    Raises:
        CheckpointError: if the file has no model card.
        ExportError: if the file is not an ONNX model or has external data.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        external = next(_external_tensors(model), None)
    except Exception as error:  # noqa: BLE001 (protobuf has its own errors)
        raise ExportError(
            f"{path}: not an ONNX model, or damaged; export the checkpoint again"
        ) from error
    if external is not None:
        raise ExportError(
            f"{path}: the weights {external[:80]!r} are external data; use a file that contains "
            "all weights"
        )
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return ModelCard.from_metadata(metadata, source=str(path))


def _external_tensors(message: Any) -> Iterator[str]:
    """Yield names of tensors with external data, anywhere in the model."""
    if isinstance(message, onnx.TensorProto):
        if message.data_location == onnx.TensorProto.EXTERNAL or message.external_data:
            yield message.name
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from _external_tensors(part)
