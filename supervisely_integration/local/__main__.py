"""`python -m supervisely_integration.local`."""

import sys

from .launcher.cli import main

sys.exit(main())
