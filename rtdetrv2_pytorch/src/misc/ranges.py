"""Number types with a range, for the signatures of components.

The range belongs to the type hint: `core.build` checks it and docs/configuration.md shows it.
"""

from typing import Annotated

from annotated_types import Ge, Gt, Interval, Lt, MultipleOf

from .limits import MAX_SIDE_PX

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
StageIndex = Annotated[int, Interval(ge=0, le=3)]  # of the four stages of a backbone
Fraction = Annotated[float, Interval(ge=0, le=1)]
Decay = Annotated[float, Ge(0), Lt(1)]
ImageSide = Annotated[int, Ge(32), MultipleOf(32), Interval(le=MAX_SIDE_PX)]  # pixels
