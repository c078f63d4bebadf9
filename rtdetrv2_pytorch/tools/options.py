"""Options that several commands have, without what they do, so that help comes at once."""

import argparse


def add_update_option(parser: argparse.ArgumentParser, *, of: str) -> None:
    """Declare `-u KEY=VALUE`; `core.yaml_files.parse_overrides` reads the values.

    Args:
        parser: of the command.
        of: what is changed, for the help.
    """
    parser.add_argument(
        "-u",
        "--update",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"change {of}; nested keys with dots; may be repeated",
    )
