"""Names of weights: ours, and those in files of `transformers` (`RTDetrV2ForObjectDetection`)."""

import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..misc.errors import CheckpointError

_Pairs = Sequence[tuple[str, str]]

# Children of a convolution with its norm.
_RESNET = ((".conv", ".convolution"), (".norm", ".normalization"))
_HGNET = ((".conv", ".convolution"), (".bn", ".normalization"), (".lab", ".lab"))
_PADDED = ((".conv.1", ".convolution"), (".bn", ".normalization"), (".lab", ".lab"))
_INDEX = ((".conv", ".0"), (".norm", ".1"))


def _expand(ours: str, theirs: str, pairs: _Pairs) -> list[tuple[str, str]]:
    """Append each pair of children and the rest of the name."""
    return [(f"{ours}{mine}.*", f"{theirs}{other}.*") for mine, other in pairs]


# (our name, their name); `#` is an index and `*` the rest of the name. The first match counts.
_BACKBONE = "model.backbone.model"
_RES = ("backbone.res_layers.#.blocks.#", f"{_BACKBONE}.encoder.stages.#.layers.#")
_HG = ("backbone.stages.#", f"{_BACKBONE}.encoder.stages.#")
_AIFI = ("encoder.encoder.#.layers.#", "model.encoder.encoder.#.layers.#")
_LAYER = ("decoder.decoder.layers.#", "model.decoder.layers.#")
_NAMES = (
    *_expand("backbone.conv1.conv1_1", f"{_BACKBONE}.embedder.embedder.0", _RESNET),
    *_expand("backbone.conv1.conv1_2", f"{_BACKBONE}.embedder.embedder.1", _RESNET),
    *_expand("backbone.conv1.conv1_3", f"{_BACKBONE}.embedder.embedder.2", _RESNET),
    *_expand(f"{_RES[0]}.branch2a", f"{_RES[1]}.layer.0", _RESNET),
    *_expand(f"{_RES[0]}.branch2b", f"{_RES[1]}.layer.1", _RESNET),
    *_expand(f"{_RES[0]}.branch2c", f"{_RES[1]}.layer.2", _RESNET),
    *_expand(f"{_RES[0]}.short.conv", f"{_RES[1]}.shortcut.1", _RESNET),  # after the pooling
    *_expand(f"{_RES[0]}.short", f"{_RES[1]}.shortcut", _RESNET),
    *_expand("backbone.stem.stem2a", f"{_BACKBONE}.embedder.stem2a", _PADDED),
    *_expand("backbone.stem.stem2b", f"{_BACKBONE}.embedder.stem2b", _PADDED),
    *_expand("backbone.stem.stem#", f"{_BACKBONE}.embedder.stem#", _HGNET),
    *_expand(f"{_HG[0]}.downsample", f"{_HG[1]}.downsample", _HGNET),
    *_expand(
        f"{_HG[0]}.blocks.#.aggregation_squeeze_conv", f"{_HG[1]}.blocks.#.aggregation.0", _HGNET
    ),
    *_expand(
        f"{_HG[0]}.blocks.#.aggregation_excitation_conv", f"{_HG[1]}.blocks.#.aggregation.1", _HGNET
    ),
    *_expand(f"{_HG[0]}.blocks.#.layers.#.conv#", f"{_HG[1]}.blocks.#.layers.#.conv#", _HGNET),
    *_expand(f"{_HG[0]}.blocks.#.layers.#", f"{_HG[1]}.blocks.#.layers.#", _HGNET),
    *_expand("encoder.input_proj.#", "model.encoder_input_proj.#", _INDEX),
    (f"{_AIFI[0]}.self_attn.*", f"{_AIFI[1]}.self_attn.*"),
    (f"{_AIFI[0]}.linear#.*", f"{_AIFI[1]}.fc#.*"),
    (f"{_AIFI[0]}.norm1.*", f"{_AIFI[1]}.self_attn_layer_norm.*"),
    (f"{_AIFI[0]}.norm2.*", f"{_AIFI[1]}.final_layer_norm.*"),
    ("encoder.lateral_convs.*", "model.encoder.lateral_convs.*"),
    ("encoder.fpn_blocks.*", "model.encoder.fpn_blocks.*"),
    ("encoder.downsample_convs.*", "model.encoder.downsample_convs.*"),
    ("encoder.pan_blocks.*", "model.encoder.pan_blocks.*"),
    *_expand("decoder.input_proj.#", "model.decoder_input_proj.#", _INDEX),
    ("decoder.denoising_class_embed.*", "model.denoising_class_embed.*"),
    ("decoder.enc_output.proj.*", "model.enc_output.0.*"),
    ("decoder.enc_output.norm.*", "model.enc_output.1.*"),
    ("decoder.enc_score_head.*", "model.enc_score_head.*"),
    ("decoder.enc_bbox_head.*", "model.enc_bbox_head.*"),
    ("decoder.query_pos_head.*", "model.decoder.query_pos_head.*"),
    ("decoder.dec_score_head.*", "model.decoder.class_embed.*"),
    ("decoder.dec_bbox_head.*", "model.decoder.bbox_embed.*"),
    (f"{_LAYER[0]}.self_attn.*", f"{_LAYER[1]}.self_attn.*"),
    (f"{_LAYER[0]}.cross_attn.num_points_scale", f"{_LAYER[1]}.encoder_attn.n_points_scale"),
    (f"{_LAYER[0]}.cross_attn.*", f"{_LAYER[1]}.encoder_attn.*"),
    (f"{_LAYER[0]}.norm1.*", f"{_LAYER[1]}.self_attn_layer_norm.*"),
    (f"{_LAYER[0]}.norm2.*", f"{_LAYER[1]}.encoder_attn_layer_norm.*"),
    (f"{_LAYER[0]}.norm3.*", f"{_LAYER[1]}.final_layer_norm.*"),
    (f"{_LAYER[0]}.linear#.*", f"{_LAYER[1]}.fc#.*"),
)

