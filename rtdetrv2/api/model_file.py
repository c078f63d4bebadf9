"""Find the file of a model by name, file, folder or URL."""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from rtdetrv2_pytorch.src.deploy.predictor import Predictor
from rtdetrv2_pytorch.src.deploy.runtimes import Runtime, open_runtime
from rtdetrv2_pytorch.src.interchange.folders import is_folder
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError
from rtdetrv2_pytorch.src.misc.weights import is_url, locate

from ..training.model_table import COCO, MODELS, OBJECTS, RECIPES, published_weights, size_of

_BEST, _LAST = "best.pth", "last.pth"  # of `solver.checkpointing`, which prediction does not need
_CHECKPOINTS = (".pth", ".pt")
_SUFFIXES = (*_CHECKPOINTS, ".onnx", ".engine")
_SHORT_NAMES = {"torch": "pytorch", "onnx": "onnxruntime", "trt": "tensorrt"}
_PREFIX = "RT-DETRv2-"


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """Where a model is.

    Attributes:
        path: of the checkpoint, ONNX file or engine; None: random weights.
        config: of the network, if the file does not contain it.
        size: S, M, L or X for a published model.
        data: dataset that it was trained on, if known.
    """

    path: Path | None
    config: Path | None = None
    size: str | None = None
    data: Path | None = None

    @property
    def is_checkpoint(self) -> bool:
        """Whether it can be trained and exported."""
        return self.path is not None and (
            self.path.suffix.lower() in _CHECKPOINTS or is_folder(self.path)
        )

    def predictor(self, runtime: str | None, device: str | None) -> Predictor:
        """Open the file for predictions; see `open`.

        Raises:
            RTDETRError: if a value is unknown, or the file does not load.
        """
        opened = self.open(runtime, device)
        return Predictor(opened, batch_size=1 if opened.device.type == "cpu" else None)

    def open(self, runtime: str | None, device: str | None) -> Runtime:
        """Open the file.

        Args:
            runtime: pytorch, onnxruntime, openvino or tensorrt; None: by the suffix.
            device: cpu, cuda, cuda:1; None: a GPU if available.

        Raises:
            RTDETRError: if a value is unknown, or the file does not load.
        """
        assert self.path is not None
        kind = None if runtime is None else runtime.lower()
        options = {} if self.config is None or not self.is_checkpoint else {"config": self.config}
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return open_runtime(self.path, _SHORT_NAMES.get(kind or "", kind), device=device, **options)


def find_model(source: str | Path, weights: str | Path | None = "coco") -> ModelFile:
    """Find the file of a model; published weights are downloaded.

    Args:
        source: see `RTDETR`.
        weights: of a model given by name or configuration.

    Raises:
        ConfigError: if the model or file does not exist.
        CheckpointError: if weights cannot be downloaded.
    """
    text = str(source)
    size = size_of(text)
    if size is not None:
        config, url = MODELS[size]
        return _with_weights(text, RECIPES / config, weights, url=url, size=size)
    if is_url(text):
        return ModelFile(path=locate(text))
    path = Path(source).expanduser()
    if is_folder(path):
        return ModelFile(path=path)
    if path.is_dir():
        return ModelFile(path=_in_folder(path))
    if path.suffix.lower() in (".yml", ".yaml") or (RECIPES / f"{text}.yml").is_file():
        recipe = path if path.suffix else RECIPES / f"{text}.yml"
        if not recipe.is_file():
            raise ConfigError(f"{recipe}: no such configuration; give a name of the model table")
        return _with_weights(text, recipe, weights)
    if not path.is_file():
        raise ConfigError(_unknown(text))
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"{path}: not a model; give a file that ends in {', '.join(_SUFFIXES)}")
    return ModelFile(path=path)


def find_transformers(folder: str | Path) -> Path:
    """Return the path of a folder of `transformers`.

    Raises:
        ConfigError: if it is not one.
    """
    path = Path(folder).expanduser()
    if not is_folder(path):
        raise ConfigError(
            f"{path}: not a folder with config.json; save the model there with "
            "save_pretrained(folder). Models of the Hugging Face Hub must be downloaded first"
        )
    return path


def _with_weights(
    name: str, config: Path, weights: str | Path | None, *, url: str = "", size: str | None = None
) -> ModelFile:
    if weights is None:
        return ModelFile(path=None, config=config, size=size)
    if weights == OBJECTS:
        url = published_weights(OBJECTS, name)
    elif weights != COCO:
        return ModelFile(path=locate(weights), config=config, size=size)
    if not url:
        raise CheckpointError(
            f"{name}: this model has no published weights; give weights=FILE, or weights=None to "
            "train from random weights"
        )
    try:
        return ModelFile(path=locate(url), config=config, size=size)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. To train from random weights, give weights=None"
        ) from error


def _in_folder(folder: Path) -> Path:
    """Return the best weights in the folder of a run or an experiment."""
    names = [_BEST, f"checkpoints/{_BEST}", _LAST, f"checkpoints/{_LAST}"]
    info = folder / "experiment_info.json"
    if info.is_file():
        try:
            best = json.loads(info.read_text(encoding="utf-8"))["best_checkpoint"]
            names.insert(0, f"checkpoints/{Path(best).name}")
        except (ValueError, LookupError, TypeError):
            pass  # not written by the Supervisely SDK
    found = (folder / name for name in names)
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        raise ConfigError(
            f"{folder}: neither {_BEST} nor checkpoints/{_BEST} in this folder; give the output "
            "folder of a training, a folder of transformers with config.json, or a model file"
        )
    return path


def _unknown(name: str) -> str:
    known = [f"{_PREFIX}{size}" for size in MODELS]
    if Path(name).suffix.lower() in _SUFFIXES or "/" in name:
        return f"{name}: no such file; give a model file or one of {', '.join(known)}"
    near = difflib.get_close_matches(
        name, [*known, *(path.stem for path in RECIPES.glob("*.yml"))], n=1
    )
    hint = f"did you mean {near[0]}?" if near else f"the models are {', '.join(known)}"
    return f"{name}: neither a file nor the name of a model; {hint}"
