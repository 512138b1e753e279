"""A run on disk: its folder, attempts, metrics file, settings and processes, and the recipe that it comes from."""
