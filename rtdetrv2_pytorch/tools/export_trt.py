"""Export a checkpoint to TensorRT; see --help."""

import sys

from rtdetrv2.commands.export_trt import main

if __name__ == "__main__":
    sys.exit(main())
