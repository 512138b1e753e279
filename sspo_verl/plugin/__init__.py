"""Every touch of verl and Hydra, one file per process of verl; `register` has the table."""
