"""Train or evaluate; see --help."""

import sys

from rtdetrv2.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
