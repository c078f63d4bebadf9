"""Repeat-factor sampling: images of rare classes occur several times in an epoch.

As in LVIS (Gupta et al., arXiv:1908.03195): r_c = max(1, sqrt(t / f_c)) for a class in the fraction
f_c of the images, and r_i = max r_c over the classes of an image.
"""

import numpy as np
import torch

from ..annotation_arrays import Annotations

_UNIT = 1 << 20  # repeat factors are multiples of 1 / _UNIT, so that their sums are exact
_RARE = 0.1  # of the images of the most frequent class


def image_fractions(annotations: Annotations) -> np.ndarray:
    """Return the fraction of the images with an object of each class, without crowds: [K]."""
    num_classes = len(annotations.categories)
    owners = np.repeat(np.arange(len(annotations)), annotations.boxes_per_image())
    pairs = np.unique((owners * num_classes + annotations.labels)[annotations.iscrowd == 0])
    counts = np.bincount(pairs % num_classes, minlength=num_classes)
    fractions: np.ndarray = counts / max(len(annotations), 1)
    return fractions


def class_factors(fractions: np.ndarray, threshold: float) -> np.ndarray:
    """Return the repeat factor of each class, 1 for classes without images: [K]."""
    known = np.where(fractions > 0, fractions, np.inf)
    return np.maximum(1.0, np.sqrt(threshold / known))


def repeat_factors(annotations: Annotations, threshold: float) -> np.ndarray:
    """Return how often each image occurs in an epoch on average: [images], 1 or more.

    Args:
        annotations: of the training split.
        threshold: t, the fraction of images below which a class is repeated.
    """
    of_class = class_factors(image_fractions(annotations), threshold)
    factors = np.ones(len(annotations))
    owners = np.repeat(np.arange(len(annotations)), annotations.boxes_per_image())
    is_object = annotations.iscrowd == 0
    np.maximum.at(factors, owners[is_object], of_class[annotations.labels[is_object]])
    return factors


class RepeatedImages:
    """Chooses how often each image occurs in an epoch.

    Each factor is rounded up or down at random, so that its mean is exact. The roundings of an
    epoch depend on each other (systematic sampling), so that all epochs have the same length: the
    sum of the factors, rounded down.

    Args:
        factors: [images] 1 or more.
    """

    def __init__(self, factors: np.ndarray) -> None:
        units = np.ceil(factors * _UNIT - 1e-6)  # up, so that an integer sum does not become less
        self._units = torch.from_numpy(units.astype(np.int64))

    def __len__(self) -> int:
        return int(self._units.sum()) // _UNIT

    def shuffled(self, generator: torch.Generator) -> list[int]:
        """Return the images of an epoch in random order.

        The copies of image i are i, i + images, i + 2 * images, ..., which have different
        augmentations.
        """
        num_images = len(self._units)
        order = torch.randperm(num_images, generator=generator)
        offset = torch.randint(_UNIT, (1,), generator=generator)
        ends = (self._units[order].cumsum(0) + offset) // _UNIT
        counts = ends.diff(prepend=ends.new_zeros(1))
        images = order.repeat_interleave(counts)
        first = (ends - counts).repeat_interleave(counts)
        copies = torch.arange(len(images)) - first
        places = torch.randperm(len(images), generator=generator)[: len(self)]
        result: list[int] = (images + copies * num_images)[places].tolist()
        return result


def recommended_threshold(fractions: np.ndarray) -> float | None:
    """Return the threshold for classes out of balance; None if they are balanced.

    Classes are out of balance if one is in fewer than a tenth of the images of the most frequent
    one. The threshold is the mean fraction, which is above that of every rare class.
    """
    known = fractions[fractions > 0]
    if not len(known) or known.min() >= _RARE * known.max():
        return None
    return float(f"{np.mean(known):.2g}")


def is_rare(fractions: np.ndarray) -> np.ndarray:
    """Return which classes are far rarer than the most frequent one: [K] bool."""
    return (fractions > 0) & (fractions < _RARE * fractions.max(initial=0))
