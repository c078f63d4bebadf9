"""Augmentations that add the objects of another image: MixUp and copy-paste."""

import random

import numpy as np

from ...misc.ranges import Fraction, PositiveInt
from ..images.resizing import resize
from .geometric import Range
from .other_images import UsesOtherImages
from .sample import Sample


class MixUp(UsesOtherImages):
    """Average the image with another image of the data set; the objects of both remain.

    Both images are resized to the canvas. Use it after `Resize`, because pixels are computed here.

    Args:
        ratio: range of the weight of the image.
        p: probability.

    Source: arXiv:1710.09412; for detection, arXiv:1902.04103.
    """

    def __init__(self, *, ratio: Range = (0.45, 0.55), p: Fraction = 0.5) -> None:
        if not 0 <= ratio[0] <= ratio[1] <= 1:
            raise ValueError(f"ratio {ratio}: give (low, high) with 0 <= low <= high <= 1")
        self.ratio = ratio
        self.p = p

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Mix with probability `p`."""
        if rng.random() >= self.p:
            return sample
        ratio = rng.uniform(*self.ratio)
        other = self.other_image(rng)
        sample.materialize()
        if rng.random() < 0.5:
            other.flip()
        other.materialize(sample.canvas_hw)
        mixed = sample.image.float().mul_(ratio).add_(other.image, alpha=1 - ratio)
        sample.image = mixed.round_().to(sample.image.dtype)
        sample.add_objects(other.boxes, other.labels, other.area)
        sample.crowd_boxes = np.concatenate((sample.crowd_boxes, other.crowd_boxes))
        sample.crowd_labels = np.concatenate((sample.crowd_labels, other.crowd_labels))
        return sample


class CopyPaste(UsesOtherImages):
    """Paste the boxes of objects of another image at random positions.

    A position is used if it covers little of every object and crowd region. Objects are pasted with
    all pixels of their box. Use it before other operations: the image must not be cropped yet.

    Args:
        max_objects: maximum number of pasted objects.
        scale: range of the factor of their size.
        max_covered: fraction of an object that may be covered.
        p: probability.
        balanced: choose objects of all classes equally often, each from an image of its own,
            instead of objects of one random image.

    Source: arXiv:2012.07177, with boxes in place of masks.
    """

    def __init__(
        self,
        *,
        max_objects: PositiveInt = 3,
        scale: Range = (0.75, 1.25),
        max_covered: Fraction = 0.1,
        p: Fraction = 0.5,
        balanced: bool = False,
    ) -> None:
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale {scale}: give (low, high) with 0 < low <= high")
        self.max_objects = max_objects
        self.scale = scale
        self.max_covered = max_covered
        self.p = p
        self.balanced = balanced

    def __call__(self, sample: Sample, rng: random.Random) -> Sample:
        """Paste with probability `p`."""
        if rng.random() >= self.p:
            return sample
        found = self._balanced(rng) if self.balanced else self._of_one_image(rng)
        if not found:
            return sample
        sample.materialize()
        sample.image = sample.image.clone()  # the pixels may belong to the image cache
        for other, index in found:
            self._paste(sample, other, index, rng)
        return sample

    def _of_one_image(self, rng: random.Random) -> list[tuple[Sample, int]]:
        """Return a random image with the numbers of some of its objects."""
        other = self.other_image(rng)
        if not len(other.boxes):
            return []
        count = min(rng.randint(1, self.max_objects), len(other.boxes))
        return [(other, index) for index in rng.sample(range(len(other.boxes)), count)]

    def _balanced(self, rng: random.Random) -> list[tuple[Sample, int]]:
        """Return images, each with the number of an object of a random class."""
        found = []
        for _ in range(rng.randint(1, self.max_objects)):
            chosen = self.image_of_any_class(rng)
            if chosen is None:
                break
            other, label = chosen
            # None if the image is unreadable, and another one is used in its place
            objects = np.flatnonzero(other.labels == label).tolist()
            if objects:
                found.append((other, rng.choice(objects)))
        return found

    def _paste(self, sample: Sample, other: Sample, index: int, rng: random.Random) -> None:
        """Paste one object at a random position, unless it covers too much of another object."""
        x1, y1 = np.floor(other.boxes[index, :2]).astype(int).tolist()
        x2, y2 = np.ceil(other.boxes[index, 2:]).astype(int).tolist()
        patch = other.image[:, y1:y2, x1:x2]
        factor = rng.uniform(*self.scale)
        height, width = (max(round(side * factor), 1) for side in patch.shape[1:])
        slack_y, slack_x = sample.canvas_hw[0] - height, sample.canvas_hw[1] - width
        place_x, place_y = rng.random(), rng.random()
        if slack_x < 0 or slack_y < 0:
            return
        left, top = int(place_x * (slack_x + 1)), int(place_y * (slack_y + 1))
        present = np.concatenate((sample.boxes, sample.crowd_boxes))
        x1y1, x2y2 = np.maximum(present[:, :2], (left, top)), present[:, 2:]
        covered = (np.minimum(x2y2, (left + width, top + height)) - x1y1).clip(0).prod(axis=1)
        if (covered > self.max_covered * (x2y2 - present[:, :2]).prod(axis=1)).any():
            return
        sample.image[:, top : top + height, left : left + width] = resize(patch, (height, width))
        scale = np.array([width / (x2 - x1), height / (y2 - y1)] * 2)
        box = (other.boxes[index] - (x1, y1, x1, y1)) * scale + (left, top, left, top)
        labels, area = other.labels[index : index + 1], other.area[index : index + 1]
        sample.add_objects(box[None], labels, area * (scale[0] * scale[1]))
