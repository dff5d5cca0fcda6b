"""Comparison with arrays from the original program, case by case."""

from framewake.golden.compare import Row
from framewake.golden.runner import run

__all__ = ["Row", "run"]
