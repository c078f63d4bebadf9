"""Our network and losses equal an independent implementation, RT-DETRv2 of `transformers`.

`tests/transformers_map.py` copies random weights; both networks get the same images and targets.

Some decisions depend on rounding: the order of queries (top-k of near ties) and the cells that a
point samples (a location on a border). `shared_decisions` first requires that the inputs of these
decisions agree, and then gives both networks ours.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from transformers import RTDetrV2Config, RTDetrV2ForObjectDetection
from transformers.loss.loss_rt_detr import RTDetrLoss
from transformers.models.rt_detr_v2 import modeling_rt_detr_v2 as reference

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.nn.layers import FrozenBatchNorm2d
from rtdetrv2_pytorch.src.zoo.rtdetr.deformable_attention import MSDeformableAttention
from rtdetrv2_pytorch.src.zoo.rtdetr.denoising import make_denoising_queries
from tests.conftest import CONFIGS
from tests.transformers_map import (
    ALIASES,
    ONLY_OURS,
    VARIANTS,
    build_theirs,
    copy_weights,
    to_their_names,
)

SIZE = 160  # 400 + 100 + 25 cells, more than the 300 queries
WIDE = (64, 416)  # 52 cells in a row: the outermost ones have no valid anchors
TOLERANCE = {"rtol": 0.0, "atol": 1e-4}


@dataclass(frozen=True)
class Pair:
    variant: str
    ours: nn.Module
    theirs: RTDetrV2ForObjectDetection
    criterion: nn.Module


def random_images(height: int, width: int) -> Tensor:
    """Two images with large and small structures, 0..1."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(2, 3, height // 16, width // 16, generator=generator)
    fine = torch.rand(2, 3, height, width, generator=generator)
    return 0.6 * nn.functional.interpolate(coarse, size=(height, width)) + 0.4 * fine


def fixed_targets() -> list[dict[str, Tensor]]:
    """Three boxes in the first image, none in the second."""
    boxes = [[0.3, 0.4, 0.2, 0.3], [0.7, 0.6, 0.5, 0.6], [0.55, 0.2, 0.1, 0.08]]
    return [
        {"labels": torch.tensor([3, 61, 3]), "boxes": torch.tensor(boxes)},
        {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)},
    ]


def their_targets(targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{"class_labels": t["labels"], "boxes": t["boxes"]} for t in targets]


@torch.no_grad()
def randomize(model: nn.Module, images: Tensor) -> None:
    """Randomize all tensors and keep the scale of activations.

    Heads and offsets start at zero and norms at one, which would hide missing or swapped tensors.
    Batch norms get the statistics of their input, with noise.
    """
    for name, parameter in model.named_parameters():
        parameter += torch.randn_like(parameter) * (0.2 if parameter.ndim == 1 else 0.02)
        if "score_head" in name and name.endswith("bias"):
            parameter += 2  # scores of several hundredths instead of one

    def set_values(norm: nn.Module, args: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(args[0], dim=(0, 2, 3))
        noise = torch.rand(2, len(mean)) - 0.5
        norm.running_mean.copy_(mean + noise[0] * variance.sqrt())
        norm.running_var.copy_(variance * (1 + noise[1]) + 1e-3)
        norm.weight.copy_(1 + 0.2 * torch.randn_like(mean))
        # Around 1: with centered activations, a deep random network multiplies rounding errors by
        # 1000 (measured for r101), with these by 5.
        norm.bias.copy_(1 + 0.2 * torch.randn_like(mean))

    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(set_values) for norm in norms]
    model.eval()(images)
    for hook in hooks:
        hook.remove()


