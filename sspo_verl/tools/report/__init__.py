"""The metrics of runs: reading them, their numbers, their curves, and one page of all that (`sspo report`)."""
