"""The detector: backbone, encoder, decoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...structures import DecoderOutput, Target


class RTDETR(nn.Module):
    """RT-DETR: detects objects without anchors to tune and without non-maximum suppression.

    Args:
        backbone: image -> feature maps.
        encoder: feature maps -> as many maps of one width.
        decoder: maps (and in training targets) -> predictions.

    Source: arXiv:2304.08069, arXiv:2407.17140.
    """

    def __init__(self, *, backbone: nn.Module, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        # The order of registration is the order of the published weights, not of the computation.
        self.backbone = backbone
        self.decoder = decoder
        self.encoder = encoder

    def forward(self, images: Tensor, targets: Sequence[Target] | None = None) -> DecoderOutput:
        """Detect objects.

        Args:
            images: [B, 3, H, W] RGB, sides divisible by 32; float 0..1, or uint8 0..255 (it is
                scaled here, on the device: a quarter of the bytes to transfer).
            targets: one per image; needed in training for the denoising queries only.

        Returns:
            See `DecoderOutput`.

        Raises:
            ValueError: if a side is not divisible by 32.
        """
        height, width = images.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(
                f"images are {height}x{width} (height x width); both sides must be divisible by 32"
            )
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        features = self.encoder(self.backbone(images))
        return self.decoder(features, targets)

    def deploy(self) -> "RTDETR":
        """Fuse what can be fused, in place, for inference; the model cannot be trained after it."""
        self.eval()
        for module in list(self.modules()):
            convert = getattr(module, "convert_to_deploy", None)
            if convert is not None:
                convert()
        return self
