"""Utilities for all layers: errors, boxes, ranks, seeds, meters, weights."""
