"""Write the report of a run; see --help."""

import sys
from pathlib import Path

if not __package__:  # run as a file: python tools/report.py
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from rtdetrv2.commands.report import main

if __name__ == "__main__":
    sys.exit(main())
