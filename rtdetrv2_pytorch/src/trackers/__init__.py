"""Experiment trackers, which follow a training: Weights & Biases, MLflow, ClearML."""

from .following import Trackers, check_installed

__all__ = ["Trackers", "check_installed"]
