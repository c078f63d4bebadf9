"""Reference pages, generated from signatures and docstrings."""

import rtdetrv2.commands  # noqa: F401 (checks the Python version and the packages first)
