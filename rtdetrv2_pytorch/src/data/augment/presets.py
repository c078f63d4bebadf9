"""Augmentation presets for kinds of pictures: operations as in a YAML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

AugmentationName = Literal[
    "photos", "aerial", "microscopy", "documents", "industrial", "light", "none"
]
Op = Mapping[str, Any]

# Operations that are not augmentation: a preset keeps those of the model's configuration.
_FIXED = ("Resize", "PadToSize", "Normalize", "ConvertPILImage", "ConvertBoxes")
# Operations that remain in the last epochs, because the results look like validation images.
_ALWAYS = ("RandomHorizontalFlip", "RandomVerticalFlip", "RandomQuarterTurn")
_SANITIZE: Op = {"type": "SanitizeBoundingBoxes", "min_size": 1}


@dataclass(frozen=True)
class Preset:
    """Operations for a kind of pictures.

    Attributes:
        summary: for which images.
        before: operations before `Resize`.
        after: operations on the pixels of the result.
    """

    summary: str
    before: Sequence[Op] = ()
    after: Sequence[Op] = ()


def _colors(
    p: float,
    *,
    brightness: tuple[float, float] = (0.8, 1.2),
    contrast: tuple[float, float] = (0.7, 1.3),
    saturation: tuple[float, float] = (1.0, 1.0),
    hue: float = 0.0,
) -> Op:
    return {
        "type": "RandomPhotometricDistort",
        "brightness": list(brightness),
        "contrast": list(contrast),
        "saturation": list(saturation),
        "hue": [-hue, hue] if hue else [0.0, 0.0],
        "p": p,
        "permute": False,
    }


_FLIP: Op = {"type": "RandomHorizontalFlip"}

PRESETS: dict[AugmentationName, Preset] = {
    "photos": Preset(
        "Photographs of everyday scenes and videos: large changes of scale, position and color.",
        before=(
            _colors(0.4, contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=0.05),
            {"type": "RandomGrayscale", "p": 0.05},
            {"type": "RandomZoomOut", "fill": 0},
            {"type": "RandomIoUCrop", "p": 0.8},
            _FLIP,
        ),
        after=(
            {"type": "RandomBlur", "radius": [0.5, 1.5], "p": 0.05},
            {"type": "RandomJPEG", "quality": [40, 90], "p": 0.1},
        ),
    ),
    "aerial": Preset(
        "Satellite and drone images from above: any direction, similar scale.",
        before=(
            _colors(0.4, saturation=(0.8, 1.2)),
            {"type": "RandomZoomOut", "fill": 0, "side_range": [1.0, 2.0], "p": 0.3},
            {"type": "RandomIoUCrop", "min_scale": 0.5, "p": 0.5},
            _FLIP,
            {"type": "RandomQuarterTurn"},
            {"type": "RandomAffine", "degrees": 10.0, "p": 0.1},
        ),
        after=({"type": "RandomBlur", "radius": [0.5, 1.0], "p": 0.05},),
    ),
    "microscopy": Preset(
        "Cells and particles: any direction; small changes of stain, focus and noise.",
        before=(
            _colors(0.3, saturation=(0.8, 1.2)),
            {"type": "RandomIoUCrop", "min_scale": 0.5, "p": 0.5},
            _FLIP,
            {"type": "RandomQuarterTurn"},
        ),
        after=(
            {"type": "RandomBlur", "radius": [0.5, 1.5], "p": 0.1},
            {"type": "RandomNoise", "std": [2.0, 8.0], "p": 0.1},
        ),
    ),
    "documents": Preset(
        "Scans and photographs of pages: never mirrored; slightly skewed, gray, compressed.",
        before=(
            _colors(0.4),
            {"type": "RandomGrayscale", "p": 0.2},
            {"type": "RandomIoUCrop", "min_scale": 0.5, "p": 0.3},
            {
                "type": "RandomAffine",
                "degrees": 3.0,
                "translate": [0.03, 0.03],
                "scale": [0.9, 1.05],
                "shear": 2.0,
                "fill": 255,
                "p": 0.15,
            },
        ),
        after=(
            {"type": "RandomBlur", "radius": [0.5, 1.0], "p": 0.05},
            {"type": "RandomNoise", "std": [2.0, 10.0], "p": 0.05},
            {"type": "RandomJPEG", "quality": [30, 90], "p": 0.1},
        ),
    ),
    "industrial": Preset(
        "Fixed cameras in production: small shifts, changes of light, focus and sensor noise.",
        before=(
            _colors(0.5),
            {"type": "RandomIoUCrop", "min_scale": 0.6, "p": 0.3},
            _FLIP,
            {"type": "RandomVerticalFlip"},
            {
                "type": "RandomAffine",
                "degrees": 5.0,
                "translate": [0.05, 0.05],
                "scale": [0.9, 1.1],
                "p": 0.15,
            },
        ),
        after=(
            {"type": "RandomBlur", "radius": [0.5, 1.5], "p": 0.05},
            {"type": "RandomNoise", "std": [2.0, 10.0], "p": 0.1},
        ),
    ),
    "light": Preset(
        "Short trainings: mirrored, with small changes of light.",
        before=(_colors(0.5), _FLIP),
    ),
    "none": Preset("Images as they are."),
}


def _is_fixed(op: Any) -> bool:
    return isinstance(op, Mapping) and op.get("type") in _FIXED


def preset_ops(name: AugmentationName, ops: Sequence[Op]) -> list[dict[str, Any]]:
    """Return a pipeline whose augmentations are those of a preset.

    Args:
        name: of the preset.
        ops: pipeline with a `Resize`, whose other operations are kept.
    """
    preset, kept = PRESETS[name], [op for op in ops if _is_fixed(op)]
    end = 1 + max(i for i, op in enumerate(kept) if op["type"] in ("Resize", "PadToSize"))
    middle = [*kept[:end], _SANITIZE, *preset.after]
    return [dict(op) for op in (*preset.before, _SANITIZE, *middle, *kept[end:])]


def stopped_ops(name: AugmentationName) -> list[str]:
    """Return the types of operations of a preset that are disabled in the last epochs."""
    preset = PRESETS[name]
    types = dict.fromkeys(op["type"] for op in (*preset.before, *preset.after))
    return [each for each in types if each not in _ALWAYS]
