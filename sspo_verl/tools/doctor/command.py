"""`sspo doctor`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from sspo_verl.tools.usage import HELP

# `segmenter_option` has this text, but would import torch for every `--help`.
OPTION = "fixed:32, sentence, pkg://package.module:function, file.py:function, ... (docs/segments.md)."


@click.command("doctor", context_settings=HELP)
@click.option(
    "--model",
    type=click.Path(exists=True, path_type=Path),
    help="A model's folder (as actor_rollout_ref.model.path): also check its tokenizer's line breaks.",
)
@click.option("--segmenter", help=f"Also test a segmenter, on the tokenizer of --model or a small one: {OPTION}")
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON document, {ok, checks}.")
@click.option("--no-ray", is_flag=True, help="Do not start Ray, so no worker is checked.")
def command(model: Path | None, segmenter: str | None, as_json: bool, no_ray: bool) -> None:
    """Check that everything needed to train with SSPO is installed.

    Checks versions, devices, and whether verl, Ray's workers and vLLM really load the plugin, in fresh processes
    started from this directory and with this environment, like a training run. Takes 20 to 40 seconds. Changes
    nothing, and ends all processes that it starts.

    Exit code 1 if a check failed, with how to fix it; a warning is not a failure.
    """
    from rich.console import Console

    from sspo_verl.tools.doctor import show
    from sspo_verl.tools.doctor.examine import examine

    began = time.monotonic()
    with show.progress() as still_looking_at:
        checks = examine(model, segmenter, with_ray=not no_ray, show=still_looking_at)
    seconds = time.monotonic() - began
    console = Console()
    if as_json:
        click.echo(show.as_json(checks))
    elif console.is_terminal:
        show.on_terminal(checks, seconds, console)
    else:
        click.echo(show.as_text(checks, seconds))
    if show.failures(checks):
        raise click.exceptions.Exit(1)
