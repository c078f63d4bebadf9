"""Write docs/configuration.md and docs/python.md: `python -m rtdetrv2.reference`."""

import sys

import click

from ..terminal.command import Command
from . import configuration_page, python_page


@click.command(cls=Command)
def main() -> int:
    """Write docs/configuration.md and docs/python.md from signatures and docstrings."""
    pages = {
        configuration_page.TARGET: configuration_page.configuration_page(),
        python_page.TARGET: python_page.python_page(),
    }
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
