"""The settings of a prediction, as requests and the command line give them."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rtdetrv2_pytorch.src.misc.errors import ConfigError

_ENGINE_SETTINGS = ("confidence_threshold", "nms_iou")
# Names of other programs and clients -> ours.
SYNONYMS = {
    **dict.fromkeys(
        (
            *("conf", "confidence", "confidence_thresh", "conf_threshold", "conf_thresh"),
            *("conf_thres", "threshold", "score", "score_threshold", "score_thresh", "score_thr"),
            *("min_score", "min_confidence"),
        ),
        "confidence_threshold",
    ),
    **dict.fromkeys(
        ("iou", "iou_threshold", "iou_thresh", "iou_thres", "nms", "nms_threshold", "nms_thresh"),
        "nms_iou",
    ),
}
_SDK_SETTINGS = (
    "classes",
    "rectangle",
    "inference_mode",
    "sliding_window_mode",
    "sliding_window_params",
    "existing_objects_iou_thresh",
    "model_prediction_suffix",
)
# `PredictionSession` (supervisely/nn/model/prediction_session.py) copies the arguments of a
# prediction into its settings, in addition to the place where they take effect.
_SDK_ARGUMENTS = (
    *("batch_size", "step", "stride", "direction", "duration", "num_frames", "frames_count"),
    *("start_frame", "start_frame_index", "end_frame", "end_frame_index", "show_progress"),
    *("upload_mode", "upload", "recursive", "iou_merge_threshold", "output_project_id"),
    *("image_ids", "video_ids", "dataset_ids", "project_ids", "tracking", "timeout"),
    *("cache_project_on_model", "cache_datasets_on_model"),
)
_KNOWN = (*_ENGINE_SETTINGS, *_SDK_SETTINGS)
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
        """Read the settings of a request.

        A synonym overrides the name it stands for, which may hold a default.

        Raises:
            ConfigError: if a key is unknown or a value is invalid.
        """
        _check_keys(settings)
        found = {name: settings.get(name) for name in _ENGINE_SETTINGS}
        found |= {SYNONYMS[key]: settings[key] for key in synonyms_in(settings)}
        threshold, iou = found["confidence_threshold"], found["nms_iou"]
        threshold = cls.confidence_threshold if threshold is None else threshold
        is_auto = isinstance(threshold, str) and threshold.strip().lower() == "auto"
        is_off = iou is None or iou is False or str(iou).strip().lower() in _OFF
        return cls(
            "auto" if is_auto else _fraction("confidence_threshold", threshold, "or auto"),
            None if is_off else _nms_iou(iou),
        )


def synonyms_in(settings: Mapping[str, Any]) -> list[str]:
    """Return the keys with a value that are synonyms."""
    return [key for key in settings if key in SYNONYMS and settings[key] is not None]


def check_classes(wanted: object, known: Sequence[str]) -> None:
    """Check the setting `classes`.

    Raises:
        ConfigError: if it is not a list of classes of the model.
    """
    if wanted is None or wanted == "all":
        return
    if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
        raise ConfigError(f"classes = {wanted!r}: give a list of class names")
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError(
            f"classes: the model does not have {', '.join(map(repr, unknown))}; "
            f"its classes are {', '.join(known)}"
        )


def _check_keys(settings: Mapping[str, Any]) -> None:
    for key in settings:
        if key in _KNOWN or key in SYNONYMS or key in _SDK_ARGUMENTS:
            continue
        nearest = difflib.get_close_matches(str(key).lower(), (*_KNOWN, *SYNONYMS), n=1)
        if nearest:
            name = SYNONYMS.get(nearest[0], nearest[0])
            raise ConfigError(f"{key}: unknown setting; did you mean {name}?")
        raise ConfigError(
            f"{key}: unknown setting; the settings are {', '.join(_ENGINE_SETTINGS)} and classes"
        )
    given = synonyms_in(settings)
    for key in given:
        other = next((each for each in given if SYNONYMS[each] == SYNONYMS[key]), key)
        if other != key and settings[other] != settings[key]:
            raise ConfigError(
                f"{other} = {settings[other]!r} and {key} = {settings[key]!r} are both "
                f"{SYNONYMS[key]}; give one of them"
            )


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
        raise ConfigError(
            "nms_iou = 0: would drop every detection that touches another one; give more"
        )
    return number
