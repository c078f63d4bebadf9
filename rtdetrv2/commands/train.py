"""Train and evaluate from the command line; see --help."""

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from ..terminal.command import PATH, Command, update_option
from ..terminal.command_log import CommandLog, run_logged
from ..terminal.console import LiveLine, print_headline, print_notice, print_path, starting

if TYPE_CHECKING:
    from rtdetrv2_pytorch.src.core import YAMLConfig
    from rtdetrv2_pytorch.src.data.splits import Splits

LOG_FILE = "train.log"
_EXAMPLES = """
examples:
  python -m rtdetrv2_pytorch.tools.train --data my_dataset --model M --epochs 20
  python -m rtdetrv2_pytorch.tools.train --data my_dataset --resume
  python -m rtdetrv2_pytorch.tools.train -c my.yml -u epoches=20 -u optimizer.lr=0.0002
  python -m rtdetrv2_pytorch.tools.train -c my.yml -r output/last.pth
  python -m rtdetrv2_pytorch.tools.train -c my.yml -r output/best.pth --test-only
"""


@click.command(
    cls=Command,
    epilog=_EXAMPLES,
    exclusive=(
        ("data", "sample"),
        ("resume", "tuning"),
        ("resume", "overwrite"),
        ("config", "model"),
        ("output_dir", "name"),
    ),
)
@click.option(
    "-c",
    "--config",
    type=PATH,
    help="YAML file.  [default: that of --model, with a short schedule on a CPU]",
)
@click.option("--data", type=PATH, help="Dataset folder; its splits are detected.")
@click.option("--sample", is_flag=True, help="Generate a small dataset of digits and train on it.")
@click.option("--model", metavar="S|M|L|X", help="Size of the model.  [default: S]")
@click.option("--epochs", type=click.IntRange(min=1), help="Number of epochs.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Images per training batch.")
@click.option("--size", type=click.IntRange(min=32), help="Image size in pixels, a multiple of 32.")
@click.option(
    "-r",
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[CHECKPOINT]",
    help="Resume the run of this checkpoint.  [default: that of the output folder]",
)
@click.option("-t", "--tuning", "--weights", metavar="CHECKPOINT", help="Checkpoint to fine-tune.")
@click.option("-d", "--device", help="cuda, cuda:1 or cpu.  [default: a GPU if available]")
@click.option("--use-amp/--no-amp", default=None, help="Mixed precision or float32.")
@click.option("--seed", type=int, help="Random seed.")
@click.option("--output-dir", help="Folder for checkpoints and logs.")
@click.option("--name", help="Name of the run; writes to output/NAME.")
@click.option("--overwrite", is_flag=True, help="Delete results in the output folder.")
@click.option("--no-doctor", is_flag=True, help="Do not examine the dataset of --data first.")
@click.option("--test-only", is_flag=True, help="Evaluate without training.")
@update_option("a value of the configuration")
def main(*, no_doctor: bool, **values: Any) -> int:
    """Train RT-DETRv2."""
    options = TrainOptions(**values)
    if not (options.config or options.folder or options.resume or options.tuning):
        raise click.UsageError(
            "give a configuration (-c), a dataset (--data or --sample), or a checkpoint (-r)"
        )
    with starting():
        from rtdetrv2_pytorch.src.misc import distributed

        from ..terminal.training_view import TrainingFollower  # noqa: F401 (imports the engine)

    def body(console: Console, log: CommandLog) -> int:
        try:
            with LiveLine(console) as line:
                _train(options, console, log, line, examine=not no_doctor)
        except Exception as error:
            reported = distributed.report_failure(error)
            if reported is error:
                raise
            raise reported from error
        finally:
            distributed.shutdown()
        return 0

    return run_logged(body)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options that decide the configuration, see --help."""

    config: Path | None = None
    data: Path | None = None
    sample: bool = False
    model: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    size: int | None = None
    resume: str | None = None
    tuning: str | None = None
    device: str | None = None
    use_amp: bool | None = None
    seed: int | None = None
    output_dir: str | None = None
    name: str | None = None
    overwrite: bool = False
    test_only: bool = False
    update: Sequence[str] = ()

    @property
    def folder(self) -> Path | None:
        """Folder of the dataset, if one is given."""
        return Path("data", "digits") if self.sample else self.data

    def overrides(self) -> dict[str, Any]:
        """Values of the configuration that the options set."""
        from rtdetrv2_pytorch.src.core.yaml_files import merge, parse_overrides

        values = {
            "device": self.device,
            "use_amp": self.use_amp,
            "seed": self.seed,
            "tuning": self.tuning,
            "resume": self.resume or None,
            "output_dir": self.output_dir or (self.name and str(Path("output", self.name))),
            "epoches": self.epochs,
            "batch_size": self.batch_size,
            "eval_spatial_size": self.size and [self.size, self.size],
        }
        given = {name: value for name, value in values.items() if value is not None}
        return merge(given, parse_overrides(self.update))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked run, before anything is read, downloaded or written.

    Attributes:
        config: the configuration file.
        is_automatic: whether to choose initial weights and, on a CPU, a schedule.
        overrides: of the configuration.
        output_dir: of the run.
    """

    config: Path
    is_automatic: bool
    overrides: dict[str, Any]
    output_dir: Path