# Names in a model of transformers 5, as in files of all versions.
_NEWER = (
    (re.compile(r"\.o_proj\."), ".out_proj."),
    (re.compile(r"\.mlp\.fc"), ".fc"),
    (re.compile(r"^model\.encoder\.aifi\."), "model.encoder.encoder."),
)
_ALIAS = re.compile(r"^(class|bbox)_embed\.")  # of the heads in the decoder
_ANCHORS = re.compile(r"(^|\.)(anchors|valid_mask)$")  # computed from the image size


_DECODER_LAYER = re.compile(r"decoder\.(?:decoder\.layers|dec_(?:score|bbox)_head)\.(\d+)\.")


def decoder_layer(name: str) -> int:
    """Return the decoder layer to which a weight of ours belongs; -1 for the other weights."""
    match = _DECODER_LAYER.match(name)
    return int(match[1]) if match else -1


def _compiled(pairs: _Pairs) -> list[tuple[re.Pattern[str], str]]:
    """Compile (name to match, name to write)."""
    compiled = []
    for source, target in pairs:
        pattern = re.escape(source).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)")
        groups = iter(range(1, 10))
        written = re.sub(r"[#*]", lambda _: rf"\g<{next(groups)}>", target)  # noqa: B023
        compiled.append((re.compile(pattern), written))
    return compiled


_TO_THEIRS = _compiled(_NAMES)
_TO_OURS = _compiled([(theirs, ours) for ours, theirs in _NAMES])


def _renamed(name: str, rules: Sequence[tuple[re.Pattern[str], str]], source: str) -> str:
    for pattern, written in rules:
        match = pattern.fullmatch(name)
        if match:
            return match.expand(written)
    raise CheckpointError(
        f"{source}: weight {name!r} does not belong to RT-DETRv2; give the files of another model"
    )


def to_ours(state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Rename weights of `transformers`, and join the projections of each self-attention.

    Args:
        state: of a file or a model, of version 4 or 5.
        source: for error messages.

    Raises:
        CheckpointError: if a weight does not belong to RT-DETRv2.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in state.items():
        file_name = name
        for pattern, written in _NEWER:
            file_name = pattern.sub(written, file_name)
        if _ALIAS.match(name):
            plain.setdefault(f"model.decoder.{file_name}", tensor)
        elif not _ANCHORS.search(name):
            plain[file_name] = tensor
    renamed = {_renamed(name, _TO_OURS, source): tensor for name, tensor in plain.items()}
    return dict(_joined(renamed, source))


def _joined(state: Mapping[str, Tensor], source: str) -> Iterator[tuple[str, Tensor]]:
    """Join `q_proj`, `k_proj` and `v_proj` to `in_proj`."""
    for name, tensor in state.items():
        match = re.fullmatch(r"(.*\.self_attn\.)([qkv])_proj\.(weight|bias)", name)
        if match is None:
            yield name, tensor
        elif match[2] == "q":
            names = [f"{match[1]}{part}_proj.{match[3]}" for part in "qkv"]
            missing = [each for each in names if each not in state]
            if missing:
                raise CheckpointError(
                    f"{source}: the weights of {missing[0]!r} are missing; save the model again"
                )
            yield f"{match[1]}in_proj_{match[3]}", torch.cat([state[each] for each in names])


def to_theirs(state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Rename our weights, and split the joint projections of each self-attention.

    Args:
        state: of the network, before fusion.
        source: for error messages.

    Returns:
        The weights in the names of files, which all versions of `transformers` read.

    Raises:
        CheckpointError: if a weight has no counterpart.
    """
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"(.*\.self_attn\.)in_proj_(weight|bias)", name)
        if match:
            parts = zip("qkv", tensor.chunk(3), strict=True)
            split |= {f"{match[1]}{part}_proj.{match[2]}": piece for part, piece in parts}
        elif not _ANCHORS.search(name):
            split[name] = tensor
    return {_renamed(name, _TO_THEIRS, source): tensor for name, tensor in split.items()}