@contextmanager
def shared_decisions(pair: Pair, *, sampling: bool = False) -> Iterator[None]:
    """Use our inputs for the decisions of both networks if they agree; run `ours` first.

    Gradients are unchanged.

    Args:
        pair: the networks.
        sampling: also share the sampling points. Bilinear sampling is continuous but its gradient
            is not, so this is for gradients and for the discrete variant.
    """
    decoder, model = pair.ours.decoder, pair.theirs.model
    recorded: dict[str, Tensor] = {}

    def record(key: str, value: Tensor) -> None:
        # The first call: ours scores every cell, like theirs, and then the selected ones again.
        recorded.setdefault(key, value.detach())

    def agreed(key: str, value: Tensor) -> Tensor:
        mine = recorded.pop(key)
        torch.testing.assert_close(value, mine, **TOLERANCE)
        return value + (mine - value).detach()

    def follow(key: str, ours: nn.Module, theirs: nn.Module) -> list:
        return [
            ours.register_forward_hook(lambda _m, _args, out: record(key, out)),
            theirs.register_forward_hook(lambda _m, _args, out: agreed(key, out)),
        ]

    def follow_boxes(key: str, ours: nn.Module, theirs: nn.Module) -> list:
        def replace(_m, args, kwargs):
            boxes = agreed(key, kwargs["reference_points"])
            return args, kwargs | {"reference_points": boxes}

        return [
            ours.register_forward_pre_hook(lambda _m, args: record(key, args[1][:, :, None])),
            theirs.register_forward_pre_hook(replace, with_kwargs=True),
        ]

    hooks = follow("scores", decoder.enc_score_head, model.enc_score_head)
    if sampling or pair.theirs.config.decoder_method == "discrete":
        layers = zip(decoder.decoder.layers, model.decoder.layers, strict=True)
        for i, (mine, other) in enumerate(layers):
            ours, theirs = mine.cross_attn, other.encoder_attn
            hooks += follow(f"offsets {i}", ours.sampling_offsets, theirs.sampling_offsets)
            hooks += follow_boxes(f"boxes {i}", ours, theirs)
    try:
        yield
        assert not recorded, f"unused: {recorded.keys()}"
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def training(pair: Pair) -> Iterator[None]:
    """Training mode; restores weights, statistics and gradients."""
    networks = (pair.ours, pair.theirs)
    saved = [{k: v.clone() for k, v in network.state_dict().items()} for network in networks]
    for network in networks:
        network.train()
    try:
        yield
    finally:
        for network, state in zip(networks, saved, strict=True):
            network.zero_grad()
            network.eval().load_state_dict(state)


@contextmanager
def double_precision_up_to_the_decoder(pair: Pair) -> Iterator[None]:
    """Backbone and encoder in float64.

    In float32, rounding changes the sign of many inputs of ReLUs in deep backbones, so that
    gradients differ by 1 %.
    """

    def to_float(_m, _args, out):
        maps = out if isinstance(out, list) else out.last_hidden_state
        maps[:] = [m.float() for m in maps]
        return out

    model = pair.theirs.model
    encoders = (pair.ours.encoder, model.encoder)
    parts = (pair.ours.backbone, model.backbone, model.encoder_input_proj, *encoders)
    hooks = [encoder.register_forward_hook(to_float) for encoder in encoders]
    for part in parts:
        part.double()
    try:
        yield
    finally:
        for part in parts:
            part.float()
        for hook in hooks:
            hook.remove()


def our_config(variant: str) -> YAMLConfig:
    """Return a published configuration without pretrained weights and denoising."""
    return YAMLConfig(
        CONFIGS / f"rtdetrv2_{variant}_coco.yml",
        tuning=None,
        PResNet={"pretrained": False},
        HGNetv2={"pretrained": False},
        RTDETRTransformerv2={"num_denoising": 0},
        eval_spatial_size=[SIZE, SIZE],
    )


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request) -> Pair:
    """Both networks with the same random weights."""
    torch.manual_seed(0)
    config = our_config(request.param)
    ours, theirs = config.model, build_theirs(request.param)
    randomize(ours, random_images(SIZE, SIZE))
    copy_weights(ours, theirs)
    return Pair(request.param, ours.eval(), theirs.eval(), config.criterion)