def _train(
    options: TrainOptions, console: Console, log: CommandLog, line: LiveLine, *, examine: bool
) -> None:
    """Examine the dataset, then train or evaluate."""
    from rtdetrv2_pytorch.src.misc import distributed
    from rtdetrv2_pytorch.src.report.training_images import TrainingImages
    from rtdetrv2_pytorch.src.report.training_report import write_report_of
    from rtdetrv2_pytorch.src.solver import DetSolver
    from rtdetrv2_pytorch.src.solver.checkpointing import lock_output
    from rtdetrv2_pytorch.src.solver.events import FanOut

    from ..terminal.training_view import TrainingFollower, print_metrics
    from .next_steps import print_next_steps

    plan = plan_run(options, console, line)
    is_first = os.environ.get("RANK", "0") == "0"  # the other ranks wait for it
    with lock_output(plan.output_dir) if is_first else contextlib.nullcontext():
        cfg, splits = configure(options, plan, console, line)
        log.open_in(cfg.output_dir, LOG_FILE, option="output_dir =")
        if examine and splits and is_first and not (options.test_only or cfg.settings.resume):
            _examine(options, splits, cfg, console, line)
        line.show("building the network and loading the data")
        followers = [TrainingImages(cfg), TrainingFollower(console, line)]
        solver = DetSolver(cfg, events=FanOut(followers), overwrite=options.overwrite)
        if options.test_only:
            if distributed.is_main():
                print_headline(console, "Evaluating", options.resume or options.tuning or "")
            evaluation = solver.val()
            if distributed.is_main():
                print_metrics(console, evaluation.as_dict(), "Validation")
        else:
            report = write_report_of(cfg, solver.fit())
            if report is not None:
                print_path(console, report)
    if distributed.is_main():
        print_path(console, cfg.output_dir / LOG_FILE)
        if not options.test_only:
            print_next_steps(console, cfg, options.folder)


def plan_run(options: TrainOptions, console: Console, line: LiveLine) -> Plan:
    """Check the options and choose configuration and output folder; nothing is written.

    A configuration file is used unchanged; a checkpoint without one has its configuration in its
    folder.

    Raises:
        ConfigError: if an option or setting is invalid.
        CheckpointError: if a checkpoint does not exist.
    """
    from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError
    from rtdetrv2_pytorch.src.misc.weights import is_url, locate
    from rtdetrv2_pytorch.src.solver.run import MODEL_CONFIG

    from . import auto_config

    overrides, config, folder = options.overrides(), options.config, options.folder
    checkpoint = options.resume or options.tuning
    if checkpoint and not is_url(checkpoint):
        locate(checkpoint)
        if config is None and options.model is None:
            config = _saved_config(Path(checkpoint))
    if config is None and folder is None:
        raise ConfigError(
            f"{checkpoint}: no {MODEL_CONFIG} in its folder; give the configuration with -c"
        )
    if config is not None:
        base = config
    elif options.sample and options.model is None:
        base = auto_config.SAMPLE_CONFIG
    else:
        base, _ = auto_config.find_model(options.model or "S")
        assert folder is not None
        overrides.setdefault("output_dir", str(Path("output", folder.resolve().name)))
    wanted = _checked(base, overrides)
    if folder is not None and not options.sample and not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; give the folder of a data set")
    output, resume = _choose_output(options, wanted, console, line)
    if resume is not None:
        overrides["resume"] = str(resume)
        base = config = _saved_config(resume) or base
    if output != wanted.output_dir:
        overrides["output_dir"] = str(output)
    return Plan(config=base, is_automatic=config is None, overrides=overrides, output_dir=output)


