"""The detector: backbone, encoder, decoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...structures import DecoderOutput, Target


class RTDETR(nn.Module):
    """RT-DETR: object detection without tuned anchors and non-maximum suppression.

    Args:
        backbone: image -> feature maps.
        encoder: feature maps -> as many maps of one width.
        decoder: maps (and in training targets) -> predictions.

    Source: arXiv:2304.08069, arXiv:2407.17140.
    """

    def __init__(self, *, backbone: nn.Module, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        # Modules are registered in the order of the published weights.
        self.backbone = backbone
        self.decoder = decoder
        self.encoder = encoder

    def forward(self, images: Tensor, targets: Sequence[Target] | None = None) -> DecoderOutput:
        """Detect objects.

        Args:
            images: [B, 3, H, W] RGB, sides divisible by 32; float 0..1, or uint8 0..255, which is
                scaled here: uint8 needs a quarter of the transfer to the GPU.
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
        """Fuse layers in place for inference; the model can no longer be trained."""
        self.eval()
        for module in list(self.modules()):
            convert = getattr(module, "convert_to_deploy", None)
            if convert is not None:
                convert()
        return self