def their_loss(theirs: RTDetrV2ForObjectDetection, outputs, targets) -> Tensor:
    """Return their loss with the gradient of the published training code; the value is the same.

    `transformers` refines a detached box also for the loss. The published code refines the box of
    the previous layer with its gradient ("look forward twice"), so that a layer also learns from
    the loss of the next one.
    """
    boxes = [outputs.intermediate_reference_points[:, 0]]
    for i in range(1, theirs.config.decoder_layers):
        delta = theirs.bbox_embed[i](outputs.intermediate_hidden_states[:, i])
        previous = outputs.intermediate_reference_points[:, i - 1]
        boxes.append((delta + reference.inverse_sigmoid(previous)).sigmoid())
    loss, _, _ = theirs.loss_function(
        outputs.logits,
        their_targets(targets),
        outputs.logits.device,
        boxes[-1],
        theirs.config,
        outputs.intermediate_logits,
        torch.stack(boxes, dim=1),
        enc_topk_logits=outputs.enc_topk_logits,
        enc_topk_bboxes=outputs.enc_topk_bboxes,
    )
    torch.testing.assert_close(loss, outputs.loss)
    return loss


# Mapping


def test_weights_map_one_to_one(pair):
    ours, theirs = pair.ours.state_dict(), pair.theirs.state_dict()
    assert ours.keys() > ONLY_OURS
    mapped = to_their_names({k: v for k, v in ours.items() if k not in ONLY_OURS})
    aliases = {k for k in theirs if k.startswith(ALIASES)}
    assert mapped.keys() == theirs.keys() - aliases
    for name, tensor in mapped.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=0)
    for name in aliases:
        assert theirs[name].data_ptr() == theirs[f"model.decoder.{name}"].data_ptr()


def test_two_tensors_with_one_name_are_rejected():
    weight = torch.zeros(1)
    names = ("encoder.encoder.0.layers.0.norm2.bias", "encoder.aifi.0.layers.0.norm2.bias")
    with pytest.raises(ValueError, match=r"final_layer_norm\.bias has a tensor already"):
        to_their_names(dict.fromkeys(names, weight))


def test_missing_tensor_is_named():
    ours = nn.Module()
    ours.encoder = nn.Module()
    ours.encoder.lateral_convs = nn.Linear(1, 1)
    theirs = nn.Module()
    theirs.model = nn.Module()
    theirs.model.encoder = nn.Module()
    theirs.model.encoder.lateral_convs = nn.Linear(1, 1, bias=False)
    with pytest.raises(ValueError, match=r"one network: \['model.encoder.lateral_convs.bias'\]"):
        copy_weights(ours, theirs)


# Evaluation


@torch.no_grad()
def test_backbone_maps_agree(pair):
    images = random_images(SIZE, SIZE)
    ours = pair.ours.backbone(images)
    theirs = pair.theirs.model.backbone.model(images).feature_maps
    assert [m.shape[2:] for m in ours] == [(20, 20), (10, 10), (5, 5)]
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).abs().max() < 1e-5 * other.abs().max()


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(SIZE, SIZE), WIDE])
def test_detections_agree(pair, height, width):
    images = random_images(height, width)
    with shared_decisions(pair):
        ours = pair.ours(images)
        theirs = pair.theirs(images)
    # The comparison is only meaningful if queries and images differ.
    assert ours["pred_logits"].std(dim=1).mean() > 0.15
    assert ours["pred_boxes"].std(dim=1).mean() > 0.1
    assert (ours["pred_boxes"][0] - ours["pred_boxes"][1]).abs().mean() > 0.1
    torch.testing.assert_close(ours["pred_logits"], theirs.logits, **TOLERANCE)
    torch.testing.assert_close(ours["pred_boxes"], theirs.pred_boxes, **TOLERANCE)


