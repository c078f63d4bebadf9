"""Limits for untrusted files.

A few hundred bytes can expand to terabytes: YAML aliases, declared tensor sizes, networks of a
billion layers. These functions check the size before anything is allocated.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .text import counted

MAX_YAML_CHARS = 1 << 20  # a hundred times the longest configuration
MAX_VALUES = 5_000_000  # in one file, with aliases expanded
MAX_SIDE_PX = 8192  # of an input: 800 MB as float32
# All tensors created while a network is built; the largest published one needs a tenth.
MAX_NETWORK_ELEMENTS = 4_000_000_000


def read_yaml(text: str) -> Any:
    """Parse YAML like `yaml.safe_load`, and reject aliases that expand too far.

    Raises:
        yaml.YAMLError: if the text is invalid or too large.
    """
    if len(text) > MAX_YAML_CHARS:
        raise yaml.YAMLError(
            f"{counted(len(text), 'character')}; configurations have {MAX_YAML_CHARS:,}"
        )
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            # Before construction, because the constructor itself expands merge keys.
            _check_size(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except (ValueError, TypeError, OverflowError) as error:  # invalid dates and numbers
        raise yaml.YAMLError(str(error)) from error


def check_values(content: Any) -> None:
    """Reject values whose expansion would not fit into memory.

    Raises:
        ValueError: if there are too many values, or they contain themselves.
    """
    try:
        _check_size(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _check_size(root: Any) -> None:
    count = _size(root, {}, set())
    if count > MAX_VALUES:
        raise ValueError(f"expanded, it would have {count:.3g} values")


def _size(value: Any, known: dict[int, int], above: set[int]) -> int:
    """Count the values in a value, with references expanded."""
    parts = _parts(value)
    if not parts:
        return 1 + len(value) // 64 if isinstance(value, str) else 1
    key = id(value)
    if key in above:
        raise ValueError("it contains itself")
    if key not in known:
        above.add(key)
        known[key] = 1 + sum(_size(part, known, above) for part in parts)
        above.remove(key)
    return known[key]


def _parts(value: Any) -> list[Any]:
    if isinstance(value, yaml.MappingNode):
        return [part for pair in value.value for part in pair]
    if isinstance(value, yaml.SequenceNode):
        return list(value.value)
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list | tuple | set | frozenset) else []


def check_tensors(content: Any, num_bytes: int) -> None:
    """Reject tensors that declare to be larger than their file.

    Args:
        content: of the file; passed `check_values`.
        num_bytes: size of the file.

    Raises:
        ValueError: naming the first one.
    """
    seen: set[int] = set()
    waiting = [("", content)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            if value.layout is not torch.strided or value.is_nested or value.device.type != "cpu":
                raise ValueError(
                    f"{name} is not a dense CPU tensor ({value.layout}, {value.device})"
                )
            if value.numel() * value.element_size() > num_bytes:
                raise ValueError(f"{name} of shape {list(value.shape)} does not fit into it")
        elif id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, Mapping):
                waiting += [(f"{name}.{key}".lstrip("."), item) for key, item in value.items()]
            else:
                waiting += [(f"{name}[]", item) for item in _parts(value)]


class LimitedMetaDevice(TorchDispatchMode):
    """Context that creates tensors on the meta device, with a limit for their number of elements.

    Args:
        max_elements: limit for all tensors together.

    Raises:
        ValueError: during construction, when the limit is exceeded.
    """

    def __init__(self, max_elements: int) -> None:
        super().__init__()
        self._max = self._left = max_elements
        self._meta = torch.device("meta")

    def __enter__(self) -> "LimitedMetaDevice":
        self._meta.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._meta.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count the elements of its results."""
        result = func(*args, **(kwargs or {}))
        self._left -= sum(
            math.prod(each.shape) for each in tree_leaves(result) if isinstance(each, Tensor)
        )
        if self._left < 0:
            raise ValueError(f"the network has more than {self._max:.2g} elements")
        return result
