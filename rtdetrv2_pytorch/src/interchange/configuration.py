"""Configurations: our YAML values, and `config.json` of `transformers` (`RTDetrV2Config`)."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.yaml_config import YAMLConfig
from ..misc.errors import ConfigError
from ..misc.text import counted
from . import backbones

MODEL_TYPE = "rt_detr_v2"
_ENCODER, _DECODER = "HybridEncoder", "RTDETRTransformerv2"

# Their key -> (our section, our key, value that files may omit).
_KEYS: dict[str, tuple[str, str, Any]] = {
    "encoder_hidden_dim": (_ENCODER, "hidden_dim", 256),
    "encoder_in_channels": (_ENCODER, "in_channels", [512, 1024, 2048]),
    "feat_strides": (_ENCODER, "feat_strides", [8, 16, 32]),
    "encoder_layers": (_ENCODER, "num_encoder_layers", 1),
    "encoder_ffn_dim": (_ENCODER, "dim_feedforward", 1024),
    "encoder_attention_heads": (_ENCODER, "nhead", 8),
    "encode_proj_layers": (_ENCODER, "use_encoder_idx", [2]),
    "positional_encoding_temperature": (_ENCODER, "pe_temperature", 10000),
    "encoder_activation_function": (_ENCODER, "enc_act", "gelu"),
    "activation_function": (_ENCODER, "act", "silu"),
    "hidden_expansion": (_ENCODER, "expansion", 1.0),
    "dropout": (_ENCODER, "dropout", 0.0),
    "d_model": (_DECODER, "hidden_dim", 256),
    "num_queries": (_DECODER, "num_queries", 300),
    "decoder_in_channels": (_DECODER, "feat_channels", [256, 256, 256]),
    "decoder_ffn_dim": (_DECODER, "dim_feedforward", 1024),
    "num_feature_levels": (_DECODER, "num_levels", 3),
    "decoder_n_points": (_DECODER, "num_points", 4),
    "decoder_layers": (_DECODER, "num_layers", 6),
    "decoder_attention_heads": (_DECODER, "nhead", 8),
    "decoder_activation_function": (_DECODER, "activation", "relu"),
    "num_denoising": (_DECODER, "num_denoising", 100),
    "label_noise_ratio": (_DECODER, "label_noise_ratio", 0.5),
    "box_noise_scale": (_DECODER, "box_noise_scale", 1.0),
    "auxiliary_loss": (_DECODER, "aux_loss", True),
    "decoder_method": (_DECODER, "cross_attn_method", "default"),
}
# Their keys with the only value that our network computes.
_FIXED: dict[str, Any] = {
    "layer_norm_eps": 1e-5,
    "batch_norm_eps": 1e-5,
    "eval_size": None,
    "normalize_before": False,
    "with_box_refine": True,
    "decoder_offset_scale": 0.5,
    "learn_initial_query": False,  # fails in transformers 5.23
    "use_focal_loss": True,
}
# Our keys with the only value that their network computes.
_OUR_FIXED: dict[str, dict[str, Any]] = {
    _DECODER: {"eps": 1e-2, "query_select_method": "default", "learn_query_content": False},
}
_BLOCKS = 3  # RepVGG blocks of a fusion block


def to_theirs(cfg: YAMLConfig, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the content of `config.json` for a network of ours.

    A network that is evaluated at an earlier decoder layer (`eval_idx`) gets the layers up to it.

    Args:
        cfg: the configuration of the network.
        class_names: in label order.

    Raises:
        ConfigError: naming a value that `transformers` cannot hold.
    """
    sections = cfg.sections()
    name, parts = sections.arguments(cfg.yaml_cfg.get("model"), "model")
    if name != "RTDETR":
        raise ConfigError(f"model = {name!r}: only RTDETR can be written for transformers")
    backbone = sections.arguments(parts["backbone"], "backbone")
    named = dict(sections.arguments(parts[part], part) for part in ("encoder", "decoder"))
    if named.keys() != {_ENCODER, _DECODER}:
        raise ConfigError(f"model: transformers has no network of {', '.join(named)}")
    encoder, decoder = named[_ENCODER], named[_DECODER]
    _check(cfg, encoder, decoder)
    points = decoder["num_points"]
    decoder |= {
        "num_points": points if isinstance(points, int) else points[0],
        "num_layers": decoder["eval_idx"] % decoder["num_layers"] + 1,
    }
    values = {key: named[section][ours] for key, (section, ours, _) in _KEYS.items()}
    values |= {key: float(values[key]) for key in ("hidden_expansion", "dropout")}
    return {
        "architectures": ["RTDetrV2ForObjectDetection"],
        "model_type": MODEL_TYPE,
        **values,
        **_FIXED,
        "positional_encoding_temperature": int(encoder["pe_temperature"]),
        "decoder_n_levels": decoder["num_levels"],
        "activation_dropout": values["dropout"],
        "attention_dropout": values["dropout"],
        "anchor_image_size": None,
        "freeze_backbone_batch_norms": backbone[1]["freeze_norm"],
        "backbone_config": backbones.to_theirs(*backbone),
        "id2label": {str(i): name for i, name in enumerate(class_names)},
        "label2id": {name: i for i, name in enumerate(class_names)},
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }


