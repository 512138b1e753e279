"""SSPO (Subsentence-level Policy Optimization, arXiv 2511.04256) as a plugin for verl.

The core (`segments`, `loss`, `advantage`) is pure torch and can be imported without verl; `plugin.register` hooks it
into verl. Nothing is imported here, because every process that imports verl loads this module.
"""
