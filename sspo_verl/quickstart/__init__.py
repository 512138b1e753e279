"""The embedded quickstart: a task, a small model that half knows it, and a runner around verl's own trainer.

`python -m sspo_verl.quickstart` is the way in; scripts/quickstart.sh calls it in the right environment.
"""
