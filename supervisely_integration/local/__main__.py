"""`python -m supervisely_integration.local`."""

import sys

import rtdetrv2.commands  # noqa: F401 (checks the Python version and the packages first)

from .launcher.cli import main

sys.exit(main())
