"""Devices and runtimes of a deployment, from requests and from the command line."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from supervisely.nn.utils import RuntimeType

from rtdetrv2_pytorch.src.misc.devices import checked_device
from rtdetrv2_pytorch.src.misc.errors import ConfigError

LOOPBACK = "127.0.0.1"
PORT = 8000  # the SDK's
# The SDK's names of runtimes -> the engine's.
RUNTIMES = {
    "PyTorch": "pytorch",
    "ONNXRuntime": "onnxruntime",
    "TensorRT": "tensorrt",
    "OpenVINO": "openvino",
}
_SHORT_NAMES = {"torch": "PyTorch", "onnx": "ONNXRuntime", "trt": "TensorRT"}
# Attributes of `Inference` that a deployment sets before it has loaded the model.
_DEPLOYED = (
    *("device", "runtime", "model_precision", "model_source", "checkpoint_info", "classes"),
    *("max_batch_size", "_model_meta", "_hardware", "_deploy_params", "_model_served"),
)
_deployment = threading.Lock()


def add_openvino() -> None:
    """Add OpenVINO to the runtimes that `RuntimeType` (supervisely/nn/utils.py) lists."""
    RuntimeType.OPENVINO = "OpenVINO"


def runtime_name(name: str | None) -> str:
    """Return the SDK's name of a runtime in any spelling; the SDK uses PyTorch for unknown names.

    Raises:
        ConfigError: if the runtime is unknown.
    """
    wanted = (name or RuntimeType.PYTORCH).lower()
    known = {each.lower(): each for each in RUNTIMES} | _SHORT_NAMES
    if wanted not in known:
        raise ConfigError(f"runtime = {name!r}: there are {', '.join(RUNTIMES)}")
    return known[wanted]


def complete_deploy_params(deploy_params: dict[str, Any]) -> dict[str, Any]:
    """Check and complete runtime and device, before anything is downloaded.

    Raises:
        ConfigError: if the device or runtime is unknown.
    """
    deploy_params["runtime"] = runtime_name(deploy_params.get("runtime"))
    device = deploy_params.get("device") or ("cuda:0" if torch.cuda.is_available() else "cpu")
    deploy_params["device"] = str(checked_device(device))
    return deploy_params


@contextmanager
def keep_on_failure(model: Any) -> Iterator[None]:
    """Let the deployed model answer while another one is loaded, and restore it if that fails.

    `Inference` (supervisely/nn/inference/inference.py) stops the deployed model before it downloads
    the new one. Deployments run one at a time.

    Args:
        model: its `kept` holds the attributes of the deployed model within the context.
    """
    with _deployment:
        if not model._model_served:
            yield
            return
        model.kept = {name: getattr(model, name) for name in _DEPLOYED}
        try:
            yield
        except BaseException:
            vars(model).update(model.kept)
            if model.gui is not None:
                model.gui._success_label.show()
            raise
        finally:
            model.kept = {}


def is_command_line(words: Sequence[str] | None = None) -> bool:
    """Return whether the process was started with `deploy` or `predict`."""
    return bool({"deploy", "predict"} & set((sys.argv if words is None else words)[1:2]))


def parse_command_line(parse: Callable[[], tuple[Any, bool]]) -> tuple[Any, bool]:
    """Parse the SDK's command line, with every runtime and without a GPU.

    `Inference._parse_cli_deploy_args` (supervisely/nn/inference/inference.py) defaults to cuda:0,
    does not offer OpenVINO, and uses PyTorch for every file. `_run_server` listens on all
    interfaces; here `--host`, or `UVICORN_HOST` as for the apps, chooses them.

    Args:
        parse: the SDK's parser of `sys.argv`.
    """
    if not is_command_line():
        return None, False
    original, words = sys.argv, list(sys.argv)
    runtime, host = _take(words, "--runtime"), _take(words, "--host")
    if runtime is None and "--model" in words[:-1]:
        suffix = Path(words[words.index("--model") + 1]).suffix.lower()
        runtime = {".onnx": "ONNXRuntime", ".engine": "TensorRT"}.get(suffix)
    if not torch.cuda.is_available() and not any(word.startswith("--device") for word in words):
        words += ["--device", "cpu"]
    try:
        sys.argv = words
        arguments, is_deploy = parse()
    finally:
        sys.argv = original
    arguments.runtime = runtime_name(runtime or arguments.runtime)
    arguments.host = host or os.environ.get("UVICORN_HOST") or LOOPBACK
    return arguments, is_deploy


def _take(words: list[str], option: str) -> str | None:
    """Remove an option and its value from a command line; return the value."""
    for place, word in enumerate(words):
        if word == option and place + 1 < len(words):
            del words[place]
            return words.pop(place)
        if word.startswith(f"{option}="):
            return words.pop(place).partition("=")[2]
    return None
