"""Size of a network, layer by layer: parameters, multiply-adds, activations, memory.

Everything is computed on PyTorch's meta device, which has shapes but no values: the result does
not depend on the machine, and no weights are read or allocated.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.deploy.model_card import class_names_of
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint

from ..training.model_table import MODELS, find_model
from .opening import model_file

_FLOAT_BYTES = 4  # float32
_FLOPS_PER_MAC = 2


@dataclass(frozen=True)
class LayerProfile:
    """A module of the deployed network, with everything inside it."""

    name: str  # dotted; "" for the network
    kind: str  # class
    depth: int  # 0 for the network
    parameters: int
    macs: int  # multiply-adds of convolutions and matrix products
    output_shape: tuple[int, ...]  # of the first output tensor; empty: not called as a module
    output_bytes: int  # of all output tensors


@dataclass(frozen=True, kw_only=True)
class NetworkProfile:
    """Size of a network.

    Attributes:
        name: of the checkpoint, file or model.
        input_size_hw: height and width of the images in pixels.
        batch_size: images; MACs, activations and memory are for the whole batch.
        parameters: of the network as it is trained.
        trainable_parameters: those that are not frozen.
        deployed_parameters: for inference, after layers are merged.
        macs: multiply-adds of one forward pass for inference. Convolutions and matrix products
            are counted; elementwise operations, norms and sampling are not.
        weights_bytes: parameters and buffers of the deployed network in float32.
        inference_bytes: highest memory of tensors during a forward pass for inference, in float32,
            with weights and images; without the workspace of libraries.
        training_bytes: activations kept for the backward pass in float32, without weights,
            gradients, optimizer and denoising queries.
        layers: of the deployed network, each before those inside it.
    """

    name: str
    input_size_hw: tuple[int, int]
    batch_size: int
    parameters: int
    trainable_parameters: int
    deployed_parameters: int
    macs: int
    weights_bytes: int
    inference_bytes: int
    training_bytes: int
    layers: tuple[LayerProfile, ...]

    @property
    def flops(self) -> int:
        """Floating-point operations: two per multiply-add."""
        return _FLOPS_PER_MAC * self.macs

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "flops": self.flops}


def profile(
    model: str | Path | None = None,
    *,
    config: Path | None = None,
    size_hw: tuple[int, int] | None = None,
    batch_size: int = 1,
) -> NetworkProfile:
    """Profile the network of a checkpoint, a configuration or a named model.

    Args:
        model: checkpoint, output folder of a training, or a name such as S or RT-DETRv2-S.
        config: YAML file, instead of `model` or for a checkpoint that does not contain one.
        size_hw: height and width of the images; default: those of the configuration.
        batch_size: number of images.

    Raises:
        ConfigError: if the configuration or an option is invalid.
        CheckpointError: if the file is not a checkpoint with a configuration.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size = {batch_size}: must be 1 or higher")
    cfg = _configuration(model, config)
    size = size_hw or cfg.yaml_cfg.get("eval_spatial_size") or (640, 640)
    height, width = int(size[0]), int(size[1])
    cfg.yaml_cfg["eval_spatial_size"] = [height, width]
    cfg.check()
    network = cfg.build_meta_model()
    parameters = list(network.parameters())
    images = torch.empty(batch_size, 3, height, width, device="meta")
    training_bytes = _training_bytes(network, images)
    deployed = network.eval().deploy()  # type: ignore[operator]
    layers, inference_bytes = _measure(deployed, images)
    return NetworkProfile(
        name=cfg.path.name,
        input_size_hw=(height, width),
        batch_size=batch_size,
        parameters=_count(parameters),
        trainable_parameters=_count(p for p in parameters if p.requires_grad),
        deployed_parameters=_count(deployed.parameters()),
        macs=layers[0].macs,
        weights_bytes=_weights_bytes(deployed),
        inference_bytes=inference_bytes,
        training_bytes=training_bytes,
        layers=tuple(layers),
    )


