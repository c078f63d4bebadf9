"""The command `rtdetrv2`; a command's module is imported when it is used."""

import click

from .terminal.command import LazyGroup

_COMMANDS = "rtdetrv2.commands"
_EXAMPLES = """
examples:
  rtdetrv2 train --data my_dataset
  rtdetrv2 predict output/my_dataset image.jpg
  rtdetrv2 export output/my_dataset/best.pth --data my_dataset
"""


@click.group(
    cls=LazyGroup,
    name="rtdetrv2",
    epilog=_EXAMPLES,
    lazy={
        "train": f"{_COMMANDS}.train:main",
        "val": f"{_COMMANDS}.val:main",
        "predict": f"{_COMMANDS}.predict:main",
        "export": f"{_COMMANDS}.export:main",
        "doctor": f"{_COMMANDS}.doctor:main",
        "radar": f"{_COMMANDS}.radar:main",
        "augment": f"{_COMMANDS}.augment:main",
        "report": f"{_COMMANDS}.report:main",
        "benchmark": f"{_COMMANDS}.benchmark:main",
        "profile": f"{_COMMANDS}.profile:main",
        "config": f"{_COMMANDS}.config:main",
        "local": "supervisely_integration.local.launcher.cli:group",
    },
)
def main() -> None:
    """Fine-tune RT-DETRv2 object detectors, predict, and export."""
