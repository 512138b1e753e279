"""`sspo report`: the curves of runs on one page."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sspo_verl.tools.usage import HELP, NotThere


class Steps(click.ParamType):
    """Option type: comma-separated integers."""

    name = "steps"

    def convert(self, value, param, ctx):
        try:
            return tuple(sorted({int(part) for part in value.split(",")}))
        except ValueError:
            self.fail(f"{value!r} is not a list of integers, as 1,15,30", param, ctx)


STEPS = Steps()


@click.command("report", context_settings=HELP)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("sspo_report"),
    show_default=True,
    help="Folder for report.html and its PNGs, or the HTML file itself (ends in .html).",
)
@click.option(
    "--steps",
    type=STEPS,
    metavar="N,N,...",
    help="Steps whose responses are shown. [default: the first, middle and last dumped step of each run]",
)
@click.option(
    "--responses",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="Number of responses shown per step and label; 0 for none.",
)
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the model's tokenizer, to cut the responses by tokens as in training. [default: by lines]",
)
@click.option("--json", "as_json", is_flag=True, help="Print only the summary table, as JSON.")
def command(
    runs: tuple[str, ...],
    out: Path,
    steps: tuple[int, ...] | None,
    responses: int,
    model: Path | None,
    as_json: bool,
) -> None:
    """One HTML page with the curves of one or several runs and some of their responses, and a PNG of each section.

    RUN is a run of the quickstart (its folder), a metrics file of verl's `file` logger or a folder that contains one, a
    folder of tensorboard events, or a folder of such runs. An unfinished run is shown up to its latest step.

    Runs with the same label are seeds of one algorithm: their mean is drawn, with a band from their min to
    their max. The label is NAME in NAME=RUN; without it, the algorithm in the settings next to the run
    (settings.json, .hydra/config.yaml); without those, the name of the file or folder.

    Responses come from verl's rollout dumps: in rollouts/ in the run's folder, or in the folder that its settings
    name (trainer.rollout_data_dir). For a label with several runs, from the first that has dumps.

    \b
    sspo report runs/quickstart/sspo runs/quickstart/grpo
    sspo report wide=runs/a wide=runs/b grpo=tensorboard_log/project/grpo --out compared.html
    """
    from sspo_verl.tools.report.responses import Wanted, choose
    from sspo_verl.tools.report.runs import load
    from sspo_verl.tools.report.write import check_out, write

    if not responses and (steps or model):
        raise click.UsageError("--responses=0 shows none: leave out --steps and --model.")
    try:
        check_out(out)
        groups, notes = load(runs)
        shown = choose(groups, Wanted(steps, responses, _tokenizer(model))) if responses else None
        report = write(groups, notes, out, shown)
    except (ValueError, OSError) as error:
        raise NotThere(str(error)) from error
    if as_json:
        files = {"page": str(report.page), "pngs": [str(png) for png in report.pngs]}
        click.echo(json.dumps({"runs": report.summaries, "notes": notes, **files}, indent=2))
        return
    _print_table(report.summaries)
    for note in notes:
        click.echo(f"Note: {note}.", err=True)
    click.echo(f"{report.page} (and {len(report.pngs)} PNGs beside it)")


def _tokenizer(model: Path | None):
    if model is None:
        return None
    from sspo_verl.plugin.tokenizer import load_tokenizer

    return load_tokenizer(model)


def _print_table(summaries: list[dict[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from sspo_verl.tools.report import table

    shown = Table(box=None, padding=(0, 2, 0, 0))
    shown.add_column("")
    for summary in summaries:
        shown.add_column(str(summary["label"]), justify="right")
    for heading, cells in table.rows(summaries):
        shown.add_row(heading, *cells)
    Console(highlight=False, markup=False).print(shown)


if __name__ == "__main__":
    command()
