"""Shared parts of the commands of `sspo`: options and errors of click."""

import click

# For every command, not only the group: click remembers a command's help option from its first call, and tests call
# a command without the group.
HELP = {"help_option_names": ["-h", "--help"]}


class NotThere(click.ClickException):
    """A file that is not there, or an output that is: as bad usage."""

    exit_code = 2
