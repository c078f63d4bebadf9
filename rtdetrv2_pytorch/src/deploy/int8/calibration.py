"""Post-training quantization of a detector's graph by NNCF."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import rich
import torch

from ...data.images.preprocess import preprocess
from ...misc.errors import extra
from ..onnx_file import INPUTS
from ..parity import OnProgress
from .graph import float_nodes, with_node_names

with extra("onnx"):
    import onnx

_NOISY_LOGGERS = ("nncf", "torch.utils.cpp_extension")


def quantize(
    model: "onnx.ModelProto",
    images: Sequence[np.ndarray],
    size_hw: tuple[int, int],
    on_progress: OnProgress,
) -> tuple["onnx.ModelProto", "onnx.ModelProto"]:
    """Quantize the convolutions of backbone and encoder to INT8.

    Args:
        model: a float32 graph.
        images: to measure the ranges of tensors on, [H, W, 3] uint8 RGB each.
        size_hw: (height, width) of the input.
        on_progress: called with (activity, images done, images in total).

    Returns:
        The float32 graph with names for all nodes, and the quantized one, in which weights are
        stored in INT8 and activations are rounded by QuantizeLinear and DequantizeLinear.

    Raises:
        ConfigError: if NNCF is not installed.
    """
    nncf = load_nncf()
    single = with_node_names(model)

    def inputs(place: int) -> dict[str, np.ndarray]:
        on_progress("calibrating INT8", place, len(images))
        batch = network_input(images[place], size_hw)
        height, width = images[place].shape[:2]
        return dict(zip(INPUTS, (batch, np.array([[width, height]], np.int64)), strict=True))

    with _quiet():
        quantized: onnx.ModelProto = nncf.quantize(
            single,
            nncf.Dataset(range(len(images)), inputs),
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=float_nodes(single)),
            # Processors without VNNI add products in 16 bits: weights of 7 bits do not saturate.
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE
            ),
        )
    return single, quantized


def network_input(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Return an image as inference prepares it: [1, 3, height, width] float32, 0..1."""
    pixels = preprocess([image], size_hw, torch.device("cpu"))
    result: np.ndarray = pixels.float().div_(255).numpy()
    return result


def load_nncf() -> Any:
    """Import NNCF, and undo what its import changes for the whole process.

    Raises:
        ConfigError: if it is not installed.
    """
    logger_class = logging.getLoggerClass()
    try:
        with extra("int8"):
            import nncf
    finally:
        logging.setLoggerClass(logger_class)
    return nncf


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the messages and progress bars of NNCF, which uses the global console of rich."""
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    console = rich.get_console()
    was_quiet, console.quiet = console.quiet, True
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        console.quiet = was_quiet
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
