"""All integration with verl and Hydra, split by verl's processes; `register` has the table of hooks."""
