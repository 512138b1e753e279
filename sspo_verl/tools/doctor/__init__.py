"""`sspo doctor`: is everything installed and found? Asked of fresh processes, started as a training run would be."""
