"""Examine a dataset; see --help."""

import sys
from pathlib import Path

if not __package__:  # run as a file: python tools/doctor.py
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from rtdetrv2.commands.doctor import main

if __name__ == "__main__":
    sys.exit(main())
