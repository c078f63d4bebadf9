"""Options of a training, as the command line and the Python API give them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a training; None is the default of the configuration.

    Attributes:
        config: YAML file; default: that of the model.
        data: dataset folder; its splits are detected.
        sample: whether to generate a small dataset of digits and train on it.
        model: size S, M, L or X, another name of the model table, or that of a configuration.
        epochs: number of epochs.
        time_budget: duration of the run, such as 30m or 2h; chooses the number of epochs.
        batch_size: images per training batch.
        size: height and width of the training images in pixels, a multiple of 32.
        resume: checkpoint whose run is resumed; "" resumes that of the output folder.
        tuning: weights to start from: a file, a URL, "coco", "objects365", or "none" for random
            weights.
        augmentation: preset for a kind of pictures, see docs/augmentation.md; default: that of the
            configuration.
        device: cuda, cuda:1 or cpu; default: a GPU if available.
        use_amp: whether to use mixed precision.
        seed: of all random numbers.
        output_dir: folder for checkpoints and logs.
        name: of the run, which writes to output/NAME.
        overwrite: whether to delete results in the output folder.
        examine: whether to examine the dataset first.
        test_only: whether to evaluate without training.
        update: "key=value" of the configuration.
        update_name: of `update` in error messages.
    """

    config: Path | None = None
    data: Path | None = None
    sample: bool = False
    model: str | None = None
    epochs: int | None = None
    time_budget: float | str | None = None
    batch_size: int | None = None
    size: int | None = None
    resume: str | None = None
    tuning: str | None = None
    augmentation: str | None = None
    device: str | None = None
    use_amp: bool | None = None
    seed: int | None = None
    output_dir: str | None = None
    name: str | None = None
    overwrite: bool = False
    examine: bool = True
    test_only: bool = False
    update: Sequence[str] = ()
    update_name: str = "-u"

    @property
    def folder(self) -> Path | None:
        """Folder of the dataset, if one is given."""
        return Path("data", "digits") if self.sample else self.data

    def overrides(self) -> dict[str, Any]:
        """Values of the configuration that the options set."""
        from rtdetrv2_pytorch.src.core.yaml_files import merge, parse_overrides  # imports torch

        values = {
            "augmentation": self.augmentation,
            "device": self.device,
            "use_amp": self.use_amp,
            "seed": self.seed,
            "tuning": self.tuning,
            "resume": self.resume or None,
            "output_dir": self.output_dir or (self.name and str(Path("output", self.name))),
            "epoches": self.epochs,
            "time_budget": self.time_budget,
            "batch_size": self.batch_size,
            "eval_spatial_size": self.size and [self.size, self.size],
        }
        given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        given = merge(given, parse_overrides(self.update))
        if "epoches" in given:  # a budget of the configuration would choose another number
            given.setdefault("time_budget", None)
        return given

    def name_source(self, error: ConfigError) -> None:
        """Name `update` as the source of an error about a value that it sets."""
        from rtdetrv2_pytorch.src.core.error_places import OVERRIDES, names_setting
        from rtdetrv2_pytorch.src.core.yaml_files import parse_overrides

        if error.source == OVERRIDES:
            is_update = names_setting(parse_overrides(self.update), error.args[0])
            error.source = self.update_name if is_update else None
