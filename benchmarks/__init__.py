"""Benchmarks against public implementations, measured alternately in one run."""

import rtdetrv2.commands  # noqa: F401 (checks the Python version and the packages first)
