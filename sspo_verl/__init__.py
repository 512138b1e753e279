"""SSPO (Subsentence-level Policy Optimization, arXiv 2511.04256) as a plugin for verl.

The core (`segments`, `loss`, `advantage`) is pure torch and importable without verl; `plugin.register` is where verl is
touched. Nothing is imported here: this module is loaded in every process that imports verl.
"""
