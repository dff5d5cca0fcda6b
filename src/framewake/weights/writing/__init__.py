"""Tensor files and checkpoint folders written."""
