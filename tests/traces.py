"""Results of ONNX exporters and onnxslim, shared by all tests and workers of a session."""

import hashlib
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnxslim
import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn


@contextmanager
def shared_traces(folder: Path) -> Iterator[None]:
    """Export equal modules with equal options once, and simplify equal graphs once.

    An export takes up to ten seconds, and onnxslim two.

    Args:
        folder: for the files.
    """
    export, slim = torch.onnx.export, onnxslim.slim

    def export_once(module: nn.Module, inputs: Any, path: Path, **options: Any) -> None:
        key = _digest(module, inputs, repr(sorted(options.items())), torch.is_grad_enabled())
        stored = _made_once(folder / key, lambda file: export(module, inputs, file, **options))
        Path(path).write_bytes(stored.read_bytes())

    def slim_once(model: onnx.ModelProto) -> onnx.ModelProto:
        key = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
        stored = _made_once(folder / f"slim_{key}", lambda file: onnx.save(slim(model), file))
        return onnx.load(stored)

    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", export_once)
        patch.setattr(onnxslim, "slim", slim_once)
        yield


def _made_once(stored: Path, make: Callable[[Path], object]) -> Path:
    with FileLock(f"{stored}.lock"):
        if not stored.exists():
            partial = stored.with_name(f"{stored.name}.onnx")
            make(partial)
            partial.rename(stored)
    return stored


def _digest(*values: Any) -> str:
    """Return a digest of modules with all their attributes, of tensors and of options."""
    content = io.BytesIO()
    pickler = _Pickler(content)
    pickler.fast = True  # independent of which equal values are one object; dynamo changes that
    pickler.dump(values)
    return hashlib.sha256(content.getbuffer()).hexdigest()


class _Pickler(pickle.Pickler):
    """Pickles tensors as digests, because torch's pickles contain addresses."""

    def persistent_id(self, value: Any) -> tuple[Any, ...] | None:
        if not isinstance(value, Tensor):
            return None
        content = value.detach().contiguous().flatten().view(torch.uint8).numpy()
        digest = hashlib.sha256(content).hexdigest()
        return str(value.dtype), tuple(value.shape), value.requires_grad, digest
