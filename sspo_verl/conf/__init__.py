"""Config groups that Hydra finds on `pkg://sspo_verl.conf`; it asks for this file."""
