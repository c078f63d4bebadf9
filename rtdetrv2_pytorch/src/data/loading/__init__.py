"""Batches: their order, the workers that load them, and their collation."""
