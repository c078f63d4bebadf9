"""Mapping of our weights to RT-DETRv2 of `transformers`, and matching networks.

The mapping from our names to theirs and their configurations are written by hand instead of being
derived from ours, so that wrong values are detected.
"""

import re
from collections.abc import Mapping

from torch import Tensor, nn
from transformers import (
    HGNetV2Config,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
)

# Anchors depend only on the image size; their weights do not contain them.
ONLY_OURS = frozenset({"decoder.anchors", "decoder.valid_mask"})
# Aliases of the heads in `model.decoder`.
ALIASES = ("class_embed.", "bbox_embed.")

# (pattern, replacement), all applied to our name in order.
_RESNET = (
    (r"^backbone\.conv1\.conv1_1\.", "model.backbone.model.embedder.embedder.0."),
    (r"^backbone\.conv1\.conv1_2\.", "model.backbone.model.embedder.embedder.1."),
    (r"^backbone\.conv1\.conv1_3\.", "model.backbone.model.embedder.embedder.2."),
    (r"^backbone\.res_layers\.(\d+)\.blocks\.", r"model.backbone.model.encoder.stages.\1.layers."),
    (r"\.branch2a\.", ".layer.0."),
    (r"\.branch2b\.", ".layer.1."),
    (r"\.branch2c\.", ".layer.2."),
    (r"\.short\.conv\.(conv|norm)\.", r".shortcut.1.\1."),  # after the average pool
    (r"\.short\.", ".shortcut."),
    (r"^(model\.backbone\..*)\.conv\.", r"\1.convolution."),
    (r"^(model\.backbone\..*)\.norm\.", r"\1.normalization."),
)
_HGNET = (
    (r"^backbone\.stem\.", "model.backbone.model.embedder."),
    (r"^backbone\.stages\.", "model.backbone.model.encoder.stages."),
    (r"\.aggregation_squeeze_conv\.", ".aggregation.0."),
    (r"\.aggregation_excitation_conv\.", ".aggregation.1."),
    (r"\.conv\.1\.weight$", ".conv.weight"),  # after the zero padding
    (r"^(model\.backbone\..*)\.conv\.", r"\1.convolution."),
    (r"^(model\.backbone\..*)\.bn\.", r"\1.normalization."),
)
_ENCODER = (
    (r"^encoder\.input_proj\.(\d+)\.conv\.", r"model.encoder_input_proj.\1.0."),
    (r"^encoder\.input_proj\.(\d+)\.norm\.", r"model.encoder_input_proj.\1.1."),
    (r"^encoder\.encoder\.", "model.encoder.aifi."),
    (r"^encoder\.", "model.encoder."),
    (r"^(model\.encoder\.aifi\..*)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"^(model\.encoder\.aifi\..*)\.norm2\.", r"\1.final_layer_norm."),
)
_DECODER = (
    (r"^decoder\.input_proj\.(\d+)\.conv\.", r"model.decoder_input_proj.\1.0."),
    (r"^decoder\.input_proj\.(\d+)\.norm\.", r"model.decoder_input_proj.\1.1."),
    (r"^decoder\.enc_output\.proj\.", "model.enc_output.0."),
    (r"^decoder\.enc_output\.norm\.", "model.enc_output.1."),
    (r"^decoder\.(enc_score_head|enc_bbox_head)\.", r"model.\1."),
    (r"^decoder\.query_pos_head\.", "model.decoder.query_pos_head."),
    (r"^decoder\.dec_score_head\.", "model.decoder.class_embed."),
    (r"^decoder\.dec_bbox_head\.", "model.decoder.bbox_embed."),
    (r"^decoder\.decoder\.layers\.", "model.decoder.layers."),
    (r"^(model\.decoder\.layers\..*)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"^(model\.decoder\.layers\..*)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"^(model\.decoder\.layers\..*)\.norm3\.", r"\1.final_layer_norm."),
    (r"\.cross_attn\.num_points_scale$", ".encoder_attn.n_points_scale"),
    (r"\.cross_attn\.", ".encoder_attn."),
)
_TRANSFORMER_LAYERS = (
    (r"\.self_attn\.out_proj\.", ".self_attn.o_proj."),
    (r"\.linear1\.", ".mlp.fc1."),
    (r"\.linear2\.", ".mlp.fc2."),
)


def their_names(name: str) -> list[str]:
    """Return their names of one of our tensors: one, or three for a joint projection."""
    backbone = _HGNET if re.match(r"backbone\.(stem|stages)\.", name) else _RESNET
    part = {"backbone": backbone, "encoder": _ENCODER, "decoder": _DECODER}[name.split(".")[0]]
    for pattern, replacement in (*part, *_TRANSFORMER_LAYERS):
        name = re.sub(pattern, replacement, name)
    joint = re.match(r"(.*)\.in_proj_(weight|bias)$", name)
    if joint:
        return [f"{joint[1]}.{letter}_proj.{joint[2]}" for letter in "qkv"]
    return [name]


def to_their_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our tensors (weights or gradients) and split joint projections.

    Raises:
        ValueError: if two of our tensors map to the same name.
    """
    result: dict[str, Tensor] = {}
    for ours, tensor in tensors.items():
        names = their_names(ours)
        parts = tensor.chunk(3) if len(names) == 3 else (tensor,)
        for name, part in zip(names, parts, strict=True):
            if name in result:
                raise ValueError(f"{ours}: {name} has a tensor already")
            result[name] = part
    return result


def copy_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy the weights of `ours` to `theirs`; every tensor of both is used exactly once.

    Raises:
        ValueError: if one network has tensors that the other lacks.
    """
    state = {k: v for k, v in ours.state_dict().items() if k not in ONLY_OURS}
    mapped = to_their_names(state)
    expected = {k for k in theirs.state_dict() if not k.startswith(ALIASES)}
    if mapped.keys() != expected:
        raise ValueError(f"only in one network: {sorted(mapped.keys() ^ expected)}")
    theirs.load_state_dict(mapped, strict=False)  # raises for other shapes


def _resnet(layer_type: str, depths: list[int], widths: list[int]) -> RTDetrResNetConfig:
    return RTDetrResNetConfig(
        layer_type=layer_type, depths=depths, hidden_sizes=widths, out_indices=[2, 3, 4]
    )


_R18 = {
    "backbone_config": _resnet("basic", [2, 2, 2, 2], [64, 128, 256, 512]),
    "freeze_backbone_batch_norms": False,
    "encoder_in_channels": [128, 256, 512],
    "hidden_expansion": 0.5,
    "decoder_layers": 3,
}
# Differences to the defaults of `transformers`, which are those of the r50 model.
_THEIR_SETTINGS = {
    "r18vd_120e": _R18,
    "r18vd_dsp_3x": _R18 | {"decoder_method": "discrete"},
    "r50vd_6x": {
        "backbone_config": _resnet("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
    },
    "r101vd_6x": {
        "backbone_config": _resnet("bottleneck", [3, 4, 23, 3], [256, 512, 1024, 2048]),
        "encoder_hidden_dim": 384,
        "encoder_ffn_dim": 2048,
        "decoder_in_channels": [384, 384, 384],
    },
    "hgnetv2_l_6x": {
        "backbone_config": HGNetV2Config(out_indices=[2, 3, 4]),  # L is the default
    },
}
VARIANTS = tuple(_THEIR_SETTINGS)


def build_theirs(variant: str) -> RTDetrV2ForObjectDetection:
    """Build their network with random weights, without denoising and without downloads."""
    config = RTDetrV2Config(num_labels=80, num_denoising=0, **_THEIR_SETTINGS[variant])
    return RTDetrV2ForObjectDetection(config)
