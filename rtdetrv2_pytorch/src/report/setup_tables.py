"""Tables of the report: settings, versions, files."""

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
import yaml

Row = tuple[str, str]

_PACKAGES = ("torch", "numpy", "faster-coco-eval", "pillow")
_SETTINGS = (
    "epoches", "seed", "use_amp", "amp_dtype", "use_ema", "sync_bn", "clip_max_norm",
    "grad_accum_steps", "patience", "tuning", "resume",
)  # fmt: skip
_FILES = {
    "best.pth": "the weights with the best AP, with class names and thresholds in the file",
    "last.pth": "the state at the end of training, for resuming",
    "model_config.yml": "the resolved configuration of the run",
    "log.jsonl": "all metrics, one JSON object per line",
    "train.log": "the log of the run",
    "data_report.html": "problems found in the data, with images",
    "summary": "TensorBoard event files",
    "pictures": "augmentation presets, augmented training batches, and validation images by epoch",
}
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]")


def versions() -> list[Row]:
    """Return versions of Python, its packages and CUDA."""
    rows = [("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    rows += [(name, version(name)) for name in _PACKAGES]
    if torch.version.cuda:
        rows.append(("CUDA (torch)", str(torch.version.cuda)))
    if torch.cuda.is_available():
        rows.append(("GPU", torch.cuda.get_device_name()))
    return rows


def settings(config: Mapping[str, Any], plan: Mapping[str, Any]) -> list[Row]:
    """Return the most important settings of a run."""
    rows = [
        ("device", plan.get("device")),
        ("precision", plan.get("precision")),
        ("training images", plan.get("num_train_images")),
        ("validation images", plan.get("num_val_images")),
        ("batch size", plan.get("batch_size")),
        ("steps per epoch", plan.get("steps_per_epoch")),
        ("input size", _size(config.get("eval_spatial_size"))),
        ("optimizer", _component(config.get("optimizer"))),
        ("lr_scheduler", _component(config.get("lr_scheduler"))),
        ("lr_warmup_scheduler", _component(config.get("lr_warmup_scheduler"))),
        *((name, config.get(name)) for name in _SETTINGS),
    ]
    return [(name, str(without_paths(v))) for name, v in rows if v not in (None, "")]


def _size(size: Any) -> str:
    is_pair = isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2
    return f"{size[0]}x{size[1]} (height x width)" if is_pair else ""


def _component(section: Any) -> str:
    if not isinstance(section, Mapping):
        return ""
    values = [f"{k} {v}" for k, v in section.items() if k not in ("type", "params")]
    return f"{section.get('type', '')} {', '.join(values)}".strip()


def resolved_yaml(config: Mapping[str, Any]) -> str:
    """Return the resolved configuration as YAML, without absolute paths."""
    return yaml.safe_dump(without_paths(config), sort_keys=False, allow_unicode=True)


def without_paths(value: Any) -> Any:
    """Replace absolute paths by file names, because reports are shared."""
    if isinstance(value, Mapping):
        return {key: without_paths(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(one) for one in value]
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str) and value.startswith("/"):
        return PurePosixPath(value).name
    if isinstance(value, str) and _DRIVE.match(value):
        return PureWindowsPath(value).name
    return value


def files(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (name, size, purpose) of the files in the output directory."""
    for name, purpose in _FILES.items():
        path = folder / name
        if path.is_dir():
            yield f"{name}/", "", purpose
        elif path.is_file():
            yield name, size_text(path.stat().st_size), purpose


def size_text(size: int) -> str:
    """Format a size in bytes."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
