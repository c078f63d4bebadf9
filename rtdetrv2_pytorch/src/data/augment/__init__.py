"""Augmentation of samples (an image with its boxes), by the names that YAML files use."""

from .box_transforms import ConvertBoxes, SanitizeBoundingBoxes
from .compose import Compose, Policy
from .cropping import RandomCrop, RandomIoUCrop
from .geometric import PadToSize, RandomHorizontalFlip, RandomZoomOut, Resize
from .mosaic import Mosaic
from .photometric import Normalize, RandomPhotometricDistort
from .sample import Sample
from .transform import ConvertPILImage, EmptyTransform, Transform

__all__ = [
    "Compose",
    "ConvertBoxes",
    "ConvertPILImage",
    "EmptyTransform",
    "Mosaic",
    "Normalize",
    "PadToSize",
    "Policy",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomIoUCrop",
    "RandomPhotometricDistort",
    "RandomZoomOut",
    "Resize",
    "Sample",
    "SanitizeBoundingBoxes",
    "Transform",
]
