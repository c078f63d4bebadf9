"""Train and evaluate from the command line; see --help."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from .command import PATH, Command, update_option
from .command_log import CommandLog, run_logged
from .console import LiveLine, print_headline, print_notice, print_path, starting

if TYPE_CHECKING:
    from ..src.core import YAMLConfig
    from ..src.data.splits import Splits

LOG_FILE = "train.log"
_EXAMPLES = """
examples:
  python -m rtdetrv2_pytorch.tools.train --data my_dataset
  python -m rtdetrv2_pytorch.tools.train -c my.yml -u epoches=20 -u optimizer.lr=0.0002
  python -m rtdetrv2_pytorch.tools.train -c my.yml -r output/last.pth
  python -m rtdetrv2_pytorch.tools.train -c my.yml -r output/best.pth --test-only
"""


@click.command(cls=Command, epilog=_EXAMPLES, exclusive=(("data", "sample"), ("resume", "tuning")))
@click.option(
    "-c",
    "--config",
    type=PATH,
    help="YAML file.  [default: RT-DETRv2-S, with a short schedule on a CPU]",
)
@click.option("--data", type=PATH, help="Dataset folder; its splits are detected.")
@click.option("--sample", is_flag=True, help="Generate a small dataset of digits and train on it.")
@click.option("-r", "--resume", help="Checkpoint of the run to resume.")
@click.option("-t", "--tuning", help="Checkpoint to fine-tune.")
@click.option("-d", "--device", help="cuda, cuda:1 or cpu.  [default: a GPU if available]")
@click.option("--use-amp/--no-amp", default=None, help="Mixed precision or float32.")
@click.option("--seed", type=int, help="Random seed.")
@click.option("--output-dir", help="Folder for checkpoints and logs.")
@click.option("--no-doctor", is_flag=True, help="Do not examine the dataset of --data first.")
@click.option("--test-only", is_flag=True, help="Evaluate without training.")
@update_option("a value of the configuration")
def main(*, no_doctor: bool, **values: Any) -> int:
    """Train RT-DETRv2."""
    options = TrainOptions(**values)
    if not (options.config or options.folder or options.resume):
        raise click.UsageError(
            "give a configuration (-c), a dataset (--data or --sample), or a checkpoint (-r)"
        )
    with starting():
        from ..src.misc import distributed
        from .training_view import TrainingFollower  # noqa: F401 (imports the engine)

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
    resume: str | None = None
    tuning: str | None = None
    device: str | None = None
    use_amp: bool | None = None
    seed: int | None = None
    output_dir: str | None = None
    test_only: bool = False
    update: Sequence[str] = ()

    @property
    def folder(self) -> Path | None:
        """Folder of the dataset, if one is given."""
        return Path("data", "digits") if self.sample else self.data

    def overrides(self) -> dict[str, Any]:
        """Values of the configuration that the options set."""
        from ..src.core.yaml_files import merge, parse_overrides

        names = ("device", "use_amp", "seed", "tuning", "resume", "output_dir")
        values = {name: getattr(self, name) for name in names}
        given = {name: value for name, value in values.items() if value is not None}
        return merge(given, parse_overrides(self.update))


def _train(
    options: TrainOptions, console: Console, log: CommandLog, line: LiveLine, *, examine: bool
) -> None:
    """Examine the dataset, then train or evaluate."""
    from ..src.misc import distributed
    from ..src.report.training_images import TrainingImages
    from ..src.report.training_report import write_report_of
    from ..src.solver import DetSolver
    from ..src.solver.events import FanOut
    from .training_view import TrainingFollower, print_metrics

    cfg, splits = configure(options, console, line)
    log.open_in(cfg.output_dir, LOG_FILE, option="output_dir =")
    is_first = os.environ.get("RANK", "0") == "0"  # the other ranks wait for it
    if examine and splits and is_first and not (options.test_only or options.resume):
        _examine(options, splits, cfg, console, line)
    line.show("building the network and loading the data")
    followers = FanOut([TrainingImages(cfg), TrainingFollower(console, line)])
    solver = DetSolver(cfg, events=followers)
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


def configure(
    options: TrainOptions, console: Console, line: LiveLine
) -> "tuple[YAMLConfig, Splits | None]":
    """Turn the options into a checked configuration, and the splits of the dataset if it is given.

    A configuration file is used unchanged; a resumed run uses the one in its folder. Without
    either, choose initial weights and, on a CPU, a short schedule.
    """
    import torch

    from ..src.core import ConfigError, YAMLConfig
    from ..src.core.yaml_files import merge
    from ..src.data.digits import make_digits_dataset
    from ..src.data.splits import CONVERTED, find_splits
    from ..src.solver.run import MODEL_CONFIG
    from . import auto_config

    overrides, config, folder = options.overrides(), options.config, options.folder
    if options.resume and config is None:
        saved = Path(options.resume).parent / MODEL_CONFIG
        config = saved if saved.is_file() else None
    splits = None
    if folder is not None:
        if options.sample:
            line.show("generating the sample dataset")
            make_digits_dataset(folder)
        elif config is None:
            overrides.setdefault("output_dir", str(Path("output", folder.resolve().name)))
        line.show("reading the dataset")
        splits = find_splits(folder, _output_dir(config, overrides) / CONVERTED)
        overrides = merge(auto_config.data_overrides(splits.train, splits.val), overrides)
        if splits.note:
            print_notice(console, splits.note)
    if config is not None:
        return YAMLConfig(config, **overrides), splits

    if folder is None:
        raise ConfigError(
            f"{options.resume}: no {MODEL_CONFIG} in its folder; give the configuration with -c"
        )
    config = auto_config.SAMPLE_CONFIG if options.sample else auto_config.DEFAULT_CONFIG
    if not (options.tuning or options.resume):
        line.show("looking for pretrained weights")
        chosen, message = auto_config.initial_weights()
        print_notice(console, message)
        overrides = merge(chosen, overrides)
    device = str(overrides.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device == "cpu" and not options.test_only:
        line.show("timing a few steps to choose a schedule")
        overrides, message = auto_config.fit_to_cpu(config, overrides)
        print_notice(console, message)
    return YAMLConfig(config, **overrides), splits


def _output_dir(config: Path | None, overrides: Mapping[str, Any]) -> Path:
    """Return the output folder of a configuration file with overrides, before it is checked."""
    from ..src.core.settings import Settings
    from ..src.core.yaml_files import merge_layers, read_layers

    values = merge_layers(read_layers(config)) if config is not None else {}
    return Path({**values, **overrides}.get("output_dir") or Settings.output_dir)


def _examine(
    options: TrainOptions, splits: "Splits", cfg: "YAMLConfig", console: Console, line: LiveLine
) -> None:
    """Examine the dataset and print its findings.

    Raises:
        DatasetError: if it cannot be used for training.
    """
    from ..src.core.yaml_files import get
    from ..src.data.finding_kinds import Severity
    from ..src.doctor import cache, examination
    from ..src.misc.errors import DatasetError
    from ..src.misc.resources import cache_folder
    from .doctor import examine_folder, print_report

    defaults = examination.Options
    chosen = defaults(
        size_hw=tuple(cfg.yaml_cfg.get("eval_spatial_size") or defaults.size_hw),
        num_queries=get(cfg.yaml_cfg, ("RTDETRTransformerv2", "num_queries"))
        or defaults.num_queries,
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


if __name__ == "__main__":
    sys.exit(main())
