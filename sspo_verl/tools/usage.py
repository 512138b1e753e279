"""Shared parts of the commands of `sspo`: options and errors of click."""

import math
from typing import Any

import click

# For every command, not only the group: click caches a command's help option at its first call, and tests call a
# command without the group.
HELP = {"help_option_names": ["-h", "--help"]}


class Number(click.FloatRange):
    """Option type: a number in a range, which NaN is not; click's own type admits it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class NotThere(click.ClickException):
    """A missing input file or an existing output, reported as bad usage."""

    exit_code = 2
