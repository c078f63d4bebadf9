"""The options of `train`, without slow imports."""

from dataclasses import dataclass
from pathlib import Path

EXPORTS = {
    "onnx": "ONNXRuntime",
    "tensorrt": "TensorRT",
}  # name on the command line -> name in the SDK


@dataclass(frozen=True)
class TrainArguments:
    """The options of `train`; the command's --help describes them."""

    root: Path
    project: str | None
    data: Path | None
    sample: bool
    model: str | None
    epochs: int | None
    classes: str | None
    split: str | None
    name: str | None
    update: tuple[str, ...]
    benchmark: bool
    speedtest: bool
    export: tuple[str, ...]
    app_state: Path | None
    task: int | None
    gui: bool
    port: int
