"""Training and evaluation."""

from .det_solver import DetSolver

__all__ = ["DetSolver"]
