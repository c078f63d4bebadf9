"""`python -m rtdetrv2`."""

import sys

import rtdetrv2.commands  # noqa: F401 (checks the Python version and the packages first)

from .cli import main

sys.exit(main(prog_name="rtdetrv2"))
