"""Examine a dataset; see --help."""

import sys

from rtdetrv2.commands.doctor import main

if __name__ == "__main__":
    sys.exit(main())
