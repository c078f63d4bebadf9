"""Configuration of NVIDIA Triton and DeepStream for exported files."""

import json
import shutil
from pathlib import Path

from ..misc.errors import ConfigError, ExportError
from ..misc.files import write_text
from ..misc.text import counted
from .model_card import ModelCard
from .onnx_file import INPUTS, OUTPUTS, read_card
from .tensorrt import read_card_file

_MAX_BATCH = 16  # of ONNX files, which accept any
_PLATFORMS = {
    ".onnx": ("onnxruntime_onnx", "model.onnx"),
    ".engine": ("tensorrt_plan", "model.plan"),
}
_LABELS = "labels.txt"
_NETWORK_MODES = {"fp32": 0, "int8": 1, "fp16": 2}


def write_triton(file: Path, repository: Path) -> Path:
    """Write a model repository of NVIDIA Triton, with a copy of an exported file.

    The directory `repository/<name of the file>` contains `config.pbtxt`, `labels.txt` and the
    file as version 1. Requests contain images as in `ModelCard.to_metadata`; Triton combines
    them into batches. Format: `ModelConfig` of Triton's `model_config.proto`.

    Args:
        file: ONNX file or engine.
        repository: directory; other models in it stay, a model of the same name is replaced.

    Returns:
        The directory of the model.

    Raises:
        ConfigError: if the file has another suffix.
        CheckpointError: if its model card is missing or damaged.
        ExportError: if the directory cannot be written.
    """
    card, max_batch = _open(file)
    platform, copy = _PLATFORMS[file.suffix.lower()]
    height, width = card.input_size_hw
    count = card.num_detections
    inputs = [_tensor(INPUTS[0], "FP32", 3, height, width), _tensor(INPUTS[1], "INT64", 2)]
    outputs = [
        _tensor(OUTPUTS[0], "INT64", count),
        _tensor(OUTPUTS[1], "FP32", count, 4),
        _tensor(OUTPUTS[2], "FP32", count),
    ]
    metadata = card.to_metadata()
    parameters = [
        f"parameters {{ key: {_text(key)} value {{ string_value: {_text(metadata[key])} }} }}"
        for key in ("class_names", "preprocessing", "images", "orig_target_sizes")
    ]
    text = "\n".join(
        [
            f"name: {_text(file.stem)}",
            f"platform: {_text(platform)}",
            f"max_batch_size: {max_batch}",
            f"default_model_filename: {_text(copy)}",
            *(f"input {each}" for each in inputs),
            *(f"output {each}" for each in outputs),
            "dynamic_batching { }",
            *parameters,
            "",
        ]
    )
    folder = repository / file.stem
    try:
        (folder / "1").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / "1" / copy)
        _write_labels(card, folder)
        write_text(folder / "config.pbtxt", text)
    except OSError as error:
        raise _not_written(folder, error) from error
    return folder


def write_deepstream(file: Path, folder: Path) -> Path:
    """Write the configuration of DeepStream's element `nvinfer` for an exported file.

    The outputs need a parser of bounding boxes, and the second input an initialization, both in a
    library of your own: `custom-lib-path` is left open.

    Args:
        file: ONNX file or engine; it is named by its path, not copied.
        folder: directory to write to.

    Returns:
        The configuration file.

    Raises:
        ConfigError: if the file has another suffix.
        CheckpointError: if its model card is missing or damaged.
        ExportError: if the directory cannot be written.
    """
    card, max_batch = _open(file)
    model = "onnx-file" if file.suffix.lower() == ".onnx" else "model-engine-file"
    threshold = 0.5 if card.threshold is None else card.threshold
    entries = counted(card.num_detections, "entry")
    lines = [
        "# Gst-nvinfer, see its documentation for the meaning of the keys.",
        f"# The outputs {', '.join(OUTPUTS)} have {entries} per image, boxes",
        f"# are xyxy in pixels of the size that the input {INPUTS[1]} (width, height) contains.",
        "# Set custom-lib-path to a library with your functions: a parser of bounding boxes, and",
        f"# NvDsInferInitializeInputLayers, which fills {INPUTS[1]}.",
        "[property]",
        "gpu-id=0",
        f"{model}={file.resolve()}",
        f"labelfile-path={(folder / _LABELS).resolve()}",
        f"batch-size={max_batch}",
        f"network-mode={_NETWORK_MODES[card.precision]}",  # the graph sets the types
        "network-type=0",  # detector
        f"infer-dims=3;{card.input_size_hw[0]};{card.input_size_hw[1]}",
        "model-color-format=0",  # RGB
        f"net-scale-factor={1 / 255:.16g}",
        "maintain-aspect-ratio=0",
        f"num-detected-classes={len(card.class_names)}",
        f"output-blob-names={';'.join(OUTPUTS)}",
        "cluster-mode=4",  # no clustering: the network has no duplicates
        "parse-bbox-func-name=ParseRTDETRv2",
        "custom-lib-path=",
        "[class-attrs-all]",
        f"pre-cluster-threshold={threshold:.4g}",
        "",
    ]
    target = folder / "config_infer.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_labels(card, folder)
        write_text(target, "\n".join(lines))
    except OSError as error:
        raise _not_written(folder, error) from error
    return target


def _open(file: Path) -> tuple[ModelCard, int]:
    """Return the model card and the maximum batch size."""
    suffix = file.suffix.lower()
    if suffix not in _PLATFORMS:
        raise ConfigError(f"{file}: give an ONNX file or an engine, exported before")
    if suffix == ".onnx":
        return read_card(file), _MAX_BATCH
    card, max_batch, _ = read_card_file(file)
    return card, max_batch


def _tensor(name: str, kind: str, *dims: int) -> str:
    return f"{{ name: {_text(name)} data_type: TYPE_{kind} dims: [ {', '.join(map(str, dims))} ] }}"


def _text(value: str) -> str:
    """Quote a string for protobuf's text format, whose escapes of ASCII are those of JSON."""
    return json.dumps(value, ensure_ascii=False)


def _write_labels(card: ModelCard, folder: Path) -> None:
    """Write one class name per line, in label order."""
    names = [" ".join(name.split()) for name in card.class_names]
    write_text(folder / _LABELS, "\n".join(names) + "\n")


def _not_written(folder: Path, error: OSError) -> ExportError:
    reason = error.strerror or error
    return ExportError(f"{folder}: cannot be written ({reason}); choose another directory")
