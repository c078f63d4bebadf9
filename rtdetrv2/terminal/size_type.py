"""The image size as an option: 640 or 480x640."""

from typing import Any

import click


class SizeType(click.ParamType[tuple[int, int]]):
    """Height and width in pixels; one number is both."""

    name = "HxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """Parse "640x640" or "640" into (height, width)."""
        sides = str(value).lower().split("x")
        if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
            self.fail(f"{value!r}: give height x width in pixels, for example 640x640", param, ctx)
        return int(sides[0]), int(sides[-1])
