"""Rewards: score answers against a ground truth. `math` and `reasoning_gym` are for verl; `judge` for other callers."""
