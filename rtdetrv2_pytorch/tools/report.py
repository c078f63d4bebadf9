"""Write the report of a run; see --help."""

import sys

from rtdetrv2.commands.report import main

if __name__ == "__main__":
    sys.exit(main())
