"""Color changes of uint8 images, equal to torchvision's functions of the same names."""

from dataclasses import dataclass

import torch
from torch import Tensor

_GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma


@dataclass(frozen=True)
class PhotometricChange:
    """A color change; None disables a part.

    The order is: brightness, contrast (if first), saturation, hue, contrast (if last), channels.
    """

    brightness: float | None = None  # factor
    contrast: float | None = None  # factor of the distance to the mean gray
    contrast_first: bool = True
    mean_gray: float = 0.0  # of the whole image, for contrast
    saturation: float | None = None  # factor of the distance to the pixel's own gray
    hue: float | None = None  # shift as a fraction of the color circle, -0.5..0.5
    permutation: tuple[int, ...] | None = None  # of the channels

    def __call__(self, image: Tensor) -> Tensor:
        """Apply to [3, H, W] uint8."""
        table = torch.arange(256.0)
        if self.brightness is not None:
            table = _truncate(table * self.brightness)
        if self.contrast_first:
            table = self._adjust_contrast(table)
        image = _look_up(image, table)
        if self.saturation is not None:
            image = adjust_saturation(image, self.saturation)
        if self.hue is not None:
            image = adjust_hue(image, self.hue)
        if not self.contrast_first:
            image = _look_up(image, self._adjust_contrast(torch.arange(256.0)))
        if self.permutation is not None:
            image = image[list(self.permutation)]
        return image

    def _adjust_contrast(self, table: Tensor) -> Tensor:
        if self.contrast is None:
            return table
        mean = min(self.mean_gray * (self.brightness or 1.0), 255.0)
        return _truncate(table * self.contrast + (1 - self.contrast) * mean)


def _truncate(values: Tensor) -> Tensor:
    """Clamp to 0..255 and round down, like a conversion to uint8."""
    return values.clamp(0, 255).floor()


def _look_up(image: Tensor, table: Tensor) -> Tensor:
    """Replace every value of a uint8 image by its entry in a table of 256 values."""
    if torch.equal(table, torch.arange(256.0)):
        return image
    flat = table.to(torch.uint8).index_select(0, image.reshape(-1).int())
    return flat.view(image.shape)


def gray(image: Tensor) -> Tensor:
    """Return the luma of a [3, H, W] uint8 image: [H, W] float32, rounded down."""
    red, green, blue = image.unbind(0)
    luma = red.mul(_GRAY[0]).add_(green, alpha=_GRAY[1]).add_(blue, alpha=_GRAY[2])
    return luma.floor_()


def adjust_saturation(image: Tensor, factor: float) -> Tensor:
    """Scale the distance of every pixel to its own gray."""
    moved = image.mul(factor).add_(gray(image), alpha=1 - factor)
    return moved.clamp_(0, 255).to(torch.uint8)


def adjust_hue(image: Tensor, shift: float) -> Tensor:
    """Shift the hue by a fraction of the color circle; value and saturation of HSV stay."""
    red, green, blue = image.contiguous().float().unbind(0)
    highest = torch.maximum(torch.maximum(red, green), blue)
    lowest = torch.minimum(torch.minimum(red, green), blue)
    chroma = highest - lowest
    scale = 1 / chroma.clamp(min=1)

    # Hue in sixths of the circle: red at 0, green at 2, blue at 4.
    hue = torch.where(
        highest == red,
        (green - blue) * scale,
        torch.where(highest == green, (blue - red) * scale + 2, (red - green) * scale + 4),
    )
    hue = torch.remainder(hue + 6 * shift, 6)

    # A channel has its maximum within one sixth of its own hue, its minimum beyond two sixths.
    shares = (
        (hue - 3).abs_().sub_(1).clamp_(0, 1),
        (hue - 2).abs_().neg_().add_(2).clamp_(0, 1),
        (hue - 4).abs_().neg_().add_(2).clamp_(0, 1),
    )
    out = torch.empty_like(image, memory_format=torch.contiguous_format)
    for channel, share in enumerate(shares):
        out[channel] = torch.addcmul(lowest, chroma, share)
    return out
