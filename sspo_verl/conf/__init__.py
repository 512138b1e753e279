"""Config groups that Hydra finds at `pkg://sspo_verl.conf`; Hydra requires this file."""
