"""Search for the fewest layers that must stay in float32 for a quantized model to keep its AP."""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress


class TimeOverError(Exception):
    """The search has no time left."""


class Deadline:
    """A bound on the duration of a search.

    Args:
        minutes: from now on.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self._end_s = time.monotonic() + 60 * minutes

    def check(self) -> None:
        """Raise `TimeOverError` if the time is over."""
        if time.monotonic() > self._end_s:
            raise TimeOverError


class Search:
    """Find layers whose quantization costs too much accuracy.

    Args:
        layers: all quantized layers.
        order: returns the layers, the most sensitive first; called once, if needed. May raise
            `TimeOverError`.
        passes: whether the model is accurate enough with these layers in float32. May raise
            `TimeOverError`.
    """

    def __init__(
        self,
        layers: Sequence[str],
        order: Callable[[], Sequence[str]],
        passes: Callable[[Sequence[str]], bool],
    ) -> None:
        self._layers = layers
        self._find_order, self._passes = order, passes
        self._order: Sequence[str] | None = None
        self._tried: dict[frozenset[str], bool] = {}
        self._best: Sequence[str] | None = None

    def run(self) -> Sequence[str] | None:
        """Return the fewest layers found in the time; None if no trial passed.

        With the most sensitive layers in float32, as many as needed, the last one of them is
        necessary. It is kept in float32, and the search continues with the others until the
        necessary layers suffice.
        """
        necessary: list[str] = []
        with suppress(TimeOverError):
            while not self._suffices(necessary):
                others = self.others(necessary)
                necessary.append(others[self._smallest_prefix(necessary, others) - 1])
        return self._best

    def others(self, layers: Collection[str]) -> Sequence[str]:
        """Return all other layers, the most sensitive first."""
        if self._order is None:
            self._order = self._find_order()
        return [layer for layer in self._order if layer not in layers]

    def more(self, layers: Sequence[str]) -> Sequence[str]:
        """Return twice as many layers, at least one more: with the most sensitive others.

        Raises:
            TimeOverError: if `order` does.
        """
        return [*layers, *self.others(layers)[: max(1, len(layers))]]

    def _smallest_prefix(self, necessary: Sequence[str], others: Sequence[str]) -> int:
        """Return how many of the other layers must be in float32, too: at least one."""
        failing, passing = 0, 1
        while passing < len(others) and not self._suffices([*necessary, *others[:passing]]):
            failing, passing = passing, min(2 * passing, len(others))
        while passing - failing > 1:
            middle = (failing + passing) // 2
            if self._suffices([*necessary, *others[:middle]]):
                passing = middle
            else:
                failing = middle
        return passing

    def _suffices(self, layers: Sequence[str]) -> bool:
        key = frozenset(layers)
        if key not in self._tried:
            is_float = len(key) == len(self._layers)  # passes without a trial
            self._tried[key] = is_float or self._passes(layers)
            if self._tried[key] and (self._best is None or len(layers) < len(self._best)):
                self._best = [*layers]
        return self._tried[key]
