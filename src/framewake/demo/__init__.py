"""The demonstration checkpoint: its small world, how it was trained, how it is judged."""
