"""`sspo eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sspo_verl.tools.usage import HELP, Number

if TYPE_CHECKING:
    from sspo_verl.tools.evaluate.plan import Plan


@click.command("eval", context_settings=HELP, no_args_is_help=True)
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="[NAME=]PATH",
    help="A folder in Hugging Face's layout, or a checkpoint of verl. Repeat it to compare several models.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder with one parquet file per benchmark, as `sspo data eval` writes it.",
)
@click.option(
    "--sets", help="Names of benchmarks, separated by commas (files without .parquet). [default: all but train]"
)
@click.option("--k", type=click.IntRange(min=1), default=1, show_default=True, help="Responses per problem.")
@click.option("--greedy", is_flag=True, help="Always take the most likely token. [default if --k is 1]")
@click.option("--temperature", type=Number(min=0), help="Sampling temperature. [default: 1, if --k is over 1]")
@click.option("--top-p", type=Number(min=0, min_open=True, max=1), help="Sampling top-p. [default: 1]")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=3000, show_default=True, help="Maximum length of a response."
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N problems of each benchmark.")
@click.option(
    "--answer",
    default="boxed",
    show_default=True,
    metavar="boxed|hash|tag|last_number|REGEX",
    help="Where the answer is in a response, as in the training reward (docs/reward.md).",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Sampling seed.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("sspo_eval"),
    show_default=True,
    help="Folder for all responses, merged weights and results. What it has already is not computed again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def command(
    models: tuple[str, ...],
    data: Path,
    sets: str | None,
    k: int,
    greedy: bool,
    temperature: float | None,
    top_p: float | None,
    max_tokens: int,
    limit: int | None,
    answer: str,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """How many problems of each benchmark a model solves: one column per benchmark, and the average.

    Generates with vLLM, on the GPU or, with a CPU build of torch, on the CPU, and scores with the training reward.
    Each response is written to OUT/NAME/responses.jsonl as it finishes; if the command is killed, running it again
    resumes. A verl checkpoint (global_step_N, its actor folder, or the folder of all steps: the last) is merged by
    verl's own model merger if it has no merged weights. docs/evaluation.md has the rules.

    \b
    sspo eval --model start=models/Qwen2.5-Math-1.5B --model sspo=checkpoints/global_step_200 --data data/eval
    sspo eval --model checkpoints --data data/eval --sets aime24,amc23 --k 16 --temperature 0.6 --top-p 0.95

    Exit codes: 0 success, 1 a model could not be merged or vLLM failed, 2 bad usage, or a model or set was not found.
    """
    from sspo_verl.tools.evaluate import sampling
    from sspo_verl.tools.runs.platform import choose_platform

    names = [name.strip() for name in sets.split(",") if name.strip()] if sets is not None else None
    try:
        chosen = sampling.choose(k, greedy, temperature, top_p, max_tokens, seed)
        from sspo_verl.tools.evaluate import plan  # after the checks that need no heavy imports

        planned = plan.make(models, data, names, limit, chosen, choose_platform(), out, answer)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from error
    _run(planned, as_json)


def _run(planned: Plan, as_json: bool) -> None:
    from rich.console import Console

    from sspo_verl.tools.evaluate import merge, plan, table
    from sspo_verl.tools.evaluate.document import document
    from sspo_verl.tools.evaluate.run import run

    stderr = Console(stderr=True, highlight=False)
    try:
        with stderr.status("") as status:
            results = run(planned, lambda text: status.update(text))
    except ValueError as error:  # a store that another process has locked, or changed meanwhile
        raise click.UsageError(str(error)) from error
    except merge.Failed as error:
        kept = f"What was generated is kept in {planned.out}; the same command continues from there."
        raise click.ClickException(f"{error}\n{kept}") from error
    doc = document(planned, results)
    (planned.out / plan.RESULTS).write_text(json.dumps(doc, indent=1, ensure_ascii=False) + "\n")
    if as_json:
        click.echo(json.dumps(doc, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=200)
    table.show(doc, planned.sampling.describe(), console)
    for result in results:
        reused = f", {result.reused:,} of them from before" if result.reused else ""
        total = len(result.work.prompts) * planned.sampling.k
        click.echo(f"{result.work.store.folder / 'responses.jsonl'}: {total:,} responses{reused}", err=True)


if __name__ == "__main__":
    command()
