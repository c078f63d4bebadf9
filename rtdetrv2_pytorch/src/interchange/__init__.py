"""Interchange of weights and configurations with `transformers`."""
