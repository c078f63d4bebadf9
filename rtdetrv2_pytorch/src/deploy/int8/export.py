"""Export a checkpoint or an ONNX file to an INT8 ONNX file that keeps its AP."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import onnx
import torch

from ...data.splits import Splits
from ...misc.errors import ConfigError, ExportError
from ...misc.text import counted
from ..comparison_images import split_images
from ..export import Source, no_progress, open_source, replacing_output, save_verified
from ..onnx import OnnxOptions
from ..parity import OnProgress, ParityReport, Quantization, check_parity, raise_if_failed
from ..runtimes import open_runtime, openvino_core
from .calibration import load_nncf, quantize
from .graph import MixedGraph
from .search import Deadline, Search
from .sensitivity import by_sensitivity
from .trials import Trials, trial_runtime

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
    the whole split with ONNX Runtime.

    Args:
        source: a checkpoint, or a float32 ONNX file of this package.
        output: file to write; an existing file is replaced.
        data: the two splits; of the validation split up to 500 images are used.
        calibration_images: number of images of the training split.
        search_minutes: limit for the search, after calibration and a first trial.
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
        trials = Trials(graph, float_file, part, Deadline(search_minutes), on_progress)

        def order() -> Sequence[str]:
            return by_sensitivity(graph, training.images, size_hw, on_progress)

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
            exported = open_runtime(partial, "onnxruntime")
            report = check_parity(
                exported,
                model.reference(torch.device("cpu")),
                whole,
                file=output.name,
                trained=model.trained(torch.device("cpu")),
                on_progress=on_progress,
            )
            report = replace(
                report,
                quantization=Quantization(
                    scheme=_SCHEME,
                    float_layers=[graph.title(layer) for layer in float_layers],
                    num_int8_layers=len(graph.layers) - len(float_layers),
                    calibration_images=training.origin,
                    trials=trials.sentences,
                ),
            )
            more = search.more(float_layers) if report.failures else None
            if more is None or len(more) > most:
                break
            float_layers = more
        raise_if_failed(report)
    save_verified(report, model.card, output)
    return report
