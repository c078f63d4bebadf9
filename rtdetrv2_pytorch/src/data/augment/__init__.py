"""Augmentation of samples (an image with its boxes)."""
