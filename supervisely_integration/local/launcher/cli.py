"""The command line of the local instance: start it, fill it, look into its files."""

import argparse
import contextlib
import logging
import os
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rtdetrv2_pytorch.src.misc.errors import ConfigError, RTDETRError
from rtdetrv2_pytorch.src.misc.text import counted
from rtdetrv2_pytorch.tools.command_log import CommandLog
from rtdetrv2_pytorch.tools.console import (
    INTERRUPTED,
    LiveLine,
    open_console,
    print_error,
    print_notice,
    print_path,
    starting,
)

from ..emulator.storage.errors import InvalidRequestError, StoreError
from ..emulator.store import TEAM_ID, Store
from ..instance import LOOPBACK, LocalInstance
from .app_log import AppError
from .copying import plan_copy
from .serve_options import add_serve_arguments
from .train_options import add_train_arguments

DEFAULT_ROOT = Path("app_data") / "instance"
DEFAULT_PORT = 8765
_PROGRESS_FROM_BYTES = 8 << 20
_LOG_FILE = "instance.log"
_LOOPBACK_HOSTS = (LOOPBACK, "localhost", "::1")

Command = Callable[[argparse.Namespace, CommandLog], int]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; `run` is what to call with the result."""
    parser = argparse.ArgumentParser(
        prog="python -m supervisely_integration.local",
        description="A Supervisely instance for one machine: no account, no network.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_up, _add_import, _add_train, _add_serve, _add_ls, _add_get, _add_rm):
        command = add(commands)
        command.add_argument(
            "--root",
            type=Path,
            default=DEFAULT_ROOT,
            help="folder of the instance's data (default: %(default)s)",
        )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    options = parse_arguments(arguments)
    run: Command = options.run
    wanted = os.environ.get("LOG_LEVEL", "").upper()  # of the SDK, which has more of them
    level = logging.getLevelNamesMapping().get(wanted, logging.WARNING)
    with CommandLog(open_console(), level=level) as log:
        try:
            code = run(options, log)
            sys.stdout.flush()  # here, where a reader that is gone is no error
            return code
        except AppError as error:
            print_error(error.name, str(error), log=error.log, go_on=error.go_on)
        except (StoreError, RTDETRError, RuntimeError) as error:
            print_error(type(error).__name__, str(error))
        except BrokenPipeError:  # `ls | head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            where = error.filename or options.root
            print_error(type(error).__name__, f"{where}: {error.strerror or error}")
        except sqlite3.Error as error:
            name = type(error).__name__
            print_error(name, f"{options.root}: the database cannot be used ({error})")
        except KeyboardInterrupt:
            print_notice(open_console(), "Interrupted.")
            return INTERRUPTED
    return 1


Commands = argparse._SubParsersAction  # the only name that argparse has for it


def _add_up(commands: "Commands[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser("up", help="start the instance")
    parser.add_argument("--host", default=LOOPBACK, help="to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="to listen on; 0 takes a free one"
    )
    parser.set_defaults(run=_up)
    return parser


def _up(options: argparse.Namespace, log: CommandLog) -> int:
    instance = LocalInstance(options.root, options.host, options.port)
    try:
        instance.bind()
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {options.host}:{options.port} ({error.strerror}); "
            "use another --port, or --port 0 for a free one"
        ) from error
    if options.host not in _LOOPBACK_HOSTS:
        print_notice(
            open_console(stderr=True),
            f"warning: {options.host} can be reached from other machines, without encryption; "
            "whoever has the token can do everything",
        )
    log.open(options.root / _LOG_FILE)
    print(f"address  {instance.address}")
    print(f"token    {instance.token}")
    print(f"page     {instance.page_address}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):  # how people stop it
        instance.serve()
    return 0


def _add_import(commands: "Commands[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser("import", help="make a project from a folder")
    parser.add_argument("folder", type=Path, help="data in Supervisely, COCO, YOLO or VOC format")
    parser.add_argument("--name", help="of the project (default: that of the folder)")
    parser.add_argument(
        "--format",
        choices=("auto", "supervisely", "coco", "yolo", "voc"),
        default="auto",
        help="of the data (default: found out)",
    )
    parser.set_defaults(run=_import)
    return parser


def _import(options: argparse.Namespace, log: CommandLog) -> int:
    with starting():
        from .import_command import run

    return run(options, open_console())


def _add_train(commands: "Commands[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser("train", help="train on a project, in the app")
    add_train_arguments(parser)
    parser.set_defaults(run=_train)
    return parser


def _train(options: argparse.Namespace, log: CommandLog) -> int:
    with starting():
        from .train_command import run

    return run(options, open_console(), log)


def _add_serve(commands: "Commands[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser("serve", help="serve a checkpoint, in the app")
    add_serve_arguments(parser)
    parser.set_defaults(run=_serve)
    return parser


def _serve(options: argparse.Namespace, log: CommandLog) -> int:
    with starting():
        from .serve_command import run

    return run(options, open_console(), log)


def _add_ls(commands: "Commands[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser("ls", help="list Team Files")
    parser.add_argument("path", nargs="?", default="/", help="folder or file (default: /)")
    parser.add_argument("-r", "--recursive", action="store_true", help="all files below")
    parser.set_defaults(run=_ls)
    return parser


def _ls(options: argparse.Namespace, log: CommandLog) -> int:
    entries = Store(options.root).files.entries(
        TEAM_ID, options.path, is_recursive=options.recursive
    )
    if not entries and options.path.strip("/"):
        raise InvalidRequestError(
            f"{options.path}: is not in Team Files of {options.root}; see `ls /`"
        )
    for entry in entries:
        print(f"{entry['size']:>14,}  {entry['updatedAt'][:19]}  {entry['path']}")
    return 0


def _add_get(commands: "Commands[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser("get", help="copy a file or folder out of Team Files")
    parser.add_argument("remote", help="path in Team Files")
    parser.add_argument("local", type=Path, nargs="?", default=Path(), help="where to (default: .)")
    parser.set_defaults(run=_get)
    return parser


def _get(options: argparse.Namespace, log: CommandLog) -> int:
    copies = plan_copy(Store(options.root), options.remote, options.local)
    total = sum(each.size for each in copies)
    copied = 0
    with LiveLine(open_console(stderr=True)) as line:

        def tell(count: int) -> None:
            nonlocal copied
            copied += count
            if total >= _PROGRESS_FROM_BYTES:
                line.show(options.remote, copied, total, in_bytes=True)

        for each in copies:
            each.run(on_bytes=tell)
    console = open_console()
    for each in copies:
        print_path(console, each.target)
    return 0


def _add_rm(commands: "Commands[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser("rm", help="remove files or folders from Team Files")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="path in Team Files")
    parser.set_defaults(run=_rm)
    return parser


def _rm(options: argparse.Namespace, log: CommandLog) -> int:
    store = Store(options.root)
    for path in options.paths:
        count = store.files.remove(TEAM_ID, [path])
        if not count:
            raise InvalidRequestError(f"{path}: is not in Team Files of {options.root}; see `ls /`")
        print(f"removed {counted(count, 'file')}: {path}")
    return 0
