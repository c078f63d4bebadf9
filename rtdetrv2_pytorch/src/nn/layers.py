"""Small building blocks shared by the backbones, the encoder and the decoder.

Attribute names are part of the published weights' format (`conv`, `norm`, `layers`, ...).
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 (conventional name)
from torch import Tensor, nn

Activation = Literal["relu", "silu", "gelu", "leaky_relu"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "leaky_relu": lambda: nn.LeakyReLU(inplace=True),
}


def make_activation(name: Activation | None) -> nn.Module:
    """Build an activation by name; None is the identity."""
    return nn.Identity() if name is None else _ACTIVATIONS[name]()


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine parameters never change.

    All four tensors are buffers: the optimizer ignores them, but checkpoints and the EMA model
    include them.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize [B, C, H, W], identically in training and evaluation."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # nn.BatchNorm2d also saves a counter, which a frozen norm does not have.
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def freeze_batch_norms(module: nn.Module) -> nn.Module:
    """Replace every batch norm below `module` by a frozen one with the same values."""
    if isinstance(module, nn.BatchNorm2d):
        frozen = FrozenBatchNorm2d(module.num_features, module.eps)
        frozen.load_state_dict(module.state_dict())
        return frozen
    for name, child in module.named_children():
        setattr(module, name, freeze_batch_norms(child))
    return module


def check_stages(return_idx: Sequence[int], count: int) -> list[int]:
    """Return the stages whose maps a backbone returns.

    Raises:
        ValueError: if a stage does not exist, or the order is not ascending.
    """
    chosen = list(return_idx)
    if not chosen or chosen != sorted({i for i in chosen if 0 <= i < count}):
        raise ValueError(
            f"return_idx = {chosen}: give stages from 0 to {count - 1} in ascending order"
        )
    return chosen


@torch.no_grad()
def fuse_conv_and_norm(conv: nn.Conv2d, norm: Any) -> nn.Conv2d:
    """Fold a batch norm in evaluation mode into the convolution without bias before it.

    Returns:
        A convolution with bias that computes norm(conv(x)), not trainable.
    """
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    fused = copy.deepcopy(conv)
    fused.weight = nn.Parameter(conv.weight * scale[:, None, None, None])
    fused.bias = nn.Parameter(norm.bias - norm.running_mean * scale)
    return fused.requires_grad_(False)


def _channels_last(gradient: Tensor) -> Tensor:
    """Convert a gradient to the memory format in which batch norm is fast.

    The gradient of a concatenation is a slice in neither contiguous format.
    """
    return gradient.contiguous(memory_format=torch.channels_last)


class ConvNormLayer(nn.Module):
    """Convolution without bias, batch norm, activation; padding keeps the size at stride 1."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        act: Activation | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=(kernel_size - 1) // 2,
            bias=False,
        )
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H / stride, W / stride]."""
        x = self.norm(self.conv(x))
        if x.requires_grad and not torch.compiler.is_compiling():
            x.register_hook(_channels_last)
        return self.act(x)

    def convert_to_deploy(self) -> None:
        """Fold the norm into the convolution."""
        if not isinstance(self.norm, nn.Identity):
            self.conv = fuse_conv_and_norm(self.conv, self.norm)
            self.norm = nn.Identity()


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        dims = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        self.layers = nn.ModuleList(nn.Linear(dims[i], dims[i + 1]) for i in range(num_layers))

    def forward(self, x: Tensor) -> Tensor:
        """[..., input_dim] -> [..., output_dim]."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class SelfAttention(nn.Module):
    """Multi-head self-attention that adds a positional embedding to queries and keys only.

    Names, shapes and initialization of the parameters match `nn.MultiheadAttention`. Queries and
    keys are projected together because both come from the same input.

    Args:
        embed_dim: features of a token (D).
        num_heads: attention heads (M).
        dropout: fraction of attention weights dropped in training.

    Raises:
        ValueError: if `num_heads` does not divide `embed_dim`.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"{num_heads} heads: give a number that divides {embed_dim} features")
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, position: Tensor, visible: Tensor | None = None) -> Tensor:
        """Apply self-attention.

        Args:
            x: [B, S, D] tokens.
            position: [B or 1, S, D], added to queries and keys, not to values.
            visible: [S, S] bool, True where token i attends to token j; None: everywhere.

        Returns:
            [B, S, D].
        """
        batch, length, dim = x.shape
        weight_qk, weight_v = self.in_proj_weight.split([2 * dim, dim])
        bias_qk, bias_v = self.in_proj_bias.split([2 * dim, dim])
        heads = (batch, length, -1, self.num_heads, dim // self.num_heads)
        query_key = F.linear(x + position, weight_qk, bias_qk).view(heads).permute(2, 0, 3, 1, 4)
        value = F.linear(x, weight_v, bias_v).view(heads)[:, :, 0].transpose(1, 2)
        query, key = query_key.unbind()
        dropout = self.dropout if self.training else 0.0
        if x.device.type == "cpu" and x.requires_grad and value.dtype != torch.float32:
            out = _plain_attention(query, key, value, visible, dropout)
        else:
            out = F.scaled_dot_product_attention(
                query, key, value, attn_mask=visible, dropout_p=dropout
            )  # [B, M, S, D/M]
        return self.out_proj(out.transpose(1, 2).reshape(batch, length, dim))


def _plain_attention(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, dropout: float
) -> Tensor:
    """Compute attention with full matrix products.

    In bfloat16 training on a CPU, this takes half the time of torch's function, which processes
    blocks of 32 queries. Scores are rounded to bfloat16, as in the published code.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if visible is not None:
        hidden = torch.zeros_like(visible, dtype=scores.dtype).masked_fill_(~visible, -torch.inf)
        scores = scores + hidden
    return F.dropout(scores.softmax(dim=-1), dropout) @ value


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Return the logit of a probability, clamped to at least 1e-5 from 0 and 1 to stay finite."""
    x = x.clamp(min=0, max=1)
    return torch.log(x.clamp(min=1e-5) / (1 - x).clamp(min=1e-5))
