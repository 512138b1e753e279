"""A run on disk: its folder, attempts, metrics file, settings and processes, and its recipe."""
