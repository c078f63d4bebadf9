"""Show what the augmentation presets do to the images of a dataset; see --help."""

import tempfile
from pathlib import Path

import click
from rich.console import Console

from rtdetrv2_pytorch.src.data.augment.presets import PRESETS, AugmentationName

from ..terminal.command import PATH, Command, update_option
from ..terminal.command_log import CommandLog, run_logged
from ..terminal.console import LiveLine, print_headline, print_path, starting

_EXAMPLES = """
examples:
  rtdetrv2 augment --data my_dataset
  rtdetrv2 augment --data my_dataset --preset aerial --images 12
  rtdetrv2 train --data my_dataset --augmentation aerial
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.option("--data", type=PATH, required=True, help="Dataset folder; its splits are detected.")
@click.option(
    "--preset",
    "presets",
    type=click.Choice([*PRESETS]),
    multiple=True,
    help="Preset to show; repeat it for several.  [default: all]",
)
@click.option("--images", type=click.IntRange(min=1), default=6, help="Images per preset.")
@click.option(
    "--side", type=click.IntRange(32, 1280), default=240, help="Size of an image, pixels."
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=Path("augmentation_presets.jpg"),
    help="The picture.  [default: augmentation_presets.jpg]",
)
@update_option("a value of the configuration")
def main(
    *,
    data: Path,
    presets: tuple[AugmentationName, ...],
    images: int,
    side: int,
    output: Path,
    update: tuple[str, ...],
) -> int:
    """Draw training images as each augmentation preset changes them, with their boxes."""
    with starting():
        from rtdetrv2_pytorch.src.core import YAMLConfig
        from rtdetrv2_pytorch.src.core.yaml_files import merge, parse_overrides
        from rtdetrv2_pytorch.src.data.splits import find_splits
        from rtdetrv2_pytorch.src.misc.drawing import save_picture
        from rtdetrv2_pytorch.src.report.augmentation_sheet import ALL, augmentation_sheet

        from ..training.auto_config import data_overrides
        from ..training.model_table import find_model

    def draw(console: Console, log: CommandLog) -> int:
        with LiveLine(console) as line, tempfile.TemporaryDirectory() as converted:
            print_headline(console, "Augmenting", data.name or str(data))
            line.show("reading the dataset")
            splits = find_splits(data, Path(converted))
            overrides = merge(data_overrides(splits.train, splits.val), parse_overrides(update))
            cfg = YAMLConfig(find_model("S")[0], **overrides)
            line.show("drawing")
            sheet = augmentation_sheet(cfg, presets or ALL, columns=images, side_px=side)
        save_picture(sheet, output, quality=85)
        print_path(console, output)
        return 0

    return run_logged(draw)
