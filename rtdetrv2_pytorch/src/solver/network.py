"""Preparation of the model: initial weights, ranks, compilation."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..core.yaml_config import YAMLConfig
from ..data.loading.collate import scale_sizes
from ..interchange.folders import open_checkpoint
from ..misc import distributed
from ..misc.coco_categories import COCO_CATEGORIES
from ..misc.devices import check_compiler
from ..misc.errors import CheckpointError, ConfigError
from ..misc.text import counted
from ..misc.weights import LoadReport, load_matching, load_strict, model_state
from ..nn.sync_batch_norm import synchronize_batch_norm

logger = logging.getLogger(__name__)


def prepare_model(cfg: YAMLConfig, resumed: Mapping[str, Any] | None) -> nn.Module:
    """Load weights into `cfg.model`, move it to the device and wrap it for several ranks.

    Args:
        cfg: the configuration.
        resumed: the checkpoint of `resume`, if any.

    Returns:
        The model to train; the wrapper sends the weights of the main rank to the others.

    Raises:
        CheckpointError: if the weights do not match.
        ConfigError: if `compile` is set but no compiler is available.
    """
    settings = cfg.settings
    if resumed is not None:
        _check_same_classes(cfg, resumed)
        load_strict(cfg.model, _raw_weights(resumed), source=str(settings.resume))
    elif settings.tuning:
        load_pretrained(cfg, settings.tuning)
    elif settings.last_epoch >= 0:
        logger.warning(
            "last_epoch = %d without resume: training from initial weights", settings.last_epoch
        )
    cfg.model.to(device=cfg.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = _data_parallel(cfg)
    if settings.compile:
        check_compiler(cfg.device)
        _compile(cfg.model)
    return model


def load_pretrained(cfg: YAMLConfig, source: str) -> None:
    """Load all weights of a checkpoint that match the model, and log the others.

    Rows of class tensors are matched by class name.

    Raises:
        CheckpointError: if no weights match.
    """
    report = _load_by_class(cfg, open_checkpoint(source)[0])
    if not report.loaded:
        raise CheckpointError(
            f"{source}: no weights match this model; choose a checkpoint of the same model size"
        )
    logger.info("tuning from %s: %s", source, report)


def load_for_evaluation(cfg: YAMLConfig, source: str) -> None:
    """Load all weights of the model, with the rows of its classes if the checkpoint has more.

    Raises:
        CheckpointError: if weights are missing, or a class that the checkpoint does not have.
    """
    checkpoint, _ = open_checkpoint(source)
    theirs, ours = _class_names(cfg, checkpoint), cfg.class_names
    if not theirs or not ours or theirs == ours:
        load_strict(cfg.model, model_state(checkpoint), source=source)
        return
    unknown = [name for name in ours if name not in theirs]
    if unknown:
        raise CheckpointError(
            f"{source}: was not trained on {_listed(unknown)}, classes of the data; it has "
            f"{_listed(theirs)}. Evaluate it on data with its classes only"
        )
    report = _load_by_class(cfg, checkpoint)
    if report.new:
        raise CheckpointError(
            f"{source} contains another model: missing {report.new[:3]} ({len(report.new)} in "
            "total); use the configuration of the checkpoint"
        )
    total = counted(len(theirs), "class")
    logger.info("evaluating %d of %s of %s", len(ours), total, source)


def _load_by_class(cfg: YAMLConfig, checkpoint: Mapping[str, Any]) -> LoadReport:
    return load_matching(
        cfg.model,
        model_state(checkpoint),
        class_keys=_class_keys(cfg),
        model_classes=cfg.class_names,
        state_classes=_class_names(cfg, checkpoint),
    )


def _class_keys(cfg: YAMLConfig) -> list[str]:
    decoder = getattr(cfg.model, "decoder", None)
    return [f"decoder.{key}" for key in getattr(decoder, "class_keys", [])]


def _class_names(cfg: YAMLConfig, checkpoint: Mapping[str, Any]) -> list[str] | None:
    """Return the class names of a checkpoint in the order of its rows; None if unknown.

    Published checkpoints have no names: 80 classes are COCO's, unless the data has 80 others.
    """
    if checkpoint.get("class_names"):
        return list(checkpoint["class_names"])
    state, coco = model_state(checkpoint), list(COCO_CATEGORIES.values())
    rows = {len(state[key]) for key in _class_keys(cfg) if key in state and key.endswith("bias")}
    own = cfg.class_names or coco
    is_coco = rows == {len(coco)} and (len(own) != len(coco) or set(own) & set(coco))
    return coco if is_coco else None


def _check_same_classes(cfg: YAMLConfig, resumed: Mapping[str, Any]) -> None:
    theirs, ours = resumed.get("class_names"), cfg.class_names
    if not theirs or not ours or theirs == ours:
        return
    added = [name for name in ours if name not in theirs]
    removed = [name for name in theirs if name not in ours]
    changes = [
        f"{kind} {_listed(names)}"
        for kind, names in (("added", added), ("removed", removed))
        if names
    ]
    raise CheckpointError(
        f"{cfg.settings.resume}: the classes of the training data changed since "
        f"({'; '.join(changes) or 'another order'}), so its run cannot be resumed. Start a new run "
        "from these weights with tuning (-t), which keeps what was learned of the common classes"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if names[5:] else "")


def _raw_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the trained weights, not the EMA weights."""
    return model_state(
        {"model": checkpoint.get("model")} if checkpoint.get("model") else checkpoint
    )