def _check(cfg: YAMLConfig, encoder: Mapping[str, Any], decoder: Mapping[str, Any]) -> None:
    """Raise a ConfigError for the first value that `transformers` cannot hold."""
    for section, fixed in _OUR_FIXED.items():
        for key, value in fixed.items():
            if decoder[key] != value:
                raise _cannot_hold(f"{section}.{key} = {decoder[key]!r}", f"it has {value!r}")
    points = decoder["num_points"]
    if not isinstance(points, int) and len(set(points)) > 1:
        raise _cannot_hold(f"{_DECODER}.num_points = {points}", "all its levels have one number")
    if round(3 * encoder["depth_mult"]) != _BLOCKS:
        raise _cannot_hold(f"{_ENCODER}.depth_mult = {encoder['depth_mult']}", "it has 1")
    if encoder["pe_temperature"] != int(encoder["pe_temperature"]):
        raise _cannot_hold(f"{_ENCODER}.pe_temperature = {encoder['pe_temperature']}", "integers")
    if encoder["dropout"] != decoder["dropout"]:
        raise _cannot_hold(
            f"{_ENCODER}.dropout = {encoder['dropout']}, {_DECODER}.dropout = {decoder['dropout']}",
            "encoder and decoder share one value",
        )
    maps = len(decoder["feat_channels"])
    if decoder["num_levels"] > maps + 1:
        raise _cannot_hold(
            f"{_DECODER}.num_levels = {decoder['num_levels']}",
            f"it adds one level to {counted(maps, 'map')}",
        )
    if cfg.yaml_cfg.get("use_focal_loss") is False:
        raise _cannot_hold("use_focal_loss = False", "its scores are sigmoids")


def _cannot_hold(what: str, reason: str) -> ConfigError:
    return ConfigError(f"{what}: transformers cannot hold this network ({reason})")


def to_ours(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return our YAML values and the class names of a `config.json`.

    Raises:
        ConfigError: naming a value that our network does not have.
    """
    kind = config.get("model_type")
    if kind != MODEL_TYPE:
        raise ConfigError(
            f"model_type = {kind!r} is not RT-DETRv2 ({MODEL_TYPE!r}); give a folder of "
            "RTDetrV2ForObjectDetection"
        )
    for key, value in _FIXED.items():
        if config.get(key, value) != value:
            raise ConfigError(f"{key} = {config[key]!r}: RT-DETRv2 has {value!r}")
    values = {key: config.get(key, default) for key, (_, _, default) in _KEYS.items()}
    for key, other in (
        ("activation_dropout", "dropout"),
        ("attention_dropout", "dropout"),
        ("decoder_n_levels", "num_feature_levels"),
    ):
        if config.get(key, values[other]) != values[other]:
            raise ConfigError(
                f"{key} = {config[key]!r} and {other} = {values[other]!r}: must be equal"
            )
    if values["num_feature_levels"] > len(values["decoder_in_channels"]) + 1:
        raise ConfigError(
            f"num_feature_levels = {values['num_feature_levels']}: at most one more than "
            "decoder_in_channels"
        )
    name, backbone = backbones.to_ours(
        config.get("backbone_config") or {"model_type": "rt_detr_resnet"},
        is_frozen=bool(config.get("freeze_backbone_batch_norms", True)),
    )
    sections: dict[str, dict[str, Any]] = {_ENCODER: {}, _DECODER: {}}
    for key, (section, ours, _) in _KEYS.items():
        value = values[key]
        sections[section][ours] = list(value) if isinstance(value, tuple) else value
    sections[_DECODER] |= {
        "dropout": values["dropout"],
        "feat_strides": sections[_ENCODER]["feat_strides"],
    }
    names = _class_names(config)
    return {
        "model": "RTDETR",
        "postprocessor": "RTDETRPostProcessor",
        "RTDETR": {"backbone": name, "encoder": _ENCODER, "decoder": _DECODER},
        name: backbone,
        **sections,
        "num_classes": len(names),
        "num_top_queries": values["num_queries"],
        "use_focal_loss": True,
        "remap_mscoco_category": False,
    }, names


def _class_names(config: Mapping[str, Any]) -> list[str]:
    """Return the names of `id2label` in label order."""
    labels = config.get("id2label") or {i: f"LABEL_{i}" for i in range(config.get("num_labels", 2))}
    by_label = {int(label): str(name) for label, name in labels.items()}
    if by_label.keys() != set(range(len(by_label))):
        raise ConfigError(f"id2label: labels are {sorted(by_label)}, not 0 to {len(by_label) - 1}")
    return [by_label[i] for i in range(len(by_label))]
