"""The `up` command: start the instance; see --help."""

import contextlib
from pathlib import Path

import click

from rtdetrv2.terminal.command import Command
from rtdetrv2.terminal.command_log import CommandLog
from rtdetrv2.terminal.console import open_console, print_notice
from rtdetrv2_pytorch.src.misc.errors import ConfigError

from .options import ROOT

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8765
_LOOPBACK_HOSTS = (DEFAULT_HOST, "localhost", "::1")
_LOG_FILE = "instance.log"


_EXAMPLES = """
examples:
  rtdetrv2 local up
  rtdetrv2 local up --port 0 --root my_instance
"""


@click.command(cls=Command, epilog=_EXAMPLES, short_help="Start the instance.")
@click.option("--host", default=DEFAULT_HOST, show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=int, default=DEFAULT_PORT, show_default=True, help="0 uses a free port."
)
@ROOT
@click.pass_obj
def main(log: CommandLog, *, host: str, port: int, root: Path) -> int:
    """Start the instance; print its address, token and page."""
    from ...instance import LocalInstance

    instance = LocalInstance(root, host, port)
    try:
        instance.bind()
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); use another --port, or --port 0 "
            "for a free one"
        ) from error
    if host not in _LOOPBACK_HOSTS:
        print_notice(
            open_console(stderr=True),
            f"warning: other machines can reach {host}, without encryption; anyone with the token "
            "has full access",
        )
    (root / _LOG_FILE).touch(mode=0o600)
    log.open(root / _LOG_FILE)
    click.echo(f"address  {instance.address}")
    click.echo(f"token    {instance.token}")
    click.echo(f"page     {instance.page_address}")
    with contextlib.suppress(KeyboardInterrupt):
        instance.serve()
    return 0
