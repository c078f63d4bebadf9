"""Show the size of a network, layer by layer; see --help."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape

from ..terminal.command import PATH, Command
from ..terminal.command_log import CommandLog, run_logged
from ..terminal.console import print_detail, print_headline, print_path, result_table, starting
from ..terminal.size_type import SizeType

if TYPE_CHECKING:
    from ..analysis.profile import LayerProfile, NetworkProfile

_FILE_WIDTH = 120  # characters
_EXAMPLES = """
examples:
  rtdetrv2 profile output/my/best.pth
  rtdetrv2 profile S --size 800x1333 --depth 3
  rtdetrv2 profile -c my.yml --batch-size 16 --json profile.json

MODEL is a checkpoint, the output folder of a training, or S, M, L or X. MACs are multiply-adds of
convolutions and matrix products in one forward pass; FLOPs are twice the MACs. Layers are those of
the deployed network, in which convolutions and norms are merged.
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("model", required=False)
@click.option("-c", "--config", type=PATH, help="YAML file, for a model without a checkpoint.")
@click.option(
    "--size", "size_hw", type=SizeType(), metavar="HxW", help="[default: of the configuration]"
)
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--depth",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Levels of the tree of layers.",
)
@click.option("--json", "json_file", type=PATH, help="Write the profile with all layers to a file.")
def main(
    *,
    model: str | None,
    config: Path | None,
    size_hw: tuple[int, int] | None,
    batch_size: int,
    depth: int,
    json_file: Path | None,
) -> int:
    """Count parameters, FLOPs and memory of MODEL, layer by layer."""
    if model is None and config is None:
        raise click.UsageError("give a model (a checkpoint, S, M, L or X) or a configuration (-c)")
    with starting():
        from ..analysis.profile import profile
        from ..analysis.results import save_json

    def body(console: Console, log: CommandLog) -> int:
        del log
        found = profile(model, config=config, size_hw=size_hw, batch_size=batch_size)
        _show(found, console, depth)
        if json_file is not None:
            save_json(json_file, found.as_dict(), option="--json")
            print_path(console, json_file)
        return 0

    return run_logged(body)


def _show(found: "NetworkProfile", console: Console, depth: int) -> None:
    height, width = found.input_size_hw
    print_headline(
        console,
        "Profile",
        f"of {found.name}, batch {found.batch_size}, {height}x{width} pixels (height x width)",
    )
    table = result_table(console, "")
    for name in ("layer", "type"):
        table.add_column(name)
    for name in ("parameters", "GMACs", "output", "output MB"):
        table.add_column(name, justify="right")
    for layer, label in _tree(found.layers, depth):
        shape = "x".join(map(str, layer.output_shape))
        table.add_row(
            escape(label),
            layer.kind,
            f"{layer.parameters:,}",
            f"{layer.macs / 1e9:.3f}" if layer.macs else "-",
            shape or "-",
            f"{layer.output_bytes / 1e6:.1f}" if layer.output_bytes else "-",
        )
    # Names are not shortened in files and pipes.
    console.print(table, width=None if console.is_terminal else max(console.width, _FILE_WIDTH))
    trained, trainable = found.parameters, found.trainable_parameters
    lines = (
        f"parameters: {trained:,} ({trained / 1e6:.1f} M), trainable {trainable:,}, deployed "
        f"{found.deployed_parameters:,}",
        f"computation: {found.macs / 1e9:.1f} GMACs, {found.flops / 1e9:.1f} GFLOPs",
        f"weights: {found.weights_bytes / 1e6:.1f} MB in float32",
        f"inference: {found.inference_bytes / 1e6:.1f} MB of tensors at the peak, with weights",
        f"training: {found.training_bytes / 1e6:.1f} MB of activations, without weights, "
        "gradients and optimizer",
    )
    for line in lines:
        print_detail(console, line)


def _tree(layers: "tuple[LayerProfile, ...]", depth: int) -> "Iterator[tuple[LayerProfile, str]]":
    """Yield the layers of a tree down to a depth; containers are replaced by their content."""
    containers: list[str] = []
    for layer in layers:
        hidden = sum(layer.name.startswith(f"{name}.") for name in containers)
        if layer.kind == "ModuleList":
            containers.append(layer.name)
        elif layer.depth - hidden <= depth:
            owner = layer.name.rpartition(".")[0]
            while owner in containers:
                owner = owner.rpartition(".")[0]
            label = layer.name[len(owner) + 1 if owner else 0 :] or "(network)"
            yield layer, "  " * (layer.depth - hidden) + label
