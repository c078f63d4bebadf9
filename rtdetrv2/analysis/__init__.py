"""Measurements of a model: accuracy, speed, size."""