@pytest.mark.parametrize("method", ["default", "discrete"])
def test_attention_agrees_outside_uneven_levels(method):
    """Levels of different shapes, and points beyond all four borders."""
    sizes = [(5, 9), (4, 3), (1, 2)]
    ours = MSDeformableAttention(32, 4, 3, 2, method)
    config = RTDetrV2Config(
        d_model=32, decoder_attention_heads=4, decoder_n_points=2, decoder_method=method
    )
    theirs = reference.RTDetrV2MultiscaleDeformableAttention(config)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=0.5)
    state = ours.state_dict()
    state["n_points_scale"] = state.pop("num_points_scale")
    theirs.load_state_dict(state)

    query, boxes = torch.randn(2, 50, 32), torch.rand(2, 50, 4)
    memory = torch.randn(2, sum(h * w for h, w in sizes), 32)
    mine = ours(query, boxes, memory, sizes)
    other, _ = theirs(
        query,
        encoder_hidden_states=memory,
        reference_points=boxes[:, :, None],
        spatial_shapes=torch.tensor(sizes),
        spatial_shapes_list=sizes,
    )
    torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


# Training


@torch.no_grad()
def test_losses_and_running_statistics_agree(pair):
    """Their auxiliary outputs are all decoder layers except the last, then the query selection."""
    layers = pair.theirs.config.decoder_layers
    suffixes = {"": "", "_enc_0": f"_aux_{layers - 1}"}
    suffixes |= {f"_aux_{i}": f"_aux_{i}" for i in range(layers - 1)}
    their_names = {
        f"{term}{mine}": f"{term}{other}"
        for term in ("loss_vfl", "loss_bbox", "loss_giou")
        for mine, other in suffixes.items()
    }
    images, targets = random_images(SIZE, SIZE), fixed_targets()
    before = to_their_names(dict(pair.ours.named_buffers()))
    before = {k: v.clone() for k, v in before.items() if "running_" in k}

    with training(pair), shared_decisions(pair):
        ours = pair.criterion(pair.ours(images), targets)
        theirs = pair.theirs(images, labels=their_targets(targets)).loss_dict
        assert ours.keys() == their_names.keys()
        assert theirs.keys() == set(their_names.values())
        for mine, other in their_names.items():
            assert ours[mine] > 0.1
            torch.testing.assert_close(ours[mine], theirs[other], rtol=1e-4, atol=1e-4)

        # Frozen norms keep their statistics in both networks; the others change equally.
        after = to_their_names(dict(pair.ours.named_buffers()))
        their_state = pair.theirs.state_dict()
        for name in before:
            torch.testing.assert_close(after[name], their_state[name], rtol=1e-4, atol=1e-4)
        moved = [name for name in before if not torch.equal(before[name], their_state[name])]
        norms = sum(isinstance(m, nn.BatchNorm2d) for m in pair.ours.modules())
        assert len(moved) == 2 * norms > 0


# Parameters that are not trained, by a part of their name in `transformers`. r101 has the same
# modules as r50, so its slow gradients are not compared.
FROZEN = {
    "r18vd_120e": (),
    "r18vd_dsp_3x": (".sampling_offsets.",),
    "r50vd_6x": ("model.backbone.model.embedder.",),
    "hgnetv2_l_6x": ("model.backbone.model.embedder.",),
}
# Their gradients are zero except for rounding: softmax is invariant to a shift of all keys, batch
# norm to a shift of all cells.
WITHOUT_EFFECT = (
    ".self_attn.k_proj.bias",
    "model.encoder_input_proj.0.1.bias",
    "model.encoder_input_proj.1.1.bias",
    "model.encoder.aifi.0.layers.0.final_layer_norm.bias",
)