def configure(
    options: TrainOptions, plan: Plan, console: Console, line: LiveLine
) -> "tuple[YAMLConfig, Splits | None]":
    """Read the dataset, and turn a plan into a configuration.

    Without a configuration file, choose initial weights and, on a CPU, a short schedule.

    Returns:
        The configuration, and the splits of the dataset if it is given.
    """
    import torch

    from rtdetrv2_pytorch.src.core import YAMLConfig
    from rtdetrv2_pytorch.src.core.yaml_files import merge
    from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
    from rtdetrv2_pytorch.src.data.splits import CONVERTED, find_splits

    from . import auto_config

    overrides, folder, splits = plan.overrides, options.folder, None
    if folder is not None:
        if options.sample:
            line.show("generating the sample dataset")
            make_digits_dataset(folder)
        line.show("reading the dataset")
        splits = find_splits(folder, plan.output_dir / CONVERTED)
        overrides = merge(auto_config.data_overrides(splits.train, splits.val), overrides)
        if splits.note:
            print_notice(console, splits.note)
    if not plan.is_automatic:
        return YAMLConfig(plan.config, **overrides), splits

    if not options.tuning:
        line.show("looking for pretrained weights")
        _, weights = auto_config.find_model(options.model or "S")
        chosen, message = auto_config.initial_weights(weights)
        print_notice(console, message)
        overrides = merge(chosen, overrides)
    device = str(overrides.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device == "cpu" and not options.test_only:
        line.show("timing a few steps to choose a schedule")
        overrides, message = auto_config.fit_to_cpu(plan.config, overrides)
        print_notice(console, message)
    return YAMLConfig(plan.config, **overrides), splits


def _saved_config(checkpoint: Path) -> Path | None:
    """Return the configuration beside a checkpoint, or beside its folder as in an experiment."""
    from rtdetrv2_pytorch.src.solver.run import MODEL_CONFIG

    folder = checkpoint.expanduser().absolute().parent
    found = (each / MODEL_CONFIG for each in (folder, folder.parent))
    return next((path for path in found if path.is_file()), None)


def _checked(config: Path, overrides: dict[str, Any]) -> "YAMLConfig":
    """Check all settings and the device."""
    from rtdetrv2_pytorch.src.core import YAMLConfig

    logging.disable(logging.WARNING)  # the training logs the same warnings
    try:
        cfg = YAMLConfig(config, **overrides)
        cfg.device  # noqa: B018 (checks that it is available)
        return cfg
    finally:
        logging.disable(logging.NOTSET)


def _choose_output(
    options: TrainOptions, cfg: "YAMLConfig", console: Console, line: LiveLine
) -> tuple[Path, Path | None]:
    """Return the output folder, and the checkpoint to resume if it was found there."""
    from rtdetrv2_pytorch.src.solver.checkpointing import LAST

    from .output_folder import choose_output

    wanted, given = cfg.output_dir, cfg.settings.resume
    if options.resume == "":
        return wanted, wanted / LAST if (wanted / LAST).is_file() else None
    is_same = given is not None and Path(given).parent.resolve() == wanted.resolve()
    if options.test_only or options.overwrite or is_same:
        return wanted, None
    line.pause()
    return choose_output(wanted, data=options.folder, console=console)


def _examine(
    options: TrainOptions, splits: "Splits", cfg: "YAMLConfig", console: Console, line: LiveLine
) -> None:
    """Examine the dataset, print its findings, and use the pixel range that fits it.

    Raises:
        DatasetError: if it cannot be used for training.
    """
    from rtdetrv2_pytorch.src.core.yaml_files import get
    from rtdetrv2_pytorch.src.data.finding_kinds import Severity
    from rtdetrv2_pytorch.src.doctor import cache, examination
    from rtdetrv2_pytorch.src.doctor.data_report import REPORT_HTML
    from rtdetrv2_pytorch.src.misc.errors import DatasetError
    from rtdetrv2_pytorch.src.misc.resources import cache_folder

    from .doctor import examine_folder, print_report

    defaults = examination.Options
    chosen = defaults(
        size_hw=tuple(cfg.yaml_cfg.get("eval_spatial_size") or defaults.size_hw),
        num_queries=get(cfg.yaml_cfg, ("RTDETRTransformerv2", "num_queries"))
        or defaults.num_queries,
        pixel_range=cfg.settings.pixel_range,
        cache=cache_folder(cache.FOLDER),
    )
    name = (options.folder or Path()).resolve().name
    report, paths = examine_folder(console, line, name, splits, chosen, cfg.output_dir)
    if any(group.kind.severity is not Severity.NOTE for group in report.groups()):
        print_report(console, report)
    for path in paths:
        print_path(console, path)
    if report.refusals:
        raise DatasetError(f"{report.refusals[0]}; {report.refusals[0].kind.remedy}")
    if report.pixel_range and cfg.settings.pixel_range is None:
        low, high = report.pixel_range
        cfg.yaml_cfg["pixel_range"] = [low, high]
        print_notice(
            console,
            f"pixel_range = [{low:g}, {high:g}]: these values of images with more than 8 bits "
            f"become 0 and 255, as shown in {REPORT_HTML}",
        )
