"""How much a file from elsewhere may ask for.

A few hundred bytes can stand for terabytes: names that refer to one another, sizes that are only
declared, networks of a billion layers. Each is measured here before anything is made of it.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MAX_YAML_CHARS = 1 << 20  # a hundred times the longest configuration
MAX_VALUES = 5_000_000  # in one file, every one counted as often as it would be written out
MAX_SIDE_PX = 8192  # of an input: 800 MB as float32
# Everything that a network makes while it is built; the largest published one makes a tenth of it.
MAX_NETWORK_ELEMENTS = 4_000_000_000


def read_yaml(text: str) -> Any:
    """Parse YAML as `yaml.safe_load` does, but what was meant to explode is refused.

    Raises:
        yaml.YAMLError: for everything that is wrong with the text.
    """
    if len(text) > MAX_YAML_CHARS:
        raise yaml.YAMLError(f"{len(text)} characters; configurations have {MAX_YAML_CHARS:,}")
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            # Before construction: merge keys explode in the constructor itself.
            _check_size(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except (ValueError, TypeError, OverflowError) as error:  # dates and numbers that are none
        raise yaml.YAMLError(str(error)) from error


def check_values(content: Any) -> None:
    """Refuse values that would not fit into memory if something walked through them.

    Raises:
        ValueError: if there are too many, or they contain themselves.
    """
    try:
        _check_size(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _check_size(root: Any) -> None:
    count = _size(root, {}, set())
    if count > MAX_VALUES:
        raise ValueError(f"written out, it would have {count:.3g} values")


def _size(value: Any, known: dict[int, int], above: set[int]) -> int:
    """Values in this one, those that are referred to several times counted as often."""
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
    """Refuse tensors that say they are larger than the file that they came from.

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
                raise ValueError(f"{name} is no ordinary tensor ({value.layout}, {value.device})")
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
        """Run an operation, and count what it made."""
        result = func(*args, **(kwargs or {}))
        self._left -= sum(
            math.prod(made.shape) for made in tree_leaves(result) if isinstance(made, Tensor)
        )
        if self._left < 0:
            raise ValueError(f"it describes a network of more than {self._max:.2g} numbers")
        return result
