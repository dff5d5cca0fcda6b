"""Weights yielded as dicts, part by part or block by block."""
