"""The command group `sspo`. `sspo --help` imports only click: importing torch and verl takes seconds.

Exit codes of every subcommand: 0 success, 1 a problem was found, 2 bad usage or a file was not found.
"""

from __future__ import annotations

import importlib
import signal
from pathlib import Path

import click

from sspo_verl.tools.usage import HELP

# Each is a click command named `command` in command.py of the folder of this name.
COMMANDS = {
    "quickstart": "Teach a small model to add with SSPO, in minutes and without a GPU.",
    "doctor": "Check that everything needed to train with SSPO is installed.",
    "analyze": "Show how SSPO segments responses: counts, lengths, entropies.",
    "report": "Plot the curves of one or several runs on an HTML page.",
    "data": "Write the published data sets in verl's parquet layout.",
    "eval": "Evaluate models on the benchmarks, with confidence intervals.",
}
FOLDERS = {"eval": "evaluate"}  # the other folders have the command's name
VERSION = Path(__file__).parent.parent / "VERSION"


class LazyGroup(click.Group):
    """Click group that lists its commands from COMMANDS, and imports one only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        folder = FOLDERS.get(cmd_name, cmd_name)
        return importlib.import_module(f"sspo_verl.tools.{folder}.command").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click's own 1 would read as "something was found wrong"
            click.echo("sspo: interrupted", err=True)
            ctx.exit(128 + signal.SIGINT)


@click.group("sspo", cls=LazyGroup, context_settings=HELP | {"max_content_width": 100})
@click.version_option(VERSION.read_text().strip(), prog_name="sspo_verl")
def main() -> None:
    """SSPO (Subsentence-level Policy Optimization, arXiv 2511.04256) for verl: check a setup, inspect data, read runs.

    Exit codes: 0 success, 1 a problem was found, 2 bad usage or a file was not found.
    """