@pytest.mark.parametrize("pair", FROZEN, indirect=True)
def test_gradients_agree(pair):
    """Gradients of every parameter, for the sum of all terms."""
    images, targets = random_images(SIZE, SIZE).double(), fixed_targets()
    with (
        training(pair),
        shared_decisions(pair, sampling=True),
        double_precision_up_to_the_decoder(pair),
    ):
        sum(pair.criterion(pair.ours(images), targets).values()).backward()
        outputs = pair.theirs(images, labels=their_targets(targets))
        their_loss(pair.theirs, outputs, targets).backward()
        ours = to_their_names(gradients(pair.ours))
        theirs = gradients(pair.theirs)

    frozen = FROZEN[pair.variant]
    trained = {k for k, _ in pair.theirs.named_parameters() if not any(f in k for f in frozen)}
    assert ours.keys() == trained
    for name in sorted(trained):
        size = theirs[name].norm()
        if name.endswith(WITHOUT_EFFECT):
            assert max(ours[name].norm(), size) < 1e-6, name
        else:
            assert size > 1e-4, name
            # Measured 3e-6, and 2e-4 if one input of a ReLU in the decoder changes its sign.
            assert (ours[name] - theirs[name]).norm() < 1e-3 * size, name


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {k: p.grad for k, p in network.named_parameters() if p.grad is not None}


def test_criterion_agrees_on_given_outputs_with_denoising():
    """Losses of three images, one without boxes, with denoising outputs of two layers."""
    torch.manual_seed(3)
    targets = [*fixed_targets(), {"labels": torch.tensor([7]), "boxes": torch.rand(1, 4) / 2 + 0.2}]
    layers, queries, groups = 3, 20, 4
    positive = [(torch.arange(groups)[:, None] * 6 + torch.arange(n)).flatten() for n in (3, 0, 1)]

    def predictions(count: int) -> tuple[Tensor, Tensor]:
        center, size = torch.rand(3, count, 2), torch.rand(3, count, 2) * 0.5 + 0.05
        return torch.randn(3, count, 80), torch.cat((center, size), dim=-1)

    matched = [predictions(queries) for _ in range(layers)]  # the last layer, one before, encoder
    noisy = [predictions(6 * groups) for _ in range(2)]
    meta = {"dn_positive_idx": positive, "dn_num_group": groups}

    def named(outputs, logits_name):
        return [{logits_name: logits, "pred_boxes": boxes} for logits, boxes in outputs]

    last, before, encoder = named(matched, "pred_logits")
    ours = our_config("r18vd_120e").criterion(
        {
            **last,
            "aux_outputs": [before],
            "enc_aux_outputs": [encoder],
            "enc_meta": {"class_agnostic": False},
            "dn_aux_outputs": named(noisy, "pred_logits"),
            "dn_meta": {**meta, "dn_num_split": [6 * groups, queries]},
        },
        targets,
    )
    last, *others = named(matched, "logits")
    theirs = RTDetrLoss(RTDetrV2Config(num_labels=80))(
        {
            **last,
            "auxiliary_outputs": others,
            "dn_auxiliary_outputs": named(noisy, "logits"),
            "denoising_meta_values": meta,
        },
        their_targets(targets),
    )
    assert ours.keys() == {name.replace("_aux_1", "_enc_0") for name in theirs}
    for name, value in theirs.items():
        mine = ours[name.replace("_aux_1", "_enc_0")]
        torch.testing.assert_close(mine, value, rtol=1e-5, atol=1e-5)


def test_denoising_query_layout_agrees():
    """Groups, visibility and content without noise."""
    embedding = nn.Embedding(81, 8, padding_idx=80)
    targets = fixed_targets()
    quiet = {"label_noise_ratio": 0.0, "box_noise_scale": 0.0}
    ours = make_denoising_queries(targets, embedding, num_queries=5, num_denoising=100, **quiet)
    content, boxes, mask, meta = reference.get_contrastive_denoising_training_group(
        their_targets(targets), 80, 5, embedding, **quiet
    )
    assert ours.meta["dn_num_group"] == meta["dn_num_group"] == 33
    assert ours.meta["dn_num_split"] == meta["dn_num_split"]
    for mine, other in zip(ours.meta["dn_positive_idx"], meta["dn_positive_idx"], strict=True):
        assert mine.tolist() == other.tolist()
    assert torch.equal(ours.visible, mask == 0)
    torch.testing.assert_close(ours.content, content, rtol=0, atol=0)
    # Without box noise they skip the conversion to logits.
    torch.testing.assert_close(ours.reference_logits, reference.inverse_sigmoid(boxes))