def _data_parallel(cfg: YAMLConfig) -> nn.Module:
    if not distributed.is_distributed():
        return cfg.model
    if cfg.settings.sync_bn:
        cfg.model = synchronize_batch_norm(cfg.model, cfg.device)
    return DistributedDataParallel(
        cfg.model,
        device_ids=[cfg.device] if cfg.device.type == "cuda" else None,
        broadcast_buffers=False,  # equal with `sync_bn`; without, broadcast once per epoch
        find_unused_parameters=cfg.settings.find_unused_parameters or not _has_complete_loss(cfg),
    )


def _has_complete_loss(cfg: YAMLConfig) -> bool:
    """Return whether each part of the network has a loss; if not, ranks must look for gradients."""
    losses = set(getattr(cfg.criterion, "losses", ()))
    is_complete = "boxes" in losses and not losses.isdisjoint({"vfl", "mal", "focal"})
    return is_complete and bool(getattr(cfg.model.decoder, "aux_loss", True))


def check_batch_norm(cfg: YAMLConfig) -> None:
    """Check that batch norms see more than one value per channel in training.

    Raises:
        ConfigError: naming batch and image size, if a batch can have a single value.
    """
    loader, settings = cfg.train_dataloader, cfg.settings
    size = cfg.yaml_cfg.get("eval_spatial_size")
    if size is None:
        return
    images = loader.epoch_sampler.total_batch_size
    if not settings.sync_bn:
        images //= distributed.world_size()
    if settings.micro_batch_size != "auto":
        images = min(images, settings.micro_batch_size)
    sizes = scale_sizes(loader.collate_fn.scales or [max(size)], (size[0], size[1]))
    height, width = min(sizes, key=math.prod)
    stride = max(getattr(cfg.model.backbone, "out_strides", [32]))
    if images * math.ceil(height / stride) * math.ceil(width / stride) < 2:
        raise ConfigError(
            f"eval_spatial_size = {list(size)} with a batch of {images}: images of "
            f"{height}x{width} (height x width) leave batch norm a single value at stride "
            f"{stride}; use larger images or batches"
        )


def _compile(model: nn.Module) -> None:
    """Compile the parts whose shapes depend on the image size only.

    Compilation in place keeps the names of the weights, and copies of the model stay uncompiled.
    Shapes are dynamic because multi-scale training uses a dozen sizes.
    """
    for name in ("backbone", "encoder"):
        part = getattr(model, name, None)
        if isinstance(part, nn.Module):
            part.compile(dynamic=True)


def detections_per_image(cfg: YAMLConfig) -> int:
    """Return the number of detections that the postprocessor returns for an image."""
    postprocessor: Any = cfg.postprocessor
    return int(postprocessor.num_top_queries)
