"""Shared parts of the commands of `sspo`: options and errors of click."""

import click

# For every command, not only the group: click caches a command's help option at its first call, and tests call a
# command without the group.
HELP = {"help_option_names": ["-h", "--help"]}


class NotThere(click.ClickException):
    """A missing input file or an existing output, reported as bad usage."""

    exit_code = 2
