"""The settings of a prediction, as requests and people write them."""

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rtdetrv2_pytorch.src.misc.errors import ConfigError

logger = logging.getLogger(__name__)

# Other names of the threshold, under which clients of the platform send it.
ALIASES = ("conf", "confidence", "confidence_thresh")
_OWN = ("confidence_threshold", "nms_iou")
_OF_THE_SDK = (
    "classes",
    "rectangle",
    "inference_mode",
    "sliding_window_mode",
    "sliding_window_params",
    "existing_objects_iou_thresh",
)
_OFF = ("", "none", "null", "off", "false")


@dataclass(frozen=True)
class PredictionSettings:
    """What a request may choose.

    Attributes:
        confidence_threshold: lowest score to keep; "auto": that of each class.
        nms_iou: overlap above which the weaker detection of a class is dropped; None: none is.
    """

    confidence_threshold: float | Literal["auto"] = 0.5
    nms_iou: float | None = None

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> "PredictionSettings":
        """Read the settings of a request.

        Raises:
            ConfigError: if a value cannot be used, or a key is a mistyped one.
        """
        _check_keys(settings)
        threshold = next(
            (settings[key] for key in (*ALIASES, _OWN[0]) if settings.get(key) is not None), 0.5
        )
        is_auto = isinstance(threshold, str) and threshold.strip().lower() == "auto"
        overlap = settings.get("nms_iou")
        is_off = overlap is None or overlap is False or str(overlap).strip().lower() in _OFF
        return cls(
            "auto" if is_auto else _fraction("confidence_threshold", threshold, "or auto"),
            None if is_off else _overlap(overlap),
        )


def with_threshold(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the threshold under its own name, if it comes under another."""
    translated = {key: value for key, value in settings.items() if key not in ALIASES}
    other = [settings[key] for key in ALIASES if settings.get(key) is not None]
    if other:
        translated.setdefault("confidence_threshold", other[0])
    return translated


def _check_keys(settings: Mapping[str, Any]) -> None:
    known = (*_OWN, *ALIASES, *_OF_THE_SDK)
    for key in settings:
        if key in known:
            continue
        close = difflib.get_close_matches(str(key), _OWN, n=1, cutoff=0.75)
        if close:
            raise ConfigError(f"{key}: unknown setting; did you mean {close[0]}?")
        logger.warning("%s: unknown setting, it changes nothing", key)


def _fraction(name: str, value: object, others: str) -> float:
    error = ConfigError(f"{name} = {value!r}: give a number from 0 to 1, {others}")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise error
    try:
        number = float(value)
    except ValueError:
        raise error from None
    if not 0 <= number <= 1:
        raise error
    return number


def _overlap(value: object) -> float:
    number = _fraction("nms_iou", value, "or none")
    if number == 0:
        raise ConfigError("nms_iou = 0: would leave one detection of overlapping ones at any touch")
    return number
