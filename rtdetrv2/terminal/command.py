"""Command-line framework: click commands that parse without importing the engine.

A command is a function with click options, declared with `cls=Command`. Its module imports only
the standard library, click and rich; the function body imports the engine inside `starting()`, so
that --help and usage errors do not wait for torch.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from rtdetrv2_pytorch.src.misc.errors import RTDETRError

from .console import INTERRUPTED, open_console, print_error, print_notice

PATH = click.Path(path_type=Path)
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Runnable(click.Command):
    def __call__(self, *args: Any, **kwargs: Any) -> int:
        """Run the command with arguments, by default `sys.argv`; return the exit status."""
        try:
            return int(self.main(*args, **{**kwargs, "standalone_mode": False}) or 0)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except RTDETRError as error:
            print_error(type(error).__name__, str(error))
            return 1
        except (click.Abort, KeyboardInterrupt):
            print_notice(open_console(), "Interrupted.")
            return INTERRUPTED

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog with its own line breaks."""
        if self.epilog:
            formatter.write(f"\n{self.epilog.strip()}\n")


class Command(_Runnable):
    """A click command with mutually exclusive options and list options.

    Args:
        exclusive: groups of parameter names of which at most one may be given.
        **attributes: of `click.Command`; line breaks of the epilog are kept.
    """

    def __init__(self, *, exclusive: Sequence[Sequence[str]] = (), **attributes: Any) -> None:
        super().__init__(**{"context_settings": _CONTEXT, **attributes})
        self._exclusive = exclusive

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, then check the exclusive groups."""
        rest = super().parse_args(ctx, self._repeat_list_options(args))
        flags = {parameter.name: parameter.opts[-1] for parameter in self.params}
        for group in self._exclusive:
            given = [
                flags[name]
                for name in group
                if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
            ]
            if len(given) > 1:
                raise click.UsageError(
                    f"{' and '.join(given)} are mutually exclusive; give one", ctx
                )
        return rest

    def _repeat_list_options(self, args: Sequence[str]) -> list[str]:
        """Turn `--images a b`, which click does not know, into `--images a --images b`."""
        options = {n: p for p in self.params if isinstance(p, ListOption) for n in p.opts}
        repeated: list[str] = []
        option, count = "", 0
        for arg in args:
            if arg.startswith("-"):
                option, count = (arg if arg in options else ""), 0
            elif option:
                count += 1
                if count > 1 and options[option].accepts(arg):
                    repeated.append(option)
                elif count > 1:
                    option = ""
            repeated.append(arg)
        return repeated


class LazyGroup(_Runnable, click.Group):
    """A group of commands whose modules are imported when they are needed.

    Args:
        commands: "module:attribute" of every command, by name.
        **attributes: of `click.Group`.
    """

    def __init__(self, *, lazy: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(**{"context_settings": _CONTEXT, **attributes})
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in the order of their declaration."""
        return [*self._lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if the name is unknown."""
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


class ListOption(click.Option):
    """An option that takes one or more values: `--images a.jpg b.jpg`."""

    def accepts(self, word: str) -> bool:
        """Return whether a word after the first value is another value of the option."""
        return bool(word)

    def __init__(self, *declarations: Any, **attributes: Any) -> None:
        super().__init__(*declarations, **{**attributes, "multiple": True})


class _UpdateOption(ListOption):
    """`-u a=1 b=2`; a word without "=" is an argument of the command."""

    def accepts(self, word: str) -> bool:
        """Return whether a word is an assignment."""
        return "=" in word


def update_option(subject: str) -> Callable[[_Function], _Function]:
    """Declare `-u KEY=VALUE`; `core.yaml_files.parse_overrides` reads the values."""
    return click.option(
        "-u",
        "--update",
        cls=_UpdateOption,
        metavar="KEY=VALUE...",
        help=f"Override {subject}; dots separate nested keys. Repeatable.",
    )


def predictions_option(function: _Function) -> _Function:
    """Declare `-o` of commands that predict."""
    return click.option(
        "-o",
        "--output",
        type=PATH,
        default=Path("predictions"),
        show_default=True,
        help="Folder of the results.",
    )(function)
