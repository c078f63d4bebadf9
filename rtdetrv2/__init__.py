"""Train RT-DETRv2 on your own boxes, predict and export: the command line and the Python API."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api.detections import Detection, Detections
    from .api.model import RTDETR
    from .api.results import TrainingResult

_MODULES = {
    "RTDETR": "model",
    "Detections": "detections",
    "Detection": "detections",
    "TrainingResult": "results",
}

__all__ = ["RTDETR", "Detection", "Detections", "TrainingResult"]


def __getattr__(name: str) -> Any:
    """Import a class when it is used: the engine takes seconds to import."""
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module 'rtdetrv2' has no attribute {name!r}")
    return getattr(import_module(f"rtdetrv2.api.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Names for the completion of interactive shells."""
    return sorted([*globals(), *__all__])
