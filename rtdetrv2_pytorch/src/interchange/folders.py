"""Folders of `transformers`: `config.json`, weights, `preprocessor_config.json`."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..core.yaml_config import YAMLConfig
from ..misc.errors import CheckpointError, ConfigError
from ..misc.files import replacing, write_text
from ..misc.weights import is_url, load_checkpoint, locate
from . import configuration, names

CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
_NEWER_PROCESSOR = "processor_config.json"  # contains that of images under "image_processor"
_PICKLED_WEIGHTS = "pytorch_model.bin"
_INDEX = ".index.json"  # after the name of weights in several files: the file of each tensor
_MAX_JSON_BYTES = 1 << 22
_OWN = "rtdetrv2"  # key of what only this package reads
_OWN_VALUES = ("pixel_range", "num_top_queries")
_BILINEAR = 2
# Steps of the image processor, with the only value that our preprocessing computes.
_PROCESSOR_FIXED: dict[str, Any] = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": False,
    "do_pad": False,
    "resample": _BILINEAR,
}


class Model(Protocol):
    """`RTDetrV2ForObjectDetection` of `transformers`."""

    config: Any

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return the weights."""


def is_folder(source: str | Path) -> bool:
    """Return whether a source of weights is a folder of `transformers`."""
    return not is_url(source) and (Path(source).expanduser() / CONFIG).is_file()


def open_checkpoint(source: str | Path) -> tuple[dict[str, Any], Path]:
    """Read a checkpoint, or a folder of `transformers` as a checkpoint.

    Args:
        source: path or URL.

    Returns:
        The checkpoint and its path.

    Raises:
        CheckpointError: if it is missing, damaged, or not RT-DETRv2.
    """
    if is_folder(source):
        folder = Path(source).expanduser()
        return read_folder(folder), folder
    path = locate(source)
    return load_checkpoint(path), path


def weights_file(path: Path) -> Path:
    """Return the file with the weights of a checkpoint or folder, or the index of several files.

    Raises:
        CheckpointError: if a folder has none.
    """
    if not path.is_dir():
        return path
    files = (WEIGHTS, f"{WEIGHTS}{_INDEX}", _PICKLED_WEIGHTS, f"{_PICKLED_WEIGHTS}{_INDEX}")
    for name in files:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(
        f"{path}: has {CONFIG}, but neither {WEIGHTS} nor {_PICKLED_WEIGHTS}, nor an index of "
        "several files; save the model with save_pretrained(folder)"
    )


def read_folder(folder: Path) -> dict[str, Any]:
    """Read a folder as a checkpoint of ours: weights, configuration, class names.

    Raises:
        CheckpointError: if a file is missing or damaged, or the model is not RT-DETRv2.
    """
    path = weights_file(folder)
    config, processor = _read_json(folder / CONFIG), _read_processor(folder)
    content = _checkpoint(config, processor, folder / CONFIG)
    state = _read_shards(path) if path.name.endswith(_INDEX) else _read_weights(path)
    return {**content, "model": names.to_ours(state, source=str(path))}


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".bin":
        return load_checkpoint(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: damaged or truncated ({error}); download or save it again"
        ) from error


def _read_shards(index: Path) -> Mapping[str, Tensor]:
    """Read the files that an index names, which are in its folder.

    Raises:
        CheckpointError: if the index is malformed, or a file or a tensor is missing.
    """
    places = _read_json(index).get("weight_map")
    suffix = Path(index.name.removesuffix(_INDEX)).suffix
    shards = set(places.values()) if isinstance(places, dict) else set()
    is_valid = all(isinstance(n, str) and n == Path(n).name and n.endswith(suffix) for n in shards)
    if not isinstance(places, dict) or not is_valid:
        raise CheckpointError(
            f"{index}: 'weight_map' does not name files (*{suffix}) of its folder; save the model "
            "again"
        )
    state: dict[str, Tensor] = {}
    for name in sorted(shards):
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index}: {name} is missing; download it into the same folder")
        state |= _read_weights(index.parent / name)
    missing = sorted(places.keys() - state.keys())
    if missing:
        raise CheckpointError(
            f"{index}: its files lack {len(missing)} of the tensors, such as {missing[0]}; save "
            "the model again"
        )
    return state