def _configuration(model: str | Path | None, config: Path | None) -> YAMLConfig:
    if model is None:
        if config is None:
            raise ConfigError("no model: give a checkpoint, a name such as S, or a file with -c")
        return _with_classes(YAMLConfig(config))
    if not Path(model).exists() and Path(model).suffix == "":
        try:
            return YAMLConfig(find_model(str(model))[0])
        except ConfigError:
            raise CheckpointError(
                f"{model}: neither a file nor a model; give a checkpoint, the output folder of a "
                f"training, or one of {', '.join(MODELS)}"
            ) from None
    path = model_file(model)
    if path.suffix.lower() not in (".pth", ".pt"):
        raise ConfigError(
            f"{path}: exports have no PyTorch layers; give the checkpoint (.pth) of the export"
        )
    content = load_checkpoint(path)
    if config is not None:
        cfg = YAMLConfig(config)
    elif isinstance(content.get("config"), Mapping):
        cfg = YAMLConfig.from_values(
            merge(content["config"], {"tuning": None, "resume": None}), name=path.name
        )
    else:
        raise CheckpointError(
            f"{path}: the checkpoint does not contain its configuration; give it with -c"
        )
    names = class_names_of(content)
    if names is not None:
        cfg.yaml_cfg["num_classes"] = len(names)
    return cfg


def _with_classes(cfg: YAMLConfig) -> YAMLConfig:
    """Set the number of classes to that of the training data, if it is on this machine."""
    names = cfg.class_names if cfg.yaml_cfg.get("train_dataloader") else None
    if names is not None:
        cfg.yaml_cfg["num_classes"] = len(names)
    return cfg


def _count(tensors: Iterator[Tensor] | list[Tensor] | Any) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _weights_bytes(network: nn.Module) -> int:
    return _FLOAT_BYTES * (_count(network.parameters()) + _count(network.buffers()))


@torch.no_grad()
def _measure(network: nn.Module, images: Tensor) -> tuple[list[LayerProfile], int]:
    """Return the layers of a network, and the highest memory of a forward pass with weights."""
    outputs: dict[nn.Module, list[Tensor]] = {}

    def keep(module: nn.Module, inputs: Any, result: Any) -> None:
        del inputs
        outputs[module] = [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)]

    memory = _LiveMemory()
    with memory:
        network(images)
    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    counter = FlopCounterMode(display=False)
    with counter:
        network(images)
    for hook in hooks:
        hook.remove()
    root = type(network).__name__
    flops = counter.get_flop_counts()
    layers = []
    for name, module in network.named_modules():
        found = outputs.get(module, [])
        layers.append(
            LayerProfile(
                name=name,
                kind=type(module).__name__,
                depth=len(name.split(".")) if name else 0,
                parameters=_count(module.parameters()),
                macs=_flops(module, f"{root}.{name}" if name else root, flops) // _FLOPS_PER_MAC,
                output_shape=tuple(found[0].shape) if found else (),
                output_bytes=_FLOAT_BYTES * _count(found),
            )
        )
    images_bytes = _FLOAT_BYTES * images.numel()
    return layers, memory.peak_bytes + images_bytes + _weights_bytes(network)


def _flops(module: nn.Module, name: str, counted: Mapping[str, Mapping[Any, int]]) -> int:
    """Return the operations of a module; of its parts if only those are called, as in a list."""
    if name in counted:
        return sum(counted[name].values())
    return sum(_flops(part, f"{name}.{key}", counted) for key, part in module.named_children())


def _training_bytes(network: nn.Module, images: Tensor) -> int:
    """Return the bytes that a forward pass keeps for the backward pass."""
    weights = {id(p.untyped_storage()) for p in network.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in weights:
            storages[id(storage)] = storage
        return tensor

    network.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images)
    return sum(storage.nbytes() for storage in storages.values())


class _LiveMemory(TorchDispatchMode):
    """Measure the highest sum of the tensors that are created and still referenced."""

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes = 0
        self._bytes = 0
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {id(t.untyped_storage()) for t in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if id(storage) not in before and id(storage) not in self._alive:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        self._alive[key] = weakref.ref(storage, self._remover(key, size))
        self._bytes += size
        self.peak_bytes = max(self.peak_bytes, self._bytes)

    def _remover(self, key: int, size: int) -> Callable[[Any], None]:
        def remove(reference: Any) -> None:
            del reference
            self._alive.pop(key, None)
            self._bytes -= size

        return remove


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in pytree.tree_leaves(values) if isinstance(value, Tensor)]
