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
    size: (f"rtdetrv2_{config}.yml", f"{_RELEASES}/{weights}.pth")
    for size, config, weights in (
        ("S", "r18vd_120e_coco", "v0.2/rtdetrv2_r18vd_120e_coco_rerun_48.1"),
        ("M", "r50vd_m_7x_coco", "v0.1/rtdetrv2_r50vd_m_7x_coco_ema"),
        ("L", "r50vd_6x_coco", "v0.1/rtdetrv2_r50vd_6x_coco_ema"),
        ("X", "r101vd_6x_coco", "v0.1/rtdetrv2_r101vd_6x_coco_from_paddle"),
        ("M*", "r34vd_120e_coco", "v0.1/rtdetrv2_r34vd_120e_coco_ema"),
        ("S_dsp", "r18vd_dsp_3x_coco", "v0.1/rtdetrv2_r18vd_dsp_3x_coco"),
        ("M*_dsp", "r34vd_dsp_1x_coco", "v0.1/rrtdetrv2_r34vd_dsp_1x_coco"),
        ("M_dsp", "r50vd_m_dsp_3x_coco", "v0.1/rtdetrv2_r50vd_m_dsp_3x_coco"),
        ("L_dsp", "r50vd_dsp_1x_coco", "v0.1/rtdetrv2_r50vd_dsp_1x_coco"),
        ("HGNetv2-L", "hgnetv2_l_6x_coco", "v0.1/rtdetrv2_hgnetv2_l_6x_coco_from_paddle"),
        ("HGNetv2-X", "hgnetv2_x_6x_coco", "v0.1/rtdetrv2_hgnetv2_x_6x_coco_from_paddle"),
        ("HGNetv2-H", "hgnetv2_h_6x_coco", "v0.1/rtdetrv2_hgnetv2_h_6x_coco_from_paddle"),
    )
}
# Weights that were trained on Objects365 and then on COCO, by size.
OBJECTS365 = {
    "S": f"{_RELEASES}/v0.1/rtdetrv2_r18vd_5x_coco_objects365_from_paddle.pth",
    "L": f"{_RELEASES}/v0.1/rtdetrv2_r50vd_2x_coco_objects365_from_paddle.pth",
    "X": f"{_RELEASES}/v0.1/rtdetrv2_r101vd_2x_coco_objects365_from_paddle.pth",
}
COCO, OBJECTS, NONE = WEIGHTS = ("coco", "objects365", "none")
_OBJECTS_SUFFIX = "_OBJ365"


def size_of(name: str) -> str | None:
    """Return the size of a model given as "S", "RT-DETRv2-S" or the name of its configuration.

    The name of a model with Objects365 weights, "RT-DETRv2-S_obj365", is another one.
    """
    wanted = name.upper().replace("RTDETR", "RT-DETR").removeprefix("RT-DETRV2-")
    for size, (config, _) in MODELS.items():
        if wanted == size.upper() or name == config.removesuffix(".yml"):
            return size
    return None


def find_model(name: str) -> tuple[Path, str]:
    """Return the configuration and the published weights of a model.

    Args:
        name: "S", "RT-DETRv2-S", "RT-DETRv2-S_obj365", or the name of a configuration.

    Returns:
        The configuration, and the URL of the weights; "" if there are none.

    Raises:
        ConfigError: if the name is unknown.
    """
    is_objects = name.upper().endswith(_OBJECTS_SUFFIX)
    size = size_of(name[: -len(_OBJECTS_SUFFIX)] if is_objects else name)
    if size is not None and (not is_objects or size in OBJECTS365):
        config, weights = MODELS[size]
        return RECIPES / config, OBJECTS365[size] if is_objects else weights
    recipe = RECIPES / f"{name.removesuffix('.yml')}.yml"
    if recipe.is_file() and recipe.parent == RECIPES:
        return recipe, ""
    raise ConfigError(
        f"--model {name!r}: unknown; use one of {', '.join(MODELS)}, the name of a file in "
        f"{RECIPES}, or give the configuration of another model with -c"
    )


def published_weights(kind: str, model: str) -> str:
    """Return the URL of weights by their name.

    Args:
        kind: "coco" or "objects365".
        model: see `find_model`, or the path of a configuration.

    Raises:
        ConfigError: if the model has no such weights.
    """
    size = size_of(model)
    published = OBJECTS365 if kind == OBJECTS else {s: url for s, (_, url) in MODELS.items()}
    if size not in published:
        raise ConfigError(
            f"--weights {kind}: not published for {model}; the models with these weights are "
            f"{', '.join(published)}. Give a checkpoint, or none for random weights"
        )
    return published[size]
