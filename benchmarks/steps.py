"""Networks and training steps of this package and of transformers, shared by the measurements."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.data.loading.collate import BatchImageCollateFunction
from rtdetrv2_pytorch.src.solver.progress import EpochProgress
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.step import train_step
from tests.tiny import CONFIGS

# Batches are random; only the description of a non-finite batch would read the data set.
NO_DATA: Any = SimpleNamespace(annotations=None)
# Name -> (our configuration, the same network in tests/transformers_map.py).
MODELS = {
    "r18": ("rtdetrv2_r18vd_120e_coco", "r18vd_120e"),
    "r50": ("rtdetrv2_r50vd_6x_coco", "r50vd_6x"),
}


def config(model: str = "r18", **overrides: Any) -> YAMLConfig:
    """Return a published configuration with random weights."""
    values = merge({"PResNet": {"pretrained": False}}, overrides)
    return YAMLConfig(CONFIGS / "rtdetrv2" / f"{MODELS[model][0]}.yml", **values)


def random_targets(batch: int, boxes: int, generator: torch.Generator) -> list[dict[str, Tensor]]:
    """Return random boxes of moderate size."""
    targets = []
    for i in range(batch):
        size = torch.rand(boxes, 2, generator=generator) * 0.2 + 0.03
        center = size / 2 + torch.rand(boxes, 2, generator=generator) * (1 - size)
        targets.append(
            {
                "boxes": torch.cat((center, size), dim=1),
                "labels": torch.randint(80, (boxes,), generator=generator),
                "image_id": torch.tensor([i]),
            }
        )
    return targets


def random_batch(size: int, batch: int, boxes: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Return noise [B, 3, size, size] uint8, in pinned memory with a GPU, and targets."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8)
    if torch.cuda.is_available():
        images = images.pin_memory()
    return images, random_targets(batch, boxes, generator)


def our_step(
    model: str,
    images: Tensor,
    targets: list[dict[str, Tensor]],
    *,
    precision: str,
    device: torch.device,
    **overrides: Any,
) -> Callable[[], None]:
    """Return our training step without EMA, which transformers does not have."""
    return our_training(
        model, images, targets, precision=precision, device=device, use_ema=False, **overrides
    )[1]


def our_training(
    model: str,
    images: Tensor,
    targets: list[dict[str, Tensor]],
    *,
    precision: str,
    device: torch.device,
    **overrides: Any,
) -> tuple[TrainingRun, Callable[[], None]]:
    """Return a training run and its step on one batch."""
    cfg = config(
        model,
        eval_spatial_size=list(images.shape[-2:]),
        use_amp=precision == "bfloat16",
        amp_dtype="bfloat16",
        device=str(device),
        lr_warmup_scheduler={"warmup_duration": 0},
        **overrides,
    )
    cfg.train_dataset = NO_DATA
    cfg.train_dataloader = SimpleNamespace(collate_fn=BatchImageCollateFunction())  # type: ignore[assignment]

    run = TrainingRun.create(cfg)
    run.model.train()
    run.criterion.train()
    progress = EpochProgress(epoch=0, num_steps=1)

    def step() -> None:
        train_step(run, images, targets, progress)  # type: ignore[arg-type]

    return run, step


def their_network(model: str, device: torch.device, **changes: Any) -> Any:
    """Return RT-DETRv2 of transformers with the same shape and random weights."""
    from transformers import RTDetrV2ForObjectDetection

    from tests.transformers_map import build_theirs

    # The model creates the denoising embedding, so the configuration must set it before.
    their_config = build_theirs(MODELS[model][1]).config
    their_config.num_denoising = 100
    for name, value in changes.items():
        setattr(their_config, name, value)
    return RTDetrV2ForObjectDetection(their_config).to(device)


def their_step(
    network: Any,
    images: Tensor,
    targets: list[dict[str, Tensor]],
    *,
    precision: str,
    device: torch.device,
) -> Callable[[], None]:
    """Return the training step of transformers; its float images are already on the device."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=1e-4)
    pixels = (images.float() / 255).to(device)
    labels = [
        {"class_labels": t["labels"].to(device), "boxes": t["boxes"].to(device)} for t in targets
    ]

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = network(pixel_values=pixels, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
