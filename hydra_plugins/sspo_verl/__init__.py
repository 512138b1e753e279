"""Package in which Hydra finds this project's plugins."""
