"""Tensor files of every kind, lazily and without a framework, seen under our names."""
