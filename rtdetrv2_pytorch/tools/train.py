"""Train or evaluate; see --help."""

import sys
from pathlib import Path

if not __package__:  # run as a file: python tools/train.py
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from rtdetrv2.commands.public_arguments import TRAIN, run
from rtdetrv2.commands.train import main

if __name__ == "__main__":
    sys.exit(run(main, TRAIN))
