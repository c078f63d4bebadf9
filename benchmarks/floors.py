"""How fast a step can be at best: its arithmetic, and the bytes that it cannot help moving.

    python -m benchmarks.floors [--models r18 r50] [--batch 16] [--size 640] [--device cpu]

Nothing is computed but shapes (torch's fake tensors), so a step of 16 images takes no memory.

Arithmetic: two operations per multiplication and addition of convolutions, matrix products and
attention, as torch.utils.flop_counter counts them, forward and backward. The rest (norms,
activations, sampling, losses) is two orders of magnitude less.

Bytes: what has to go to memory and back even if everything that can be fused is fused. Every tensor
that the backward pass needs is written once and read once; weights are read as float32 and written
and read in the type of the computation; gradients are written; AdamW reads weight, gradient and two
moments, and writes three of them; the moving average reads two tensors and writes one.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.steps import MODELS, config, random_targets
from benchmarks.timing import wait

_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Work:
    """What a step or an inference has to do at least."""

    flops: float
    bytes: float

    def seconds(self, rates: "Rates") -> tuple[float, float]:
        """(time of the arithmetic alone, time of the bytes alone)."""
        return self.flops / rates.flops_per_s, self.bytes / rates.bytes_per_s


@dataclass(frozen=True)
class Rates:
    """What a device does, measured with the two programs that come closest to its best."""

    flops_per_s: float  # of a large matrix product
    bytes_per_s: float  # of a copy, read and written


def training_work(model: str, *, size: int, batch: int, boxes: int = 8, **sections: Any) -> Work:
    """A training step in bfloat16, with AdamW and the moving average.

    Args:
        model: of `steps.MODELS`.
        size: side of the images.
        batch: images.
        boxes: per image: the number of denoising queries follows from it.
        **sections: more of the configuration.
    """
    targets = random_targets(batch, boxes, torch.Generator().manual_seed(0))
    real = config(model, eval_spatial_size=[size, size], **sections).model.train()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        network = _fake(real, mode)
        targets = [{k: mode.from_tensor(v) for k, v in t.items()} for t in targets]
        saved = _Saved(network)
        with FlopCounterMode(display=False) as counter:
            with (
                torch.autocast("cpu", torch.bfloat16),
                torch.autograd.graph.saved_tensors_hooks(saved.add, lambda tensor: tensor),
            ):
                outputs = network(torch.rand(batch, 3, size, size), targets)
                loss = sum(t.float().sum() for t in _tensors(outputs))
            loss.backward()
        parameters = sum(p.numel() for p in network.parameters())
    weights = (_FLOAT + 2 + 2 * 2) + _FLOAT  # cast, read forward and backward; gradients written
    optimizer = 7 * _FLOAT
    average = 3 * _FLOAT
    moved = 2 * saved.bytes + parameters * (weights + optimizer + average)
    return Work(float(counter.get_total_flops()), float(moved))


def inference_work(
    model: str, *, size: int, batch: int, bytes_per_value: int = 2, **sections: Any
) -> Work:
    """An evaluation pass: weights are read once, images once, and nothing else has to move."""
    real = config(model, eval_spatial_size=[size, size], **sections).model.deploy()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        network = _fake(real, mode)
        with FlopCounterMode(display=False) as counter:
            network(torch.rand(batch, 3, size, size))
        parameters = sum(p.numel() for p in network.parameters())
    moved = bytes_per_value * parameters + 3 * size * size * batch
    return Work(float(counter.get_total_flops()), float(moved))


def _fake(network: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy whose weights have shapes only."""
    with FakeCopyMode(mode):
        return copy.deepcopy(network)


class _Saved:
    """Bytes of what the backward pass keeps; weights and what shares memory count once, or not."""

    def __init__(self, network: nn.Module) -> None:
        self.bytes = 0
        self._seen = {t.untyped_storage()._cdata for t in network.state_dict().values()}

    def add(self, tensor: Tensor) -> Tensor:
        """Count a tensor."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self.bytes += storage.nbytes()
        return tensor


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.requires_grad else []
    if isinstance(value, dict):
        return [t for part in value.values() for t in _tensors(part)]
    if isinstance(value, list | tuple):
        return [t for part in value for t in _tensors(part)]
    return []


def measured_rates(
    device: torch.device, *, dtype: torch.dtype = torch.bfloat16, side: int | None = None
) -> Rates:
    """Time a matrix product and a copy, the best of ten each.

    Args:
        device: which one.
        dtype: of the product; a GPU's in float32 is one of TF32, as its convolutions are.
        side: of the matrices; default: 8192 on a GPU, 2048 elsewhere.
    """
    side = side or (8192 if device.type == "cuda" else 2048)
    a = torch.randn(side, side, device=device).to(dtype)
    b = torch.randn(side, side, device=device).to(dtype)
    source = torch.zeros(16 * side * side, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        product_s = _best(lambda: torch.mm(a, b), device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return Rates(
        flops_per_s=2 * side**3 / product_s,
        bytes_per_s=2 * len(source) / _best(lambda: target.copy_(source), device),
    )


def _best(work: Callable[[], Any], device: torch.device) -> float:
    times = []
    for _ in range(13):
        wait(device)
        begin = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - begin)
    return min(times[3:])


def parse_step(description: str | None) -> argparse.Namespace:
    """The command line of a program about a training step: models, batch, size, device."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> None:
    """Print the floors as JSON lines."""
    arguments = parse_step(__doc__)
    rates = measured_rates(torch.device(arguments.device))
    print(json.dumps({"device": arguments.device, **asdict(rates)}))
    for model in arguments.models:
        work = training_work(model, size=arguments.size, batch=arguments.batch)
        arithmetic_s, bytes_s = work.seconds(rates)
        facts = {"model": model, **asdict(work), "arithmetic_s": arithmetic_s, "bytes_s": bytes_s}
        print(json.dumps(facts))


if __name__ == "__main__":
    main()
