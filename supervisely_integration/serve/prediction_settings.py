"""The settings of a prediction, as requests and the command line give them."""

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rtdetrv2_pytorch.src.misc.errors import ConfigError

from ..sdk.deployment import THRESHOLD_ALIASES

logger = logging.getLogger(__name__)

_ENGINE_SETTINGS = ("confidence_threshold", "nms_iou")
_SDK_SETTINGS = (
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
    """Prediction settings of a request.

    Attributes:
        confidence_threshold: lowest score to keep; "auto" uses the threshold of each class.
        nms_iou: IoU above which non-maximum suppression drops the lower score of a class; None
            disables it.
    """

    confidence_threshold: float | Literal["auto"] = 0.5
    nms_iou: float | None = None

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> "PredictionSettings":
        """Read the settings of a request; an alias of the threshold overrides its own name.

        Raises:
            ConfigError: if a value is invalid or a key is misspelled.
        """
        _check_keys(settings)
        names = (*THRESHOLD_ALIASES, _ENGINE_SETTINGS[0])
        threshold = next((settings[key] for key in names if settings.get(key) is not None), 0.5)
        is_auto = isinstance(threshold, str) and threshold.strip().lower() == "auto"
        iou = settings.get("nms_iou")
        is_off = iou is None or iou is False or str(iou).strip().lower() in _OFF
        return cls(
            "auto" if is_auto else _fraction("confidence_threshold", threshold, "or auto"),
            None if is_off else _nms_iou(iou),
        )


def _check_keys(settings: Mapping[str, Any]) -> None:
    known = (*_ENGINE_SETTINGS, *THRESHOLD_ALIASES, *_SDK_SETTINGS)
    for key in settings:
        if key in known:
            continue
        close = difflib.get_close_matches(str(key), _ENGINE_SETTINGS, n=1, cutoff=0.75)
        if close:
            raise ConfigError(f"{key}: unknown setting; did you mean {close[0]}?")
        logger.warning("%s: unknown setting, ignored", key)


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


def _nms_iou(value: object) -> float:
    number = _fraction("nms_iou", value, "or none")
    if number == 0:
        raise ConfigError("nms_iou = 0: would drop every detection that touches another one")
    return number
