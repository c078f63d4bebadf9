"""Export a checkpoint to TensorRT; see --help."""

import sys
from pathlib import Path

if not __package__:  # run as a file: python tools/export_trt.py
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from rtdetrv2.commands.export_trt import main
from rtdetrv2.commands.public_arguments import EXPORT_TRT, run

if __name__ == "__main__":
    sys.exit(run(main, EXPORT_TRT))
