"""The properties of a dataset that the schedule for CPUs depends on."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataExtent:
    """The size of images, and the numbers of boxes in them.

    Attributes:
        longest_side: of an image, pixels.
        max_boxes: in an image.
        mean_boxes: per image.
    """

    longest_side: int
    max_boxes: int
    mean_boxes: float
