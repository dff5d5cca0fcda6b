"""Steps that are not computed: when a step may be skipped, and what takes its place."""
