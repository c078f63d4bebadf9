"""Write a detector to one self-contained ONNX file."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch

from ..misc.errors import ExportError, extra
from ..misc.text import first_line
from .detector import Detector, example_inputs
from .graph.grid_sample import replace_grid_sample
from .graph.half import to_half
from .model_card import ExportPrecision, ModelCard
from .onnx_file import INPUTS, OUTPUTS, read_card
from .suppression import add_suppression, set_output_sizes

with extra("onnx"):
    import onnx
    import onnxslim
    from onnx import helper

Exporter = Literal["torchscript", "dynamo"]

OPSET = 17  # the first with LayerNormalization; its parts overflow in half precision
_MAX_BATCH = 4096


class ConversionOptions(TypedDict, total=False):
    """Options of `convert_onnx`."""

    precision: ExportPrecision
    nms_iou: float | None
    grid_sample: bool


class OnnxOptions(ConversionOptions, total=False):
    """Options of `write_onnx`."""

    opset: int
    exporter: Exporter
    slim: bool


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
    grid_sample: bool = True,
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
        grid_sample: whether to use the operator GridSample; without it the same interpolation is
            a gather and a weighted sum.

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
    _check_nms_iou(nms_iou)
    card = replace(card, precision=precision, nms_iou=nms_iou)
    try:
        _export(detector, card, path, opset, exporter)
        model = onnx.load(path)
        set_output_sizes(model, card.num_detections)
        if slim:
            model = onnxslim.slim(model)
        _finish(
            *(model, card, path),
            add_nms=nms_iou is not None,
            halve=precision == "fp16",
            grid_sample=grid_sample,
        )
    except ExportError:
        raise
    except Exception as error:  # noqa: BLE001 (torch raises many types)
        path.unlink(missing_ok=True)
        raise ExportError(
            f"{path.name}: the {exporter} exporter of torch {torch.__version__} failed "
            f"({first_line(error)}); try the other exporter"
        ) from error
    return card


def convert_onnx(
    source: Path,
    path: Path,
    *,
    precision: ExportPrecision = "fp32",
    nms_iou: float | None = None,
    grid_sample: bool = True,
) -> ModelCard:
    """Convert an exported file as `write_onnx` would have written it, without its checkpoint.

    Args:
        source: ONNX file of this package.
        path: file to write; an existing file is replaced.
        precision: see `write_onnx`.
        nms_iou: see `write_onnx`; None: as in the file.
        grid_sample: see `write_onnx`; False replaces the operator.

    Returns:
        The model card in the new file.

    Raises:
        ExportError: if the file is not usable or cannot be converted.
        CheckpointError: if the file has no model card.
    """
    _check_nms_iou(nms_iou)
    old = read_card(source)
    if old.precision == "int8":
        raise ExportError(
            f"{source.name}: the file is in INT8 and cannot be converted; give the float32 file or "
            "the checkpoint"
        )
    if old.precision == "fp16" and precision == "fp32":
        raise ExportError(
            f"{source.name}: the file is in half precision and cannot be converted to float32; "
            "export the checkpoint, or use half precision"
        )
    if nms_iou is not None and old.nms_iou not in (None, nms_iou):
        raise ExportError(
            f"{source.name}: the file already applies NMS with nms_iou = {old.nms_iou}; export the "
            f"checkpoint to use {nms_iou}"
        )
    card = replace(old, precision=precision, nms_iou=old.nms_iou or nms_iou)
    _finish(
        *(onnx.load(source), card, path),
        add_nms=old.nms_iou != card.nms_iou,
        halve=old.precision != precision,
        grid_sample=grid_sample,
    )
    return card


def _check_nms_iou(nms_iou: float | None) -> None:
    if nms_iou is not None and not 0 < nms_iou <= 1:
        raise ExportError(f"nms_iou = {nms_iou}: must be above 0 and at most 1")


def _finish(
    model: onnx.ModelProto,
    card: ModelCard,
    path: Path,
    *,
    add_nms: bool,
    halve: bool,
    grid_sample: bool,
) -> None:
    """Convert a graph, add the model card, check and write the file."""
    if add_nms and card.nms_iou is not None:
        model = add_suppression(model, card.nms_iou, card.num_detections)
    if halve:
        model = to_half(model)
    if not grid_sample:  # its inputs are float32 now in any precision
        model = replace_grid_sample(model)
    helper.set_model_props(model, card.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


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
