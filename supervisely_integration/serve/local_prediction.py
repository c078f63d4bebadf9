"""Detect objects in local files: annotations, drawings and a table of what was found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from rtdetrv2.api.model_file import ModelFile
from rtdetrv2.api.prediction import PredictionOptions
from rtdetrv2.api.prediction_files import PredictionRun
from rtdetrv2.api.prediction_formats import SuperviselyFolder
from rtdetrv2.terminal.console import print_notice
from rtdetrv2_pytorch.src.deploy.predictor import Predictor
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.limits import read_yaml
from rtdetrv2_pytorch.src.misc.weights import is_url, locate

from ..models import find_base_config, published_models
from .prediction_settings import SYNONYMS, PredictionSettings, synonyms_in

_FILES = {"onnxruntime": ".onnx", "onnx": ".onnx", "openvino": ".onnx"}
_FILES |= {"tensorrt": ".engine", "trt": ".engine"}


@dataclass(frozen=True)
class Request:
    """A request of the command `predict`; see the options there."""

    input_path: Path
    output: Path
    draw: bool
    model: str | None
    runtime: str | None
    device: str | None
    settings: Sequence[str]


def run(request: Request, console: Console) -> int:
    """Write an annotation per image, print a table; return 1 if an image was not readable.

    Raises:
        RTDETRError: if the input, the model or a setting is invalid.
    """
    settings = read_settings(request.settings)
    chosen = PredictionSettings.read(settings)
    for key in synonyms_in(settings):
        print_notice(console, f"{key} is read as {SYNONYMS[key]}")
    folder = request.output
    if request.input_path.is_dir():
        folder /= request.input_path.resolve().name
    classes = settings.get("classes")
    options = PredictionOptions(
        score=chosen.confidence_threshold,
        nms_iou=chosen.nms_iou,
        classes=None if classes == "all" else classes,
    )
    prediction = PredictionRun(
        console=console,
        sources=[request.input_path],
        output=folder,
        write=SuperviselyFolder(folder),
        is_drawn=request.draw,
    )
    return prediction.run(
        lambda: open_predictor(request.model, request.runtime, request.device, folder), options
    )


def read_settings(words: Sequence[str]) -> dict[str, Any]:
    """Read settings given as `key=value`, or as the path of a YAML or JSON file.

    Raises:
        ConfigError: if they have another form.
    """
    if len(words) == 1 and Path(words[0]).suffix.lower() in (".yaml", ".yml", ".json"):
        try:
            settings = read_yaml(Path(words[0]).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(
                f"--settings {words[0]}: not readable ({error}); give JSON or a YAML file"
            ) from error
        if not isinstance(settings, dict):
            raise ConfigError(f"--settings {words[0]}: give a mapping of names to values")
        return settings
    settings = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            raise ConfigError(f"--settings {word}: give key=value, for example conf=0.3")
        is_list = key == "classes"
        settings[key] = [name.strip() for name in value.split(",")] if is_list else value
    return settings


def open_predictor(
    model: str | None, runtime: str | None, device: str | None, folder: Path
) -> Predictor:
    """Open a published model or a file; a checkpoint is exported if the runtime needs it.

    Args:
        model: name or path; None: the first published model.
        runtime: None: by the suffix of the file.
        device: None: a GPU if available.
        folder: of the exported file.

    Raises:
        RTDETRError: if a value is unknown or the model does not load.
    """
    path, config = find_model(model)
    suffix = _FILES.get((runtime or "").lower(), path.suffix)
    if path.suffix.lower() in (".pth", ".pt") and suffix in _FILES.values():
        from ..checkpoint_export import export_checkpoint  # its libraries take seconds to load

        path = export_checkpoint(path, folder / f"{path.stem}{suffix}", config=config)
    return ModelFile(path=path, config=config).predictor(runtime, device)


def find_model(model: str | None) -> tuple[Path, Path | None]:
    """Return the file of a model, and its configuration if it is a published one.

    Raises:
        RTDETRError: if the file does not exist or the download fails.
    """
    rows = [
        row["meta"] for row in published_models() if row["meta"]["model_files"].get("checkpoint")
    ]
    name = model or rows[0]["model_name"]
    for row in rows:
        if row["model_name"].lower() == name.lower():
            files = row["model_files"]
            return locate(files["checkpoint"]), find_base_config(files["config"])
    if not is_url(name) and not Path(name).expanduser().is_file():
        known = ", ".join(row["model_name"] for row in rows)
        raise ConfigError(f"--model {name}: no such file; the published models are {known}")
    return locate(name), None
