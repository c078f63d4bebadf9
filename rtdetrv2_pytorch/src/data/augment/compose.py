"""A pipeline of augmentations, some of which can be disabled from a given epoch."""

import random
from collections.abc import Sequence
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from .other_images import SampleSource
from .sample import Sample
from .transform import Transform


class Policy(TypedDict):
    """When to disable operations.

    `stop_epoch`: the operations named in `ops` are disabled from `epoch` (0-based), so that the
    last epochs train on unmodified images.
    `active`: an operation named here runs in the epochs from the first number to before the second.
    """

    name: Literal["default", "stop_epoch"]
    epoch: NotRequired[int | None]
    ops: NotRequired[list[str]]
    active: NotRequired[dict[str, tuple[int, int]]]


Policy.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]


class Compose:
    """Applies operations in order.

    Args:
        ops: the operations.
        policy: when to disable which of them; None: never. Names without an operation are
            ignored, because a file that removes an operation inherits the policy of its includes.
    """

    def __init__(self, *, ops: Sequence[Transform] | None, policy: Policy | None = None) -> None:
        self.ops = list(ops or ())
        self.policy: Policy = policy or {"name": "default"}

    def bind(self, source: SampleSource) -> None:
        """Set the data set from which operations that mix images load others."""
        for op in self.ops:
            if hasattr(op, "bind"):
                op.bind(source)

    def __call__(self, sample: Sample, rng: random.Random, epoch: int = 0) -> Sample:
        """Apply the operations of this epoch."""
        stop = self.policy.get("epoch")
        is_stopped = self.policy["name"] == "stop_epoch" and stop is not None and epoch >= stop
        disabled = set(self.policy.get("ops", ()) if is_stopped else ())
        for name, (first, end) in self.policy.get("active", {}).items():
            if not first <= epoch < end:
                disabled.add(name)
        for op in self.ops:
            if type(op).__name__ not in disabled.union(sample.skips):
                sample = op(sample, rng)
        return sample
