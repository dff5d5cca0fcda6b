"""Weights handed out as dicts, part by part or block by block."""
