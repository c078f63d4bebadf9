"""Writing a detector as one self-contained ONNX file."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import onnx
import onnxslim
import torch
from onnx import helper

from ..misc.errors import ExportError
from ..misc.text import first_line
from .detector import Detector, example_inputs
from .half import to_half
from .model_card import ExportPrecision, ModelCard
from .suppression import add_suppression, output_sizes

Exporter = Literal["torchscript", "dynamo"]

INPUTS, OUTPUTS = ("images", "orig_target_sizes"), ("labels", "boxes", "scores")
OPSET = 17  # the first with LayerNormalization; older ones square activations in half precision
_LARGEST_BATCH = 4096


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
    """Export, simplify, convert, describe and check; see `export.export_onnx` for the proof.

    Args:
        detector: what to export.
        card: of the checkpoint.
        path: file to write; one that is there is replaced.
        opset: 17 or more.
        exporter: which of torch's two; both give the same results.
        slim: whether to simplify the graph with onnxslim.
        precision: "fp16" computes most of the network in 16 bits.
        nms_iou: adds suppression within classes at this overlap.

    Returns:
        The card that went into the file.

    Raises:
        ExportError: with torch's or ONNX's reason.
    """
    if opset < OPSET:
        raise ExportError(
            f"opset = {opset}: give {OPSET} or more; older ones have no LayerNormalization, whose "
            "parts overflow in half precision"
        )
    if nms_iou is not None and not 0 < nms_iou <= 1:
        raise ExportError(f"nms_iou = {nms_iou}: give an overlap above 0 and up to 1")
    card = replace(card, precision=precision, nms_iou=nms_iou)
    try:
        _trace(detector, card, path, opset, exporter)
        model = onnx.load(path)
        output_sizes(model, card.num_detections)
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
    except Exception as error:  # noqa: BLE001 (torch raises whatever it met on its way)
        path.unlink(missing_ok=True)
        raise ExportError(
            f"{path.name}: torch {torch.__version__} could not export the model with its "
            f"{exporter} exporter ({first_line(error)}); try the other one"
        ) from error
    return card


def _trace(detector: Detector, card: ModelCard, path: Path, opset: int, exporter: Exporter) -> None:
    inputs = example_inputs(card)
    options: dict[str, Any] = {
        "input_names": list(INPUTS),
        "output_names": list(OUTPUTS),
        "opset_version": opset,
    }
    if exporter == "dynamo":
        batch = torch.export.Dim("N", min=1, max=_LARGEST_BATCH)
        options |= {
            "dynamo": True,
            "external_data": False,  # weights belong into the file
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
    """The exporters warn about themselves; what counts is checked afterwards."""
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
    """Read the description in an ONNX file, which has to hold all its weights itself.

    A file that takes weights from others names paths, and a runtime would follow them anywhere.

    Raises:
        CheckpointError: if there is none.
        ExportError: if the file is no ONNX model, or needs other files.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        outside = next(_external_tensors(model), None)
    except Exception as error:  # noqa: BLE001 (protobuf has errors of its own)
        raise ExportError(f"{path}: not an ONNX model, or damaged; export it again") from error
    if outside is not None:
        raise ExportError(
            f"{path}: takes the weights {outside[:80]!r} from another file; give one that holds "
            "all its weights"
        )
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return ModelCard.from_metadata(metadata, source=str(path))


def _external_tensors(message: Any) -> Iterator[str]:
    """Names of tensors whose data are in another file, wherever in a model they are."""
    if isinstance(message, onnx.TensorProto):
        if message.data_location == onnx.TensorProto.EXTERNAL or message.external_data:
            yield message.name
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from _external_tensors(part)
