"""Readers of data sets: one module per format, one table of formats."""
