"""Export a checkpoint or an ONNX file to an INT8 ONNX file that keeps its AP."""

import logging
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import onnx
import torch

from ...data.splits import Splits
from ...misc.errors import ConfigError, ExportError
from ...misc.text import counted
from ..accuracy import ap_losses
from ..comparison_images import ComparisonImages, split_images
from ..export import Model, Source, no_progress, open_source, replacing_output, save_verified
from ..onnx import OnnxOptions
from ..parity import OnProgress, ParityReport, Quantization, check_parity, raise_if_failed
from ..runtimes import open_runtime, openvino_core
from .calibration import load_nncf, quantize
from .graph import MixedGraph
from .search import Deadline, Search, TimeOverError
from .sensitivity import by_sensitivity
from .trials import Trials, evaluate, trial_runtime

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES = 100
SEARCH_MINUTES = 5.0
_PART_IMAGES = 64  # of the validation split, for the trials
_MAX_IMAGES = 500  # of the validation split, for the verification
_MAX_FLOAT_SHARE = 0.5  # of the layers; with more in float32, INT8 gains little
_SCHEME = "INT8: convolutions of backbone and encoder; float32: stem, attention, decoder"


def export_int8(
    source: Source,
    output: Path,
    *,
    data: Splits,
    calibration_images: int = CALIBRATION_IMAGES,
    search_minutes: float = SEARCH_MINUTES,
    on_progress: OnProgress = no_progress,
    **options: Unpack[OnnxOptions],
) -> ParityReport:
    """Quantize a detector, and write the file if it is as accurate as in float32.

    Ranges of tensors are measured on images of the training split. If AP on a part of the
    validation split drops too much, layers return to float32, see `Search`. The file is verified on
    the whole split with ONNX Runtime, and its AP with OpenVINO if installed.

    Args:
        source: a checkpoint, or a float32 ONNX file of this package.
        output: file to write; an existing file is replaced.
        data: the two splits; of the validation split up to 500 images are used.
        calibration_images: number of images of the training split.
        search_minutes: limit for the search, after calibration; without a first trial and the
            verification.
        on_progress: called with (activity, images done, images in total).
        **options: see `onnx.write_onnx`, without `precision`; of an ONNX file only `nms_iou` and
            `grid_sample`.

    Returns:
        The comparison with the source, which is also saved in `parity.json` next to the file.

    Raises:
        ConfigError: if NNCF is not installed, or an option is invalid.
        ExportError: if the accuracy cannot be kept; no file remains.
        CheckpointError: if the checkpoint is not usable.
        DatasetError: if the data is not usable.
    """
    if calibration_images < 1:
        raise ConfigError(f"calibration_images = {calibration_images}: must be 1 or higher")
    if not search_minutes > 0:
        raise ConfigError(f"search_minutes = {search_minutes}: must be above 0")
    if trial_runtime() == "openvino":
        openvino_core()  # before NNCF creates its own one
    load_nncf()  # fail early
    source.check()
    on_progress("loading", 0, 0)
    model = open_source(source)
    split = data.train
    training = split_images(split.ann_file, split.img_folder, model.card, calibration_images)
    split = data.val
    part = split_images(split.ann_file, split.img_folder, model.card, _PART_IMAGES)
    whole = split_images(split.ann_file, split.img_folder, model.card, _MAX_IMAGES)
    size_hw = model.card.input_size_hw
    with replacing_output(output) as partial, tempfile.TemporaryDirectory() as folder:
        on_progress("exporting", 0, 0)
        float_file = Path(folder, "float32.onnx")
        model.write(float_file, **options)
        graph = MixedGraph(*quantize(onnx.load(float_file), training.images, size_hw, on_progress))
        deadline = Deadline(search_minutes)
        trials = Trials(graph, float_file, part, deadline, on_progress)

        def order() -> Sequence[str]:
            return by_sensitivity(graph, training.images, size_hw, deadline, on_progress)

        search = Search(graph.layers, order, trials.passes)
        float_layers = search.run()
        if float_layers is None:
            raise ExportError(
                f"{output.name}: INT8 loses too much accuracy, and no layers to keep in float32 "
                f"were found in {search_minutes:g} minutes. Tried on {part.origin}: "
                f"{'. '.join(trials.sentences)}. No file was written; give more time with "
                "search_minutes, or use half precision"
            )
        most = int(_MAX_FLOAT_SHARE * len(graph.layers))
        if len(float_layers) > most:
            layers = counted(len(graph.layers), "layer")
            raise ExportError(
                f"{output.name}: {len(float_layers)} of {layers} would have to stay in "
                f"float32 (limit: {most}). Tried on {part.origin}: "
                f"{'. '.join(trials.sentences)}. No file was written; use half precision"
            )
        while True:
            trials.save(float_layers, partial)
            report, openvino_ap = _verified(partial, model, whole, output.name, on_progress)
            report = replace(
                report,
                quantization=Quantization(
                    scheme=_SCHEME,
                    float_layers=[graph.title(layer) for layer in float_layers],
                    num_int8_layers=len(graph.layers) - len(float_layers),
                    calibration_images=training.origin,
                    openvino_ap=openvino_ap,
                    trials=trials.sentences,
                ),
            )
            more = _more(search, float_layers, deadline) if report.failures else None
            if more is None or len(more) > most:
                break
            float_layers = more
        raise_if_failed(report)
    save_verified(report, model.card, output)
    return report


def _verified(
    path: Path, model: Model, images: ComparisonImages, name: str, on_progress: OnProgress
) -> tuple[ParityReport, float | None]:
    """Compare a file with its source in ONNX Runtime, and its AP in OpenVINO if installed.

    The two compute differently: see docs/decisions/0031-int8.md.

    Returns:
        The comparison, whose failures include those in OpenVINO, and the AP in OpenVINO.
    """
    report = check_parity(
        open_runtime(path, "onnxruntime"),
        model.reference(torch.device("cpu")),
        images,
        file=name,
        trained=model.trained(torch.device("cpu")),
        on_progress=on_progress,
    )
    if trial_runtime() != "openvino":
        logger.warning("%s: not verified in OpenVINO, which is not installed", name)
        return report, None
    count = len(images.images)
    found = evaluate(path, images, lambda done: on_progress("verifying in OpenVINO", done, count))
    assert report.ap_pytorch is not None  # images of a split are annotated
    aps = {each.name: each.ap for each in found.classes}
    classes = {each: (before, aps[each]) for each, (before, _) in report.class_ap.items()}
    losses = ap_losses(report.ap_pytorch, found.stats["AP"], classes)
    failures = [*report.failures, *(f"in OpenVINO, {loss}" for loss in losses)]
    return replace(report, failures=failures), found.stats["AP"]


def _more(search: Search, layers: Sequence[str], deadline: Deadline) -> Sequence[str] | None:
    """Return more layers to keep in float32; None if the time is over."""
    with suppress(TimeOverError):
        deadline.check()
        return search.more(layers)
    return None
