"""`sspo quickstart`."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sspo_verl.tools.quickstart.stop import Stopped, stop_on_signals
from sspo_verl.tools.runs.recipe import algorithms
from sspo_verl.tools.usage import HELP, NotThere, Number

if TYPE_CHECKING:
    from sspo_verl.tools.quickstart.ask import Call


_ANOTHER = "Choose another folder with --runs."
OF_THE_DISK = {
    errno.ENOSPC: "Free space there, or choose another folder with --runs.",
    errno.EDQUOT: "Free space there, or choose another folder with --runs.",
    errno.EROFS: _ANOTHER,
    errno.EACCES: _ANOTHER,
    errno.EPERM: _ANOTHER,
}


class Minutes(Number):
    name = "minutes"


@click.command("quickstart", context_settings=HELP)
@click.option(
    "--algorithm",
    type=click.Choice(algorithms()),
    default="sspo",
    show_default=True,
    envvar="ALGORITHM",
    show_envvar=True,
    help="Algorithm to train with.",
)
@click.option(
    "--fresh",
    is_flag=True,
    envvar="SSPO_FRESH",
    show_envvar=True,
    help="Discard this algorithm's run, and start over.",
)
@click.option(
    "--runs",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/quickstart"),
    show_default=True,
    envvar="SSPO_RUNS",
    show_envvar=True,
    help="Folder for the runs, the starting model and the data.",
)
@click.option(
    "--stall-minutes",
    type=Minutes(min=0, min_open=True),
    default=10,
    show_default=True,
    envvar="SSPO_STALL_MINUTES",
    show_envvar=True,
    help="Stop if verl's log shows no progress for this long.",
)
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@click.pass_context
def command(
    ctx: click.Context, algorithm: str, fresh: bool, runs: Path, stall_minutes: float, overrides: tuple[str, ...]
) -> None:
    """Teach a small model to add, with verl's own trainer, and show what it learned. Takes minutes, needs no GPU.

    Called again, it resumes from the last checkpoint, or shows the summary again. KEY=VALUE are Hydra overrides
    of recipes/quickstart.yaml.

    \b
    sspo quickstart
    sspo quickstart --algorithm grpo
    sspo quickstart --fresh trainer.total_training_steps=60

    Exit codes: 0 success; verl's own if it failed, 128 + the signal's number if a signal ended it; 2 bad usage, or
    another process is using the folder.
    """
    from sspo_verl.tools.quickstart.ask import Call

    named = ctx.get_parameter_source("algorithm") is click.core.ParameterSource.COMMANDLINE
    algorithm, rest = choose_algorithm(algorithm, named, overrides)
    ctx.exit(quickstart(Call(algorithm, rest, runs.resolve(), fresh, stall_minutes)))


def choose_algorithm(algorithm: str, named: bool, overrides: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """(algorithm, other overrides). An override `algorithm=NAME` wins, unless the option was also given (`named`)."""
    others = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise click.UsageError(
                f"{override!r} is not a Hydra override (key=value), the only kind of argument that is accepted."
            )
        if key != "algorithm":
            others.append(override)
        elif value not in algorithms():
            raise click.UsageError(f"algorithm={value} is unknown. Choose one of {', '.join(algorithms())}.")
        elif named and value != algorithm:
            raise click.UsageError(f"--algorithm {algorithm} and algorithm={value}: name one of them.")
        else:
            algorithm = value
    return algorithm, tuple(others)


def quickstart(call: Call) -> int:
    """Run the four steps; return the exit code."""
    from sspo_verl.tools.quickstart.ask import ask
    from sspo_verl.tools.quickstart.display import make_display
    from sspo_verl.tools.quickstart.prepare import prepare
    from sspo_verl.tools.quickstart.tell import tell, tell_failure, tell_stop
    from sspo_verl.tools.quickstart.train import Failed, Trained, train, trained_before
    from sspo_verl.tools.runs.lock import Busy, hold

    asked = None
    try:
        with hold(call.run.lock) as lock, stop_on_signals():
            try:
                with make_display() as display:
                    try:
                        asked = ask(call, display, keep_open=(lock.fileno(),))
                        found = trained_before(asked) or prepare(asked, display)
                    except ValueError as error:  # from the settings or the data
                        raise click.UsageError(str(error)) from error
                    trained = found if isinstance(found, Trained) else train(found, display)
                return tell(trained)
            except Failed as failure:
                return tell_failure(failure)
            except Stopped as stopped:
                return tell_stop(asked, stopped.number)
    except Busy as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        where = f"{error.filename}: " if error.filename else f"{call.runs}: "
        raise NotThere(f"{where}{error.strerror}. {OF_THE_DISK[error.errno]}") from error


if __name__ == "__main__":
    command()
