"""`python -m supervisely_integration.local`."""

import sys

from .cli import main

sys.exit(main())
