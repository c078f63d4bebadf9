"""Detect objects in local files: annotations, drawings and a table of what was found."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from rich.console import Console
from rich.markup import escape

from rtdetrv2.terminal.console import (
    LiveLine,
    print_detail,
    print_notice,
    print_path,
    result_table,
)
from rtdetrv2_pytorch.src.data.images.opening import is_image
from rtdetrv2_pytorch.src.deploy.predictor import Predictor
from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from rtdetrv2_pytorch.src.misc.drawing import box_shape, draw_shapes
from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError
from rtdetrv2_pytorch.src.misc.text import counted, printable
from rtdetrv2_pytorch.src.misc.weights import is_url, locate
from rtdetrv2_pytorch.src.structures import DetectionTensors

from ..models import find_base_config, published_models
from .prediction_settings import SYNONYMS, PredictionSettings, check_classes, synonyms_in

_MAX_ROWS = 30
_SHORT_NAMES = {"torch": "pytorch", "onnx": "onnxruntime", "trt": "tensorrt"}
_FILES = {"onnxruntime": ".onnx", "openvino": ".onnx", "tensorrt": ".engine"}


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
    files = find_images(request.input_path)
    settings = read_settings(request.settings)
    chosen = PredictionSettings.read(settings)
    for key in synonyms_in(settings):
        print_notice(console, f"{key} is read as {SYNONYMS[key]}")
    folder = request.output
    if request.input_path.is_dir():
        folder /= request.input_path.resolve().name
    make_folder(folder)
    found: dict[str, DetectionTensors] = {}
    with LiveLine(console) as line:
        line.show("Loading the model")
        predictor = open_predictor(request.model, request.runtime, request.device, folder)
        names = predictor.runtime.card.class_names
        check_classes(settings.get("classes"), names)
        for i, file in enumerate(files):
            line.show("Detecting", i, len(files))
            try:
                image = predictor.read(file)
            except DatasetError as error:
                if len(files) == 1:
                    raise
                print_notice(console, f"{error}; skipped")
                continue
            (one,), _ = predictor.predict([image], **asdict(chosen))
            one = only(one, settings.get("classes"), names)
            found[file.name] = one
            write(folder / f"{file.name}.json", image, one, names)
            if request.draw:
                draw(drawing_of(folder, file.name), image, one, names)
    print_found(console, found, names)
    if request.draw and len(found) == 1:
        print_path(console, drawing_of(folder, next(iter(found))))
    print_path(console, folder / f"{next(iter(found))}.json" if len(found) == 1 else folder)
    return 0 if len(found) == len(files) else 1


def find_images(path: Path) -> list[Path]:
    """Return the image files of a path, a file or a folder.

    Raises:
        DatasetError: if there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DatasetError(f"{path}: no such file or folder; give an image or a folder of images")
    files = sorted(each for each in path.iterdir() if is_image(each))
    if not files:
        raise DatasetError(f"{path}: no images in this folder")
    return files


def read_settings(words: Sequence[str]) -> dict[str, Any]:
    """Read settings given as `key=value`, or as the path of a YAML or JSON file.

    Raises:
        ConfigError: if they have another form.
    """
    if len(words) == 1 and Path(words[0]).suffix.lower() in (".yaml", ".yml", ".json"):
        try:
            settings = yaml.safe_load(Path(words[0]).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"--settings {words[0]}: not readable ({error})") from error
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
    device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    kind = None if runtime is None else _SHORT_NAMES.get(runtime.lower(), runtime.lower())
    path, config = find_model(model)
    suffix = _FILES.get(kind or "", path.suffix)
    if path.suffix.lower() in (".pth", ".pt") and suffix in _FILES.values():
        from ..checkpoint_export import export_checkpoint  # its libraries take seconds to load

        path = export_checkpoint(path, folder / f"{path.stem}{suffix}", config=config)
    options = {} if config is None or path.suffix != ".pth" else {"config": config}
    return Predictor(open_runtime(path, kind, device=device, **options))


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


