"""Comparison with arrays that the original program put out, case by case."""

from framewake.golden.compare import Row
from framewake.golden.runner import run

__all__ = ["Row", "run"]
