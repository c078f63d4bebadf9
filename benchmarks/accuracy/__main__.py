"""Compare the accuracy of recipes: `python -m benchmarks.accuracy --help`."""

import sys

from .command import main

sys.exit(main())
