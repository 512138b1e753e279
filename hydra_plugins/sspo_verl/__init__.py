"""Package in which Hydra finds its plugins."""
