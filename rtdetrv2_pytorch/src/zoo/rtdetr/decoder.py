"""The decoder: selects encoder cells as queries and refines their boxes in each layer."""

import copy
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...misc.ranges import Fraction, NonNegativeInt, PositiveInt
from ...misc.text import counted
from ...nn.layers import (
    MLP,
    Activation,
    ConvNormLayer,
    SelfAttention,
    inverse_sigmoid,
    make_activation,
)
from ...structures import DecoderOutput, LayerOutput, Target
from .anchors import anchor_logits
from .deformable_attention import MSDeformableAttention, Sampling
from .denoising import DenoisingQueries, make_denoising_queries
from .query_selection import QuerySelection, gather_rows, select_queries

_INITIAL_SCORE = 0.01  # per class, so that background does not dominate the first losses


class TransformerDecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention and feed-forward layers; post-norm."""

    def __init__(
        self,
        dim: int,
        nhead: int,
        dim_feedforward: int,
        dropout: float,
        activation: Activation,
        num_levels: int,
        num_points: int | Sequence[int],
        cross_attn_method: Sampling,
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, nhead, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = MSDeformableAttention(
            dim, nhead, num_levels, num_points, cross_attn_method
        )
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.act = make_activation(activation)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        reference_boxes: Tensor,
        memory: Tensor,
        level_sizes: Sequence[tuple[int, int]],
        visible: Tensor | None,
    ) -> Tensor:
        """[B, Q, D] queries -> [B, Q, D]; see `MSDeformableAttention` for the other arguments."""
        x = self.norm1(x + self.dropout(self.self_attn(x, position, visible)))
        attended = self.cross_attn(x + position, reference_boxes, memory, level_sizes)
        x = self.norm2(x + self.dropout(attended))
        hidden = self.dropout(self.act(self.linear1(x)))
        return self.norm3(x + self.dropout(self.linear2(hidden)))


class TransformerDecoder(nn.Module):
    """Stack of layers with identical initial weights."""

    def __init__(self, layer: TransformerDecoderLayer, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))


class RTDETRTransformerv2(nn.Module):
    """Decoder of RT-DETRv2 with its heads, query selection and denoising.

    Args:
        num_classes: classes (K); there is no background class.
        hidden_dim: features of a query (D).
        num_queries: queries to select (Q).
        feat_channels: channels of the encoder's maps.
        feat_strides: their strides, finest first.
        num_levels: levels to attend to; levels beyond the number of maps are coarser ones.
        num_points: sampling points per head, for each level or one number for all.
        nhead: attention heads.
        num_layers: decoder layers.
        dim_feedforward: inner width of a layer.
        dropout: fraction dropped in training.
        activation: activation of a layer.
        num_denoising: target number of positive denoising queries; 0 disables denoising.
        label_noise_ratio: twice the fraction of denoising labels replaced by a random one.
        box_noise_scale: maximum shift of a denoising corner in half box sides.
        learn_query_content: learn the queries' content instead of taking the encoder's.
        eval_spatial_size: (height, width) of evaluation images, for which anchors are precomputed.
            Other sizes work, too.
        eval_idx: layer whose output is used in evaluation; negative counts from the end.
        eps: minimum distance of valid anchors from the image border.
        aux_loss: whether to return the outputs of all layers in training.
        cross_attn_method: "discrete" needs no GridSample at inference.
        query_select_method: how cells are ranked.

    Source: arXiv:2304.08069, arXiv:2407.17140.
    """

    anchors: Tensor
    valid_mask: Tensor

    def __init__(
        self,
        *,
        num_classes: PositiveInt = 80,
        hidden_dim: PositiveInt = 256,
        num_queries: PositiveInt = 300,
        feat_channels: Sequence[int] = (512, 1024, 2048),
        feat_strides: Sequence[int] = (8, 16, 32),
        num_levels: PositiveInt = 3,
        num_points: int | list[int] = 4,
        nhead: PositiveInt = 8,
        num_layers: PositiveInt = 6,
        dim_feedforward: PositiveInt = 1024,
        dropout: Fraction = 0.0,
        activation: Activation = "relu",
        num_denoising: NonNegativeInt = 100,
        label_noise_ratio: float = 0.5,
        box_noise_scale: float = 1.0,
        learn_query_content: bool = False,
        eval_spatial_size: tuple[int, int] | None = None,
        eval_idx: int = -1,
        eps: float = 1e-2,
        aux_loss: bool = True,
        cross_attn_method: Sampling = "default",
        query_select_method: QuerySelection = "default",
    ) -> None:
        super().__init__()
        if num_levels < len(feat_channels):
            raise ValueError(
                f"num_levels {num_levels} is less than {counted(len(feat_channels), 'map')}"
            )
        if not -num_layers <= eval_idx < num_layers:
            raise ValueError(
                f"eval_idx {eval_idx}: of {counted(num_layers, 'layer')}, give one from "
                f"{-num_layers} to {num_layers - 1}"
            )
        self.num_classes = num_classes
        self.num_queries = num_queries
        self.eval_idx = eval_idx % num_layers
        self.anchor_margin = eps
        self.aux_loss = aux_loss
        self.query_select_method = query_select_method
        self.num_denoising = num_denoising
        self.label_noise_ratio = label_noise_ratio
        self.box_noise_scale = box_noise_scale

        self._anchored_sizes: list[tuple[int, int]] | None = None
        if eval_spatial_size is not None:
            strides = [*feat_strides]
            while len(strides) < num_levels:
                strides.append(strides[-1] * 2)
            height, width = eval_spatial_size
            self._anchored_sizes = [(height // s, width // s) for s in strides]
            anchors, valid_mask = anchor_logits(self._anchored_sizes, margin=eps)
            self.register_buffer("anchors", anchors)
            self.register_buffer("valid_mask", valid_mask)

        self.input_proj = nn.ModuleList(ConvNormLayer(c, hidden_dim, 1) for c in feat_channels)
        for extra in range(num_levels - len(feat_channels)):
            channels = feat_channels[-1] if extra == 0 else hidden_dim
            self.input_proj.append(ConvNormLayer(channels, hidden_dim, 3, 2))
        for input_proj in self.input_proj:
            nn.init.xavier_uniform_(cast(ConvNormLayer, input_proj).conv.weight)

        layer = TransformerDecoderLayer(
            hidden_dim,
            nhead,
            dim_feedforward,
            dropout,
            activation,
            num_levels,
            num_points,
            cross_attn_method,
        )
        self.decoder = TransformerDecoder(layer, num_layers)

        if num_denoising > 0:
            # The last row is the padding embedding: zero, without gradient.
            self.denoising_class_embed = nn.Embedding(
                num_classes + 1, hidden_dim, padding_idx=num_classes
            )
        self.learn_query_content = learn_query_content
        if learn_query_content:
            self.tgt_embed = nn.Embedding(num_queries, hidden_dim)
            nn.init.xavier_uniform_(self.tgt_embed.weight)
        self.query_pos_head = MLP(4, 2 * hidden_dim, hidden_dim, num_layers=2)
        for linear in self.query_pos_head.layers:
            nn.init.xavier_uniform_(cast(nn.Linear, linear).weight)

        proj = nn.Linear(hidden_dim, hidden_dim)
        nn.init.xavier_uniform_(proj.weight)
        self.enc_output = nn.Sequential(OrderedDict(proj=proj, norm=nn.LayerNorm(hidden_dim)))
        score_classes = 1 if query_select_method == "agnostic" else num_classes
        self.enc_score_head = _score_head(hidden_dim, score_classes)
        self.enc_bbox_head = _bbox_head(hidden_dim)
        self.dec_score_head = nn.ModuleList(
            _score_head(hidden_dim, num_classes) for _ in range(num_layers)
        )
        self.dec_bbox_head = nn.ModuleList(_bbox_head(hidden_dim) for _ in range(num_layers))

    @property
    def class_keys(self) -> list[str]:
        """Return the names of tensors with one row per class; the embedding has one more row."""
        heads = ["enc_score_head"] if self.query_select_method != "agnostic" else []
        heads += [f"dec_score_head.{i}" for i in range(len(self.dec_score_head))]
        keys = [f"{head}.{kind}" for head in heads for kind in ("weight", "bias")]
        return keys + (["denoising_class_embed.weight"] if self.num_denoising > 0 else [])

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Published files contain anchors, but they depend only on the input size: keep our own,
        # so that checkpoints of other sizes load.
        for name in ("anchors", "valid_mask"):
            state_dict.pop(prefix + name, None)
            if self._anchored_sizes is not None:
                state_dict[prefix + name] = getattr(self, name)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(
        self, features: Sequence[Tensor], targets: Sequence[Target] | None = None
    ) -> DecoderOutput:
        """Detect in the encoder's maps.

        Args:
            features: one [B, C, H, W] per map, finest first.
            targets: one per image, for the denoising queries; used in training only.

        Returns:
            Training: all layers, the selected anchors, the denoising queries. Evaluation: the
            predictions of layer `eval_idx`.
        """
        memory, level_sizes = self._flatten(features)
        content, reference_logits, selected = self._select(memory, level_sizes)

        denoising: DenoisingQueries | None = None
        if self.training and self.num_denoising > 0 and targets is not None:
            denoising = make_denoising_queries(
                targets,
                self.denoising_class_embed,
                num_queries=content.shape[1],
                num_denoising=self.num_denoising,
                label_noise_ratio=self.label_noise_ratio,
                box_noise_scale=self.box_noise_scale,
            )
            content = torch.cat((denoising.content.to(content.dtype), content), dim=1)
            reference_logits = torch.cat((denoising.reference_logits, reference_logits), dim=1)

        layers = self._refine(
            content,
            reference_logits.sigmoid(),
            memory,
            level_sizes,
            denoising.visible if denoising else None,
        )
        return self._collect(layers, selected, denoising)

    def _flatten(self, features: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Project all maps to D channels and flatten them; return [B, S, D] and the sizes."""
        maps = [proj(feature) for proj, feature in zip(self.input_proj, features, strict=False)]
        for i, proj in enumerate(self.input_proj[len(features) :]):
            maps.append(proj(features[-1] if i == 0 else maps[-1]))
        sizes = [(m.shape[2], m.shape[3]) for m in maps]
        return torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1), sizes

    def _anchors(
        self, level_sizes: list[tuple[int, int]], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        if level_sizes == self._anchored_sizes:
            return self.anchors, self.valid_mask
        return anchor_logits(level_sizes, margin=self.anchor_margin, device=device)

    def _select(
        self, memory: Tensor, level_sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor, LayerOutput]:
        """Select the queries.

        Returns:
            content: [B, Q, D], without gradient to the encoder unless learned.
            reference_logits: [B, Q, 4] float32, detached.
            selected: predictions of the encoder at the selected cells.
        """
        anchors, valid = self._anchors(level_sizes, memory.device)
        cells = memory * valid.to(memory.dtype)
        # Losses depend on the selected cells only, so the others need no backward pass.
        with torch.no_grad():
            scores = self.enc_score_head(self.enc_output(cells))
            indices = select_queries(scores, self.num_queries, self.query_select_method)
        if self.training:
            # Autocast reuses weights that were cast above, and those have no gradient.
            torch.clear_autocast_cache()
        chosen = self.enc_output(gather_rows(cells, indices))
        selected_anchors = gather_rows(anchors.expand(memory.shape[0], -1, -1), indices)
        box_logits = self.enc_bbox_head(chosen).float() + selected_anchors
        selected: LayerOutput = {
            "pred_logits": self.enc_score_head(chosen),
            "pred_boxes": box_logits.sigmoid(),
        }
        content = chosen.detach()
        if self.learn_query_content:
            content = self.tgt_embed.weight[None, : chosen.shape[1]].expand_as(chosen)
        return content, box_logits.detach(), selected

    def _refine(
        self,
        x: Tensor,
        reference: Tensor,
        memory: Tensor,
        level_sizes: list[tuple[int, int]],
        visible: Tensor | None,
    ) -> list[LayerOutput]:
        """Run the layers and return their outputs; in evaluation, only of layer `eval_idx`."""
        outputs: list[LayerOutput] = []
        previous: Tensor | None = None
        for i, layer in enumerate(self.decoder.layers):
            position = self.query_pos_head(reference)
            x = layer(x, position, reference, memory, level_sizes, visible)
            delta = self.dec_bbox_head[i](x).float()
            refined = (delta + inverse_sigmoid(reference)).sigmoid()
            if self.training:
                # Look forward twice: the loss of a layer also reaches the box head of the layer
                # before, through its refined box.
                boxes = (
                    refined if previous is None else (delta + inverse_sigmoid(previous)).sigmoid()
                )
                outputs.append({"pred_logits": self.dec_score_head[i](x), "pred_boxes": boxes})
            elif i == self.eval_idx:
                return [{"pred_logits": self.dec_score_head[i](x), "pred_boxes": refined}]
            previous, reference = refined, refined.detach()
        return outputs

    def _collect(
        self,
        layers: list[LayerOutput],
        selected: LayerOutput,
        denoising: DenoisingQueries | None,
    ) -> DecoderOutput:
        """Build the output, with denoising queries separated from matching queries."""
        noisy: list[LayerOutput] = []
        if denoising is not None:
            parts = [_split_queries(layer, denoising.meta["dn_num_split"]) for layer in layers]
            noisy, layers = [p[0] for p in parts], [p[1] for p in parts]

        output: DecoderOutput = {
            "pred_logits": layers[-1]["pred_logits"],
            "pred_boxes": layers[-1]["pred_boxes"],
        }
        if self.training and self.aux_loss:
            output["aux_outputs"] = layers[:-1]
            output["enc_aux_outputs"] = [selected]
            output["enc_meta"] = {"class_agnostic": self.query_select_method == "agnostic"}
            if denoising is not None:
                output["dn_aux_outputs"] = noisy
                output["dn_meta"] = denoising.meta
        return output


def _split_queries(layer: LayerOutput, sizes: list[int]) -> list[LayerOutput]:
    logits = layer["pred_logits"].split(sizes, dim=1)
    boxes = layer["pred_boxes"].split(sizes, dim=1)
    return [{"pred_logits": a, "pred_boxes": b} for a, b in zip(logits, boxes, strict=True)]


def _score_head(hidden_dim: int, num_classes: int) -> nn.Linear:
    head = nn.Linear(hidden_dim, num_classes)
    nn.init.constant_(head.bias, -math.log((1 - _INITIAL_SCORE) / _INITIAL_SCORE))
    return head


def _bbox_head(hidden_dim: int) -> MLP:
    head = MLP(hidden_dim, hidden_dim, 4, num_layers=3)
    last = cast(nn.Linear, head.layers[-1])
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return head
