"""Options that several commands have, without what they do, so that help comes at once."""

import argparse
from pathlib import Path


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


def export_parser(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    """The options of every export."""
    parser = argparse.ArgumentParser(
        prog=f"python -m rtdetrv2_pytorch.tools.{name}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-r", "--resume", required=True, metavar="CHECKPOINT", help="path or URL")
    parser.add_argument("-o", "--output", type=Path, help="default: beside the checkpoint")
    parser.add_argument(
        "-c", "--config", type=Path, help="YAML file; only for a checkpoint without one in it"
    )
    parser.add_argument(
        "--classes", help="names, a,b,c in label order; only for a checkpoint without them"
    )
    images = parser.add_mutually_exclusive_group()
    images.add_argument(
        "--data", type=Path, help="COCO folder: compare on its validation split, AP included"
    )
    images.add_argument(
        "--images", type=Path, nargs="+", help="compare on these files, or those in a folder"
    )
    parser.add_argument(
        "--nms-iou", type=float, help="filter the outputs within classes at this overlap"
    )
    return parser
