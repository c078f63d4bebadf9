"""Arguments of the public trainer's scripts, in those of our commands; see docs/switching.md."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

from ..terminal.console import open_console, print_notice


@dataclass(frozen=True)
class Rule:
    """Replacement of an argument of the public scripts.

    Attributes:
        ours: arguments of ours; `{}` is the value. Empty: the argument is ignored.
        takes_value: whether the public argument has a value.
        note: printed if the argument is ignored.
        refused: why it cannot work and what replaces it; empty if it works.
    """

    ours: tuple[str, ...] = ()
    takes_value: bool = False
    note: str = ""
    refused: str = ""


_BATCH_SIZES = ("-mb", "-ob", "-Mb")  # minimum, best, maximum
_BATCH_DEFAULTS = (1, 16, 32)  # of the public script
_UPDATE = Rule(
    refused="put the values in a YAML file that includes the configuration (__include__: [FILE]), "
    "and give it with -c"
)
_OTHER_NAMES = {
    "--output_file": "-o",
    "--saveEngine": "-o",
    "--input_size": "-s",
    "--minBatchSize": "-mb",
    "--optBatchSize": "-ob",
    "--maxBatchSize": "-Mb",
    "--update": "-u",
    "--local_rank": "--local-rank",
    "--use-wandb": "--wandb",
    "--use_wandb": "--wandb",
    "--wandb_project": "--wandb-project",
}
TRAIN = {
    "--summary-dir": Rule(("-u", "summary_dir={}"), takes_value=True),
    "--amp": Rule(("--use-amp",)),
    "--wandb": Rule(("-u", "loggers=[tensorboard,wandb]")),
    "--wandb-project": Rule(takes_value=True, note="set WANDB_PROJECT in the environment"),
    "--print-method": Rule(takes_value=True, note="the log is always formatted"),
    "--print-rank": Rule(takes_value=True, note="rank 0 writes the log"),
    "--local-rank": Rule(takes_value=True, note="torchrun sets LOCAL_RANK"),
}
EXPORT_ONNX = {
    "-s": Rule(("--size", "{}", "{}"), takes_value=True),
    "--check": Rule(note="every export is checked and compared with PyTorch"),
    "--simplify": Rule(note="every export is simplified; --no-slim disables it"),
    "-u": _UPDATE,
}
EXPORT_TRT = {
    "-i": Rule(("--onnx", "{}"), takes_value=True),
    **{name: Rule(takes_value=True) for name in _BATCH_SIZES},
    "--fp16": Rule(note="float16 is the default; --fp32 disables it"),
    "--verbose": Rule(note="export.log contains the messages of the build"),
    "-u": _UPDATE,
}


def translate(arguments: Sequence[str], rules: Mapping[str, Rule]) -> list[str]:
    """Return our arguments, and print a line for each one that is ignored.

    Raises:
        click.UsageError: for an argument that cannot work, or lacks its value.
    """
    ours: list[str] = []
    batch_sizes: dict[str, int] = {}
    words = iter(arguments)
    for word in words:
        given, equals, value = word.partition("=")
        name = _OTHER_NAMES.get(given, given) if given.startswith("-") else given
        rule = rules.get(name)
        if rule is None:
            ours.append(f"{name}{equals}{value}")
            continue
        if rule.refused:
            raise click.UsageError(f"{given}: {rule.refused}")
        if rule.takes_value and not equals:
            value = next(words, "")
        if rule.takes_value and not value:
            raise click.UsageError(f"{given}: give a value")
        if name in _BATCH_SIZES:
            batch_sizes[name] = _number(given, value)
        elif not rule.ours:
            print_notice(open_console(), f"{given} is ignored: {rule.note}")
        ours += [part.format(value) for part in rule.ours]
    return ours + _batch_sizes(batch_sizes)


def run(command: click.Command, rules: Mapping[str, Rule]) -> int:
    """Run a command with the arguments of `sys.argv`; return the exit status."""
    try:
        arguments = translate(sys.argv[1:], rules)
    except click.UsageError as error:
        error.show()
        return error.exit_code
    return int(command(arguments))


def _number(name: str, value: str) -> int:
    if not value.isdecimal():
        raise click.UsageError(f"{name} {value}: give a number")
    return int(value)


def _batch_sizes(given: Mapping[str, int]) -> list[str]:
    """Return `--batch-sizes` with the public defaults for the sizes that are not given."""
    if not given:
        return []
    smallest, best, largest = (
        given.get(name, default)
        for name, default in zip(_BATCH_SIZES, _BATCH_DEFAULTS, strict=True)
    )
    best = given.get("-ob", max(smallest, min(best, largest)))
    return ["--batch-sizes", str(smallest), str(best), str(largest)]