def read_model(model: Model, processor: Any = None) -> dict[str, Any]:
    """Return a model of `transformers` as a checkpoint of ours.

    Args:
        model: RTDetrV2ForObjectDetection.
        processor: its image processor; None: 640x640 pixels.

    Raises:
        CheckpointError: if it is another model.
    """
    source = type(model).__name__
    if not hasattr(model, "config") or not hasattr(model, "state_dict"):
        raise CheckpointError(
            f"{source}: not a model of transformers; give RTDetrV2ForObjectDetection"
        )
    settings = processor.to_dict() if processor is not None else {}
    content = _checkpoint(model.config.to_dict(), settings, Path(source))
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    return {**content, "model": names.to_ours(state, source=source)}


def _checkpoint(
    config: Mapping[str, Any], processor: Mapping[str, Any], source: Path
) -> dict[str, Any]:
    """Return the checkpoint without its weights."""
    try:
        values, class_names = configuration.to_ours(config)
        values["eval_spatial_size"] = _input_size(config, processor)
        own = config.get(_OWN) or {}
        values |= {key: own[key] for key in _OWN_VALUES if own.get(key)}
        YAMLConfig.from_values(values, name=source.name)
    except ConfigError as error:
        raise CheckpointError(f"{source}: {str(error).removeprefix(f'{source.name}: ')}") from error
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: damaged ({error!r}); save the model again") from error
    return {
        "config": values,
        "class_names": class_names,
        "thresholds": own.get("thresholds"),
        "eval_spatial_size": values["eval_spatial_size"],
    }


def _input_size(config: Mapping[str, Any], processor: Mapping[str, Any]) -> list[int]:
    """Return (height, width) of the network's input.

    Raises:
        ConfigError: if the image processor does something else than resizing to one size.
    """
    for key, value in _PROCESSOR_FIXED.items():
        if processor.get(key, value) != value:
            raise ConfigError(f"{PROCESSOR}: {key} = {processor[key]!r}: RT-DETRv2 has {value!r}")
    if not math.isclose(processor.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-6):
        raise ConfigError(
            f"{PROCESSOR}: rescale_factor = {processor['rescale_factor']!r}: RT-DETRv2 has 1/255"
        )
    size = processor.get("size") or {}
    if size and not size.keys() == {"height", "width"}:
        raise ConfigError(f"{PROCESSOR}: size = {size!r}: give height and width")
    if not size:
        side = config.get("anchor_image_size") or 640
        return [side, side] if isinstance(side, int) else [int(each) for each in side]
    return [int(size["height"]), int(size["width"])]


def _read_processor(folder: Path) -> Mapping[str, Any]:
    if (folder / PROCESSOR).is_file():
        return _read_json(folder / PROCESSOR)
    if (folder / _NEWER_PROCESSOR).is_file():
        nested = _read_json(folder / _NEWER_PROCESSOR).get("image_processor")
        return nested if isinstance(nested, dict) else {}
    return {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError(f"larger than {_MAX_JSON_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable ({error}); save the model again") from error
    return content


def write_folder(
    folder: Path,
    cfg: YAMLConfig,
    *,
    class_names: Sequence[str],
    input_size_hw: tuple[int, int],
    own: Mapping[str, Any],
) -> None:
    """Write a network for `from_pretrained` of `transformers`; existing files are replaced.

    Args:
        folder: to write to.
        cfg: the configuration; its `model` has the weights and is not fused.
        class_names: in label order.
        input_size_hw: (height, width) of the network's input.
        own: `thresholds`, `pixel_range` and `num_top_queries`, which only this package reads.

    Raises:
        ConfigError: if `transformers` cannot hold the network, or the folder is not writable.
    """
    config = configuration.to_theirs(cfg, class_names)
    state = names.to_theirs(_evaluated(cfg.model.state_dict(), config), source=folder.name)
    processor = {
        "image_processor_type": "RTDetrImageProcessor",
        **_PROCESSOR_FIXED,
        "rescale_factor": 1 / 255,
        "size": {"height": input_size_hw[0], "width": input_size_hw[1]},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS) as partial:
            tensors = {name: tensor.contiguous() for name, tensor in state.items()}
            save_file(tensors, partial, metadata={"format": "pt"})
        write_text(folder / PROCESSOR, json.dumps(processor, indent=2))
        write_text(folder / CONFIG, json.dumps({**config, _OWN: own}, indent=2))
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another folder"
        ) from error


def _evaluated(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights without those of decoder layers after the evaluated one."""
    last = config["decoder_layers"] - 1
    return {name: tensor for name, tensor in state.items() if names.decoder_layer(name) <= last}
