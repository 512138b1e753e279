"""The quickstart: trains a small model that partly knows how to add, with verl's own trainer, in minutes.

Four steps, each of which passes one value to the next: ask (what to do), prepare (model and data), train, tell.
`sspo quickstart` (command.py) runs them; scripts/quickstart.sh calls it in the right environment.
"""