def only(detections: DetectionTensors, classes: object, names: Sequence[str]) -> DetectionTensors:
    """Keep the detections of the given classes; None and "all" keep all."""
    if not isinstance(classes, list):
        return detections
    kept = torch.tensor([names[label] in classes for label in detections["labels"].tolist()]).bool()
    labels, boxes, scores = (detections[key][kept] for key in ("labels", "boxes", "scores"))
    return DetectionTensors(labels=labels, boxes=boxes, scores=scores)


def write(
    path: Path, image: np.ndarray, detections: DetectionTensors, names: Sequence[str]
) -> None:
    """Write an annotation in the format of Supervisely; its last row and column are included."""
    height, width = image.shape[:2]
    objects = []
    for label, box, score in _each(detections):
        x1, y1, x2, y2 = (math.floor(edge + 0.5) for edge in box)
        left, top = min(x1, width - 1), min(y1, height - 1)
        right, bottom = max(x2 - 1, left), max(y2 - 1, top)
        objects.append(
            {
                "classTitle": names[label],
                "geometryType": "rectangle",
                "description": "",
                "tags": [{"name": "confidence", "value": score}],
                "points": {"exterior": [[left, top], [right, bottom]], "interior": []},
            }
        )
    content = {
        "description": "",
        "tags": [],
        "size": {"height": height, "width": width},
        "objects": objects,
    }
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def drawing_of(folder: Path, name: str) -> Path:
    """Return the path of a drawing: the image's name, and .png unless it is a JPEG or PNG."""
    is_kept = Path(name).suffix.lower() in (".jpg", ".jpeg", ".png")
    return folder / (name if is_kept else f"{name}.png")


def draw(path: Path, image: np.ndarray, detections: DetectionTensors, names: Sequence[str]) -> None:
    """Draw boxes with names and scores; lines and letters scale with the image."""
    picture = Image.fromarray(image)
    side = min(picture.size)
    shapes = [
        box_shape(
            box,
            f"hsl({label * 137 % 360}, 90%, 55%)",
            label=f"{names[label]}  {score:.2f}",
            line_px=max(1, round(side / 400)),
        )
        for label, box, score in _each(detections)
    ]
    draw_shapes(picture, shapes, font_px=max(11, round(side / 45)))
    try:
        picture.save(path, quality=95)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be written ({error}); choose --output") from error


def print_found(console: Console, found: dict[str, DetectionTensors], names: Sequence[str]) -> None:
    """Print a table: a row per detection of a single image, else a row per image."""
    columns: Sequence[str]
    rows: list[Sequence[str]]
    if len(found) == 1:
        ((name, detections),) = found.items()
        columns = ("class", "score", "x1", "y1", "x2", "y2")
        rows = [
            (names[label], f"{score:.2f}", *(f"{edge:.0f}" for edge in box))
            for label, box, score in _each(detections)
        ]
        title = f"{name}: {counted(len(rows), 'object')}"
    else:
        columns = ("image", "objects")
        counts = {
            name: Counter(names[label] for label in one["labels"].tolist())
            for name, one in found.items()
        }
        rows = [
            (name, ", ".join(f"{n} {each}" for each, n in count.most_common()) or "-")
            for name, count in counts.items()
        ]
        total = sum(count.total() for count in counts.values())
        title = f"{counted(len(found), 'image')}, {counted(total, 'object')}"
    table = result_table(console, escape(printable(title)))
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i and len(columns) > 2 else "left")
    for row in rows[:_MAX_ROWS]:
        table.add_row(*(escape(printable(cell)) for cell in row))
    console.print(table)
    if len(rows) > _MAX_ROWS:
        print_detail(console, f"and {len(rows) - _MAX_ROWS} more rows")


def make_folder(folder: Path) -> None:
    """Create the output folder.

    Raises:
        ConfigError: if it is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--output {folder}: not writable ({error.strerror}); choose another folder"
        ) from error


def _each(detections: DetectionTensors) -> "zip[tuple[int, list[float], float]]":
    """Return label, box and score of each detection."""
    return zip(
        detections["labels"].tolist(),
        detections["boxes"].tolist(),
        detections["scores"].tolist(),
        strict=True,
    )
