"""`sspo doctor`: checks the installation in fresh processes, started like those of a training run."""
