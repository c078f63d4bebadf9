"""Load a checkpoint as one module: images and their sizes in, detections out."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor, nn

from ..core.catalog import BACKBONES
from ..core.error_places import located, naming_overrides
from ..core.yaml_config import YAMLConfig
from ..core.yaml_files import Layer, get, merge, merge_layers, read_layers
from ..data.images.pixel_range import PixelRange
from ..interchange.folders import open_checkpoint, weights_file
from ..misc.coco_categories import COCO_CATEGORIES
from ..misc.errors import CheckpointError, ConfigError
from ..misc.limits import MAX_SIDE_PX, read_yaml
from ..misc.text import counted
from ..misc.weights import check_fits, load_strict, model_state
from .model_card import ModelCard, class_names_of, sha256_of, thresholds_of

Sampling = Literal["default", "discrete"]
RawDetections = tuple[Tensor, Tensor, Tensor]  # labels, boxes, scores: see `Detector.forward`

_VERSIONED_PACKAGES = ("torch", "onnx")
# Sections that do not affect the network; some contain paths of another machine.
_IGNORED_KEYS = (
    *("train_dataloader", "val_dataloader", "output_dir", "summary_dir", "tuning", "resume"),
    *("device", "last_epoch"),
)
_VALIDATION_OPS = ("val_dataloader", "dataset", "transforms", "ops")
# Elements a network may allocate on the meta device: each weight is created, initialized and
# copied; grids and anchors come on top.
_ALLOCATIONS_PER_WEIGHT, _EXTRA_ELEMENTS = 4, 20_000_000
# Serving applies Resize; the others do not change the pixels.
_SERVED_TRANSFORMS = ("Resize", "ConvertPILImage", "ConvertBoxes", "SanitizeBoundingBoxes")


class Detector(nn.Module):
    """Network and postprocessor, for inference."""

    def __init__(self, model: nn.Module, postprocessor: nn.Module) -> None:
        super().__init__()
        self.model = model.deploy()  # type: ignore[operator]
        self.postprocessor = postprocessor.deploy()  # type: ignore[operator]
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor, orig_target_sizes: Tensor) -> RawDetections:
        """Detect objects. The argument names are the input names of exported files.

        Args:
            images: [B, 3, H, W] RGB, float 0..1 or uint8.
            orig_target_sizes: [B, 2] as (width, height) of the original images.

        Returns:
            labels [B, N] int64, boxes [B, N, 4] xyxy in pixels of the original images, scores
            [B, N], highest first.
        """
        result: RawDetections = self.postprocessor(self.model(images), orig_target_sizes)
        return result


def load_detector(
    checkpoint: str | Path,
    *,
    config: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    sampling: Sampling | None = None,
    input_size_hw: tuple[int, int] | None = None,
) -> tuple[Detector, ModelCard]:
    """Load the detector of a checkpoint.

    Checkpoints of this package and folders of `transformers` contain their configuration and class
    names. Other checkpoints need a configuration, and class names unless they have the 80 classes
    of COCO.

    Args:
        checkpoint: path or URL, or a folder of `transformers`.
        config: YAML file of the network; default: the configuration in the checkpoint.
        class_names: in label order; default: the names in the checkpoint.
        sampling: sampling method of the deformable attention; None: the trained one.
        input_size_hw: (height, width) of the input, multiples of 32; None: the trained size.

    Returns:
        The detector on the CPU in evaluation mode, and its model card.

    Raises:
        CheckpointError: if the file is not a checkpoint or does not fit the network.
        ConfigError: if the configuration is invalid.
    """
    cfg, card = load_network(
        checkpoint,
        config=config,
        class_names=class_names,
        sampling=sampling,
        input_size_hw=input_size_hw,
    )
    return Detector(cfg.model, cfg.postprocessor), card


def load_network(
    checkpoint: str | Path,
    *,
    config: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    sampling: Sampling | None = None,
    input_size_hw: tuple[int, int] | None = None,
) -> tuple[YAMLConfig, ModelCard]:
    """Load the network of a checkpoint, without fusing its layers; see `load_detector`.

    Returns:
        Its configuration, whose `model` has the weights, and its model card.
    """
    content, path = open_checkpoint(checkpoint)
    values = _network_config(content, Path(config) if config else None, path)
    if sampling is not None:
        values = merge(values, {"RTDETRTransformerv2": {"cross_attn_method": sampling}})
    trained_hw = _input_size(content, values, path)
    if input_size_hw is not None:
        values["eval_spatial_size"] = list(_checked_size(input_size_hw))
    names = class_names or class_names_of(content)
    state = model_state(content)
    name = f"configuration of {path.name}"
    layers = read_layers(config) if config else [Layer(name, values, None)]
    with located(layers), naming_overrides(None, instead_of=name):
        cfg = YAMLConfig.from_values(values, name=name)
    if names is not None:
        cfg.yaml_cfg["num_classes"] = len(names)
    _check_network(cfg, state, path)
    load_strict(cfg.model, state, source=str(path))
    if names is None:
        num_classes = int(cfg.yaml_cfg.get("num_classes", 80))
        if num_classes != len(COCO_CATEGORIES):
            raise CheckpointError(
                f"{path}: the checkpoint has {counted(num_classes, 'class')} without names; give "
                "class names in label order"
            )
        names = list(COCO_CATEGORIES.values())
    info = content.get("model_info")
    try:
        card = ModelCard(
            class_names=tuple(names),
            input_size_hw=input_size_hw or trained_hw,
            trained_size_hw=trained_hw if input_size_hw not in (None, trained_hw) else None,
            model_name=str(info.get("model_name", "")) if isinstance(info, Mapping) else "",
            num_detections=_num_detections(cfg, len(names)),
            sampling=get(cfg.yaml_cfg, ("RTDETRTransformerv2", "cross_attn_method")) or "default",
            pixel_range=_pixel_range(content, cfg),
            source_sha256=sha256_of(weights_file(path)),
            versions={name: version(name) for name in _VERSIONED_PACKAGES if find_spec(name)},
            **thresholds_of(content),
        )
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return cfg, card


def _check_network(cfg: YAMLConfig, state: Mapping[str, Tensor], path: Path) -> None:
    """Check on the meta device that the network is not larger than its weights."""
    elements = sum(tensor.numel() for tensor in state.values())
    try:
        model = cfg.build_meta_model(_EXTRA_ELEMENTS + _ALLOCATIONS_PER_WEIGHT * elements)
    except ValueError as error:
        raise CheckpointError(
            f"{path}: the configuration in the checkpoint is invalid ({error}); give a valid one "
            "with -c"
        ) from error
    check_fits(model, state, source=str(path))


def _network_config(content: Mapping[str, Any], config: Path | None, path: Path) -> dict[str, Any]:
    """Return the part of the configuration that defines the network."""
    if config is not None:
        values: Any = merge_layers(read_layers(config))
    elif isinstance(content.get("config"), Mapping):
        values = dict(content["config"])
    else:
        values = _embedded_config(content, path)
    _check_preprocessing(values, path)
    values = {key: value for key, value in values.items() if key not in _IGNORED_KEYS}
    for backbone in BACKBONES:
        if isinstance(values.get(backbone), Mapping):
            # The checkpoint has the weights.
            values = merge(values, {backbone: {"pretrained": False}})
    return values


def _embedded_config(content: Mapping[str, Any], path: Path) -> Any:
    """Return the configuration that the Supervisely SDK stores in checkpoints."""
    text = get(content, ("model_files", "config", "content"))
    try:
        values = read_yaml(text) if isinstance(text, str) else None
    except yaml.YAMLError as error:
        raise CheckpointError(
            f"{path}: the configuration in the checkpoint is damaged ({error}); give it with -c"
        ) from error
    if not isinstance(values, Mapping):
        raise CheckpointError(
            f"{path}: the checkpoint does not contain its configuration; give its YAML file "
            "with -c, for example rtdetrv2_r18vd_120e_coco.yml"
        )
    return values


def _check_preprocessing(values: Mapping[str, Any], path: Path) -> None:
    ops = get(values, _VALIDATION_OPS) or []
    if not isinstance(ops, list | tuple):
        raise ConfigError(f"{path.name}: {'.'.join(_VALIDATION_OPS)} = {ops!r}: must be a list")
    types = [op.get("type") if isinstance(op, Mapping) else op for op in ops]
    other = [name for name in types if name not in _SERVED_TRANSFORMS]
    if other:
        raise ConfigError(
            f"{path.name}: serving does not support the validation transforms "
            f"{', '.join(map(str, other))}, so results would differ; train without them"
        )


def _checked_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    if not all(32 <= side <= MAX_SIDE_PX and side % 32 == 0 for side in size_hw):
        height, width = size_hw
        raise ConfigError(
            f"size = {height} {width}: both must be multiples of 32, up to {MAX_SIDE_PX}"
        )
    return size_hw


def _input_size(
    content: Mapping[str, Any], values: Mapping[str, Any], path: Path
) -> tuple[int, int]:
    size = content.get("eval_spatial_size") or values.get("eval_spatial_size") or (640, 640)
    try:
        if isinstance(size, str):
            raise TypeError("a string")
        height, width = size
        return int(height), int(width)
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{path}: eval_spatial_size = {size!r}: must be two numbers"
        ) from error


def _pixel_range(content: Mapping[str, Any], cfg: YAMLConfig) -> PixelRange | None:
    """Return the range of the training, even if another configuration is given."""
    trained: PixelRange | None = get(content, ("config", "pixel_range"))
    return trained or cfg.settings.pixel_range


def _num_detections(cfg: YAMLConfig, num_classes: int) -> int:
    """Return the detections per image, limited by the number of (query, class) pairs."""
    queries = get(cfg.yaml_cfg, ("RTDETRTransformerv2", "num_queries")) or 300
    postprocessor: Any = cfg.postprocessor
    pairs = queries * num_classes if postprocessor.use_focal_loss else queries
    return min(int(postprocessor.num_top_queries), int(pairs))


def example_inputs(card: ModelCard) -> tuple[Tensor, Tensor]:
    """Return inputs for tracing: noise as two images of different sizes.

    A batch size of 1 would become a constant in the graph.
    """
    images = torch.rand(2, 3, *card.input_size_hw, generator=torch.Generator().manual_seed(0))
    return images, torch.tensor([[640, 480], [672, 496]])
