"""The quickstart: a small model that half knows how to add learns the rest with verl's own trainer, in minutes.

Four steps, each of which hands one value to the next: ask (what is to be done), prepare (model and data), train, tell.
`sspo quickstart` (command.py) takes them; scripts/quickstart.sh calls it in the right environment.
"""
