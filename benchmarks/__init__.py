"""Measurements against public implementations, side by side in one run."""
