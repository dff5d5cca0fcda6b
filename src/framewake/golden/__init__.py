"""Comparison with arrays that the original program put out, case by case."""
