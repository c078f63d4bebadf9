"""The options of `train`, without slow imports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError
from rtdetrv2_pytorch.src.misc.text import parse_json

from ...models import published_models
from ..emulator.store import Store
from .app_process import check_port
from .selection import check_split, choose_classes, choose_split, find_project


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


def check_options(options: TrainArguments) -> None:
    """Check what can be checked without the engine, before its slow imports.

    Raises:
        ConfigError: if a value is invalid, a file is not readable, or the port is in use.
        DatasetError: if the folder of the data or the project does not exist.
    """
    if options.data is not None and not options.data.is_dir():
        raise DatasetError(f"{options.data}: no such folder; give the folder of a data set")
    names = [row["Model"] for row in published_models()]
    if options.model is not None and options.model not in names:
        raise ConfigError(f"--model {options.model!r}: unknown; use one of {', '.join(names)}")
    for text in options.update:
        if not text.partition("=")[0].strip() or "=" not in text:
            raise ConfigError(f"-u {text}: expected key=value, for example epoches=20")
    if options.app_state is not None:
        read_app_state(options.app_state)
    check_split(options.split)
    check_port(options.port)
    if options.project is not None and options.root.is_dir():
        project = find_project(Store(options.root), options.project)
        choose_classes(project, options.classes)
        choose_split(project, options.split)


def read_app_state(path: Path) -> dict[str, Any]:
    """Read the settings of an experiment.

    Raises:
        ConfigError: if the file is not readable or not a JSON object.
    """
    try:
        state = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: not readable ({error}); give the app_state.json of an experiment"
        ) from error
    if not isinstance(state, dict):
        raise ConfigError(f"{path}: not an object; use the app_state.json of an experiment")
    return state
