"""How the demonstration checkpoint is made and judged: its small world, its training, its judge. Not in the wheel."""
