"""Models for `torch.hub.load(CLONE, NAME, source="local")`."""

from pathlib import Path
from typing import Any

from torch import nn

dependencies = [
    *("torch", "torchvision", "numpy", "PIL", "pydantic", "yaml", "click", "rich"),
    *("filelock", "regex", "safetensors"),
]


def rtdetrv2(source: str | Path = "RT-DETRv2-S", **options: Any) -> Any:
    """Return `rtdetrv2.RTDETR` of a model name, checkpoint, ONNX file or folder."""
    from rtdetrv2 import RTDETR

    return RTDETR(source, **options)


def rtdetrv2_r18vd(pretrained: bool = False) -> nn.Module:
    """Return RT-DETRv2-S: (images, orig_target_sizes) -> (labels, boxes, scores)."""
    return _detector("rtdetrv2_r18vd_120e_coco", pretrained)


def rtdetrv2_r34vd(pretrained: bool = False) -> nn.Module:
    """Return RT-DETRv2 with ResNet-34: (images, orig_target_sizes) -> (labels, boxes, scores)."""
    return _detector("rtdetrv2_r34vd_120e_coco", pretrained)


def rtdetrv2_r50vd_m(pretrained: bool = False) -> nn.Module:
    """Return RT-DETRv2-M: (images, orig_target_sizes) -> (labels, boxes, scores)."""
    return _detector("rtdetrv2_r50vd_m_7x_coco", pretrained)


def rtdetrv2_r50vd(pretrained: bool = False) -> nn.Module:
    """Return RT-DETRv2-L: (images, orig_target_sizes) -> (labels, boxes, scores)."""
    return _detector("rtdetrv2_r50vd_6x_coco", pretrained)


def rtdetrv2_r101vd(pretrained: bool = False) -> nn.Module:
    """Return RT-DETRv2-X: (images, orig_target_sizes) -> (labels, boxes, scores)."""
    return _detector("rtdetrv2_r101vd_6x_coco", pretrained)


def _detector(name: str, pretrained: bool) -> nn.Module:
    """Return a detector in evaluation mode, with the published or with random weights.

    Raises:
        CheckpointError: if the weights are not available.
    """
    from rtdetrv2.api.model_file import find_model
    from rtdetrv2_pytorch.src.core import YAMLConfig
    from rtdetrv2_pytorch.src.deploy.detector import Detector, load_detector

    file = find_model(name, "coco" if pretrained else None)
    if file.path is not None:
        return load_detector(file.path, config=file.config)[0]
    assert file.config is not None
    cfg = YAMLConfig(file.config, PResNet={"pretrained": False})
    return Detector(cfg.model, cfg.postprocessor)
