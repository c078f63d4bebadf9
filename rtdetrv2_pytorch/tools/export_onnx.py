"""Export a checkpoint to ONNX; see --help."""

import sys

from rtdetrv2.commands.export_onnx import main

if __name__ == "__main__":
    sys.exit(main())
