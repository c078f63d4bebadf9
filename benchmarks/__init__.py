"""Benchmarks against public implementations, measured alternately in one run."""
