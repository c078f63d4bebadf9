"""The options of `serve`, declared where nothing slow is imported."""

import argparse


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serve`."""
    parser.add_argument(
        "--checkpoint",
        help="in Team Files or on this machine (default: the best one of the latest experiment)",
    )
    parser.add_argument("--runtime", default="PyTorch", help="PyTorch, ONNXRuntime, OpenVINO, ...")
    parser.add_argument("--device", help="cpu, cuda:0, ... (default: a GPU if there is one)")
    parser.add_argument("--port", type=int, default=8000, help="of the app (default: %(default)s)")
