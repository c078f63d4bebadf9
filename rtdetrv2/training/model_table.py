"""The published models: their configurations and weights."""

from pathlib import Path

import rtdetrv2_pytorch
from rtdetrv2_pytorch.src.misc.errors import ConfigError

CONFIGS = Path(rtdetrv2_pytorch.__file__).parent / "configs"
RECIPES = CONFIGS / "rtdetrv2"
DEFAULT_CONFIG = RECIPES / "rtdetrv2_r18vd_120e_coco.yml"
SAMPLE_CONFIG = CONFIGS / "sample_digits.yml"
_RELEASES = "https://github.com/lyuwenyu/storage/releases/download"
# Configuration and weights on COCO, by size.
MODELS = {
    "S": (
        "rtdetrv2_r18vd_120e_coco.yml",
        f"{_RELEASES}/v0.2/rtdetrv2_r18vd_120e_coco_rerun_48.1.pth",
    ),
    "M": ("rtdetrv2_r50vd_m_7x_coco.yml", f"{_RELEASES}/v0.1/rtdetrv2_r50vd_m_7x_coco_ema.pth"),
    "L": ("rtdetrv2_r50vd_6x_coco.yml", f"{_RELEASES}/v0.1/rtdetrv2_r50vd_6x_coco_ema.pth"),
    "X": (
        "rtdetrv2_r101vd_6x_coco.yml",
        f"{_RELEASES}/v0.1/rtdetrv2_r101vd_6x_coco_from_paddle.pth",
    ),
}


def size_of(name: str) -> str | None:
    """Return the size of a model given as "S" or "RT-DETRv2-S"; None for another name."""
    size = name.upper().replace("RTDETR", "RT-DETR").removeprefix("RT-DETRV2-")
    return size if size in MODELS else None


def find_model(name: str) -> tuple[Path, str]:
    """Return the configuration and the COCO weights of a model, "S" or "RT-DETRv2-S".

    Raises:
        ConfigError: if the name is unknown.
    """
    size = size_of(name)
    if size is None:
        raise ConfigError(
            f"--model {name!r}: unknown; use one of {', '.join(MODELS)}, or give the configuration "
            "of another model with -c"
        )
    config, weights = MODELS[size]
    return RECIPES / config, weights
