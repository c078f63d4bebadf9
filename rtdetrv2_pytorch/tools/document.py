"""Write docs/configuration.md from the signatures and docstrings that are the configuration."""

import argparse
import inspect
import re
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..src.core.catalog import ALIASES, COMPONENTS, FROM_THE_RUN, SHARED, SLOTS
from ..src.core.settings import Settings

TARGET = Path(__file__).parents[2] / "docs" / "configuration.md"

_HEAD = """\
# Configuration

Generated from the code by `python -m rtdetrv2_pytorch.tools.document`; do not edit.

A configuration is a YAML file. `__include__` lists files, relative to the including one, that are
merged first; later ones win, the file itself wins over them, and `-u a.b.c=value` on the command
line wins over all. Dicts merge, everything else replaces. Every key and value is checked against
the signatures below before anything is built.

A part of a run (`model`, `optimizer`, ...) names a component, or holds `{type: Name, ...}`. Keys of
a component stand at the top level under its name, or beside `type`. Parts: %s.

`optimizer.params` is a list of `{params: regular expression, lr: ..., weight_decay: ...}`:
parameters whose names match get these values, all others the optimizer's own. Loaders take
`total_batch_size` (over all ranks) or `batch_size` (per rank).

Values at the top level that every component with a parameter of that name receives: %s.
"""


def configuration_page() -> str:
    """The page as Markdown."""
    parts = ", ".join(f"`{slot}`" for slot in SLOTS)
    shared = ", ".join(f"`{name}`" for name in SHARED)
    lines = [_HEAD % (parts, shared), "## Settings of a run\n"]
    lines += _table(Settings, "Attributes")
    aliases: dict[str, list[str]] = {}
    for alias, name in ALIASES.items():
        aliases.setdefault(name, []).append(alias)
    for name, factory in COMPONENTS.items():
        lines.append(f"\n## {name}\n")
        if name in aliases:
            lines.append(f"Also written {', '.join(f'`{a}`' for a in aliases[name])}.\n")
        lines.append(_summary(factory) + "\n")
        lines += _table(factory, "Args")
    return "\n".join(lines) + "\n"


def _summary(factory: Callable[..., Any]) -> str:
    return (inspect.getdoc(factory) or "").split("\n\n")[0].replace("\n", " ")


def _table(factory: Callable[..., Any], section: str) -> list[str]:
    described = _descriptions(inspect.getdoc(factory) or "", section)
    rows = []
    for name, parameter in inspect.signature(factory).parameters.items():
        if name in FROM_THE_RUN:
            continue
        default = "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
        hint = _hint(parameter.annotation)
        rows.append(f"| `{name}` | {hint} | {default} | {described.get(name, '')} |")
    if not rows:
        return ["No keys."]
    return ["| key | type | default | |", "| --- | --- | --- | --- |", *rows]


def _descriptions(doc: str, section: str) -> dict[str, str]:
    """The entries of a Google-style section, each on one line."""
    match = re.search(rf"^{section}:\n((?:    .*\n?|\n)+)", doc, flags=re.MULTILINE)
    entries: dict[str, str] = {}
    name = ""
    for line in match[1].splitlines() if match else ():
        head = re.match(r"    (\w+): (.*)", line)
        if head:
            name = head[1]
            entries[name] = head[2]
        elif name and line.strip():
            entries[name] += " " + line.strip()
    return entries


def _hint(annotation: Any) -> str:
    """A type as people write it, with Literal values listed."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{value!r}`" for value in parts)
    if origin is typing.Union and any(typing.get_origin(p) is typing.Literal for p in parts):
        return ", ".join(map(_hint, parts))
    if annotation is type(None):
        return "`None`"
    text = annotation.__name__ if inspect.isclass(annotation) else str(annotation)
    text = re.sub(r"[\w.]+\.(\w+)", r"\1", text)
    return f"`{text}`".replace("|", "or")


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m rtdetrv2_pytorch.tools.document", description=__doc__
    )
    parser.parse_args()
    TARGET.write_text(configuration_page(), encoding="utf-8")
    print(f"written: {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
