"""Options that several commands share."""

from pathlib import Path

import click

from rtdetrv2.terminal.command import PATH

DEFAULT_ROOT = Path("app_data") / "instance"

ROOT = click.option(
    "--root",
    type=PATH,
    default=DEFAULT_ROOT,
    show_default=True,
    help="Data folder of the instance.",
)
APP_PORT = click.option(
    "--port", type=int, default=8000, show_default=True, help="Port of the app."
)
