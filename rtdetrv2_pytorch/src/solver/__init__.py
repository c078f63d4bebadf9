"""Training and evaluation."""

from .solver import DetSolver

__all__ = ["DetSolver"]
