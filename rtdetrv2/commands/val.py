"""Evaluate a model on annotated images; see --help."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from ..terminal.command import PATH, Command
from ..terminal.command_log import CommandLog, run_logged
from ..terminal.console import (
    LiveLine,
    print_detail,
    print_headline,
    print_notice,
    print_path,
    starting,
)

if TYPE_CHECKING:
    from ..analysis.evaluation import Measured

LOG_FILE = "val.log"
METRICS, RESULTS = "metrics.json", "predictions.json"
_RUNTIMES = ("pytorch", "onnxruntime", "openvino", "tensorrt")
_EXAMPLES = """
examples:
  rtdetrv2 val output/my/best.pth --data my_dataset
  rtdetrv2 val output/my/best.onnx --data my_dataset --runtime openvino --split test
  rtdetrv2 val output/my/best.pth -c output/my/model_config.yml --save-json --plots

MODEL is a checkpoint (.pth), an export (.onnx, .engine) or the output folder of a training. Classes
are matched by name; others are ignored. The metrics are those of training: COCO AP, AP50 and the
score threshold with the best F1, in total and per class.
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("model", type=PATH)
@click.option("--data", type=PATH, help="Dataset folder; its splits are detected.")
@click.option(
    "-c",
    "--config",
    type=PATH,
    help="YAML file with the data, and the network of a checkpoint that does not contain it.",
)
@click.option(
    "--split",
    type=click.Choice(("train", "val", "test")),
    default="val",
    show_default=True,
    help="Images to use.",
)
@click.option(
    "--runtime", type=click.Choice(_RUNTIMES), help="[default: chosen by the suffix of the file]"
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Images per batch.",
)
@click.option("-d", "--device", help="cuda, cuda:1 or cpu.  [default: a GPU if available]")
@click.option(
    "--score",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Ignore detections with lower scores.  [default: none]",
)
@click.option(
    "--classes", help="Names a,b,c in label order, for a checkpoint that does not contain them."
)
@click.option("--save-json", is_flag=True, help=f"Write {RESULTS}, a COCO results file.")
@click.option("--plots", is_flag=True, help="Write report.html with curves and images.")
@click.option(
    "-o", "--output", type=PATH, help="Output folder.  [default: val/ in the folder of the model]"
)
def main(
    *,
    model: Path,
    classes: str | None,
    save_json: bool,
    plots: bool,
    output: Path | None,
    **options: Any,
) -> int:
    """Evaluate MODEL on annotated images."""
    if options["data"] is None and options["config"] is None:
        raise click.UsageError("give a dataset folder (--data) or a configuration (-c)")
    with starting():
        from ..analysis.evaluation import evaluate
        from ..analysis.opening import model_file
        from ..terminal.training_view import print_metrics

    def body(console: Console, log: CommandLog) -> int:
        file = model_file(model)
        data = options["data"] or options["config"]
        name = f"{data.resolve().stem}-{options['split']}"
        folder = output or file.parent / "val" / file.name / name
        log.open_in(folder, LOG_FILE, option="--output")
        print_headline(console, "Evaluating", f"{file} on {data}")
        with LiveLine(console) as line:
            measured = evaluate(
                file,
                class_names=[each.strip() for each in classes.split(",")] if classes else None,
                work_dir=folder,
                on_progress=lambda what, done, total: line.show(what, done, total or None),
                **options,
            )
            print_detail(console, measured.note)
            print_detail(console, f"{measured.runtime} on {measured.device}")
            if measured.split.unknown_classes:
                names = ", ".join(measured.split.unknown_classes[:10])
                print_notice(console, f"Ignored classes, which the model does not have: {names}")
            print_metrics(console, measured.as_dict(), f"{options['split']}: {data.name}")
            line.show("writing the results")
            paths = _write(measured, file, folder, save_json=save_json, plots=plots)
        for path in paths:
            print_path(console, path)
        return 0

    return run_logged(body)


def _write(
    measured: "Measured", file: Path, folder: Path, *, save_json: bool, plots: bool
) -> list[Path]:
    """Write the results to the output folder; return their paths."""
    from rtdetrv2_pytorch.src.misc.files import write_text

    from ..analysis.results import save_json as save

    save(folder / METRICS, {"model": str(file), **measured.as_dict()}, option="--output")
    paths = [folder / METRICS]
    if save_json:
        write_text(folder / RESULTS, json.dumps(measured.coco_results()))
        paths.append(folder / RESULTS)
    if plots:
        config = {
            "run_name": f"{file.name}: {measured.note}",
            "runtime": measured.runtime,
            "eval_spatial_size": list(measured.card.input_size_hw),
        }
        paths.append(measured.write_report(folder, config))
    return paths
