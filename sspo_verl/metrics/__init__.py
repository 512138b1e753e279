"""Metrics with the prefix `sspo/`, warnings, and fields for the rollout dumps."""
