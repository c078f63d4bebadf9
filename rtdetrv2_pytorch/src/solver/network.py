"""Preparation of the model: initial weights, ranks, compilation."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..core.yaml_config import YAMLConfig
from ..misc import distributed
from ..misc.devices import check_compiler
from ..misc.errors import CheckpointError
from ..misc.weights import load_checkpoint, load_matching, load_strict, model_state
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

    Raises:
        CheckpointError: if no weights match.
    """
    checkpoint = load_checkpoint(source)
    decoder = getattr(cfg.model, "decoder", None)
    report = load_matching(
        cfg.model,
        model_state(checkpoint),
        class_keys=[f"decoder.{key}" for key in getattr(decoder, "class_keys", [])],
        model_classes=cfg.class_names,
        state_classes=checkpoint.get("class_names"),
    )
    if not report.loaded:
        raise CheckpointError(
            f"{source}: no weights match this model; choose a checkpoint of the same model size"
        )
    logger.info("tuning from %s: %s", source, report)


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
        find_unused_parameters=cfg.settings.find_unused_parameters,
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
