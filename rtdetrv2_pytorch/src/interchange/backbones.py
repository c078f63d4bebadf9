"""Backbones: our sections, and `backbone_config` of `transformers`."""

from collections.abc import Mapping
from typing import Any

from ..misc.errors import ConfigError
from ..nn.hgnetv2 import stage_specs
from ..nn.presnet import BLOCKS, WIDTHS, block_of

_RESNET, _HGNET = "rt_detr_resnet", "hgnet_v2"


def _resnet(depth: int, num_stages: int) -> dict[str, Any]:
    expansion = block_of(depth).expansion
    return {
        "model_type": _RESNET,
        "layer_type": "basic" if expansion == 1 else "bottleneck",
        "depths": list(BLOCKS[depth][:num_stages]),
        "hidden_sizes": [width * expansion for width in WIDTHS[:num_stages]],
        "embedding_size": 64,
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        "num_channels": 3,
    }


def _hgnet(name: str, use_lab: bool) -> dict[str, Any]:
    stem, stages = stage_specs(name)
    return {
        "model_type": _HGNET,
        "stem_channels": [3, *stem],
        "stem_strides": [2, 1, 1, 2, 1],
        "stage_in_channels": [stem[-1], *(stage.out for stage in stages[:-1])],
        "stage_mid_channels": [stage.mid for stage in stages],
        "stage_out_channels": [stage.out for stage in stages],
        "stage_num_blocks": [stage.num_blocks for stage in stages],
        "stage_downsample": [i > 0 for i in range(len(stages))],
        "stage_downsample_strides": [2] * len(stages),
        "stage_light_block": [stage.light for stage in stages],
        "stage_kernel_size": [5 if stage.light else 3 for stage in stages],
        "stage_numb_of_layers": [6] * len(stages),
        "use_learnable_affine_block": use_lab,
        "hidden_act": "relu",
        "num_channels": 3,
    }


# All backbones that both sides have, with the section that describes them.
_KNOWN: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    *(
        (_resnet(depth, num), "PResNet", {"depth": depth, "num_stages": num})
        for depth in BLOCKS
        for num in (4, 3, 2)
    ),
    *(
        (_hgnet(name, lab), "HGNetv2", {"name": name, "use_lab": lab})
        for name in ("L", "X", "H")
        for lab in (False, True)
    ),
]
# Values that files may omit.
_DEFAULTS: dict[str, dict[str, Any]] = {_RESNET: _resnet(50, 4), _HGNET: _hgnet("L", False)}


def to_theirs(name: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """Return `backbone_config` for a complete section of ours.

    Raises:
        ConfigError: if `transformers` does not have this backbone.
    """
    if section.get("act", "relu") != "relu":
        raise ConfigError(
            f"{name}.act = {section['act']!r}: backbones of transformers have relu; this model "
            "cannot be written for transformers"
        )
    for theirs, ours, values in _KNOWN:
        if ours == name and all(section[key] == value for key, value in values.items()):
            stages = [i + 1 for i in section["return_idx"]]
            names = ["stem", *(f"stage{i + 1}" for i in range(values.get("num_stages", 4)))]
            return theirs | {
                "out_indices": stages,
                "out_features": [names[i] for i in stages],
                "stage_names": names,
            }
    raise ConfigError(
        f"{name} with {dict(section)}: transformers has no such backbone; this model cannot be "
        "written for transformers"
    )


def to_ours(config: Mapping[str, Any], *, is_frozen: bool) -> tuple[str, dict[str, Any]]:
    """Return the name and section of a `backbone_config`; `is_frozen` refers to its norms.

    Raises:
        ConfigError: if we do not have this backbone.
    """
    kind = config.get("model_type")
    if kind not in _DEFAULTS:
        raise ConfigError(
            f"backbone_config.model_type = {kind!r}: give a model with one of the backbones "
            f"{', '.join(_DEFAULTS)}"
        )
    complete = _DEFAULTS[kind] | dict(config)
    candidates = [known for known in _KNOWN if known[0]["model_type"] == kind]
    differences = [
        {key: complete[key] for key, value in theirs.items() if _plain(complete[key]) != value}
        for theirs, _, _ in candidates
    ]
    if all(differences):
        nearest = min(differences, key=len)
        raise ConfigError(
            "backbone_config: "
            + ", ".join(f"{key} = {value!r}" for key, value in nearest.items())
            + ": not a backbone of RT-DETRv2; give another model"
        )
    _, name, values = candidates[differences.index({})]
    return name, {
        **values,
        "return_idx": _returned(complete),
        "freeze_norm": is_frozen,
        "freeze_at": 0 if is_frozen else -1,
        "pretrained": False,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _returned(config: Mapping[str, Any]) -> list[int]:
    """Return the stages whose maps the network uses, from 0."""
    indices, features = config.get("out_indices"), config.get("out_features")
    if indices is None and features is not None:
        indices = [int(str(feature).removeprefix("stage")) for feature in features]
    return [int(i) - 1 for i in ([2, 3, 4] if indices is None else indices)]
