"""`sspo analyze`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sspo_verl.tools.analyze.fields import CORRECT, SOURCE, Columns
from sspo_verl.tools.analyze.read import columns as columns_of
from sspo_verl.tools.analyze.read import expand
from sspo_verl.tools.usage import HELP, Number

if TYPE_CHECKING:
    from sspo_verl.tools.analyze.cut import ByTokens

LISTED = 40  # columns that an error lists


@click.command("analyze", context_settings=HELP, no_args_is_help=True)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the model's tokenizer. Without it, text is cut at its line breaks and no tokens are counted.",
)
@click.option(
    "--segmenter",
    "segmenters",
    multiple=True,
    metavar="NAME",
    help="Segmenter, with --model: fixed:32, sentence, file.py:function, ... (docs/segments.md). Repeat it to compare "
    "several side by side in one table. [default: line_break]",
)
@click.option("--segment-max-tokens", type=click.IntRange(min=1), help="Cut longer segments into even pieces.")
@click.option("--text", default="output", show_default=True, help="Column of the responses; `a.b` is b inside a.")
@click.option("--source-column", help=f"Column of the data source. [default: {SOURCE}, if present]")
@click.option(
    "--correct-column",
    help=f"Column of a number or true/false; over 0 is correct. [default: {', else '.join(CORRECT)}, if present]",
)
@click.option("--entropy-column", help="Column of lists with each token's entropy, in nats.")
@click.option("--entropy-low", type=Number(min=0), help="Entropy below this is low. [default: as algorithm=sspo]")
@click.option("--entropy-high", type=Number(min=0), help="Entropy above this is high. [default: as algorithm=sspo]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Plot the distributions to this file.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page of some responses, each segment tinted by its entropy, to this file.",
)
@click.option(
    "--responses", type=click.IntRange(min=1), default=36, show_default=True, help="Number of responses for --html."
)
@click.option(
    "--suggest",
    type=Number(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Print only settings that would clip this share of the tokens, from rollout dumps with ratios.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Count only the first N responses.")
def command(
    files: tuple[str, ...],
    model: Path | None,
    segmenters: tuple[str, ...],
    segment_max_tokens: int | None,
    text: str,
    source_column: str | None,
    correct_column: str | None,
    entropy_column: str | None,
    entropy_low: float | None,
    entropy_high: float | None,
    as_json: bool,
    png: Path | None,
    html: Path | None,
    responses: int,
    suggest: float | None,
    limit: int | None,
) -> None:
    """Show how SSPO segments responses: counts, lengths, entropies; by data source and by correctness.

    FILE is a rollout or validation dump of verl (trainer.rollout_data_dir, trainer.validation_data_dir), any other
    JSONL (also .gz) or parquet file, or a folder of them. Unreadable lines are counted and listed.

    Exit codes: 0 success, 1 no response could be read, 2 bad usage, or a file, column or tokenizer was not found.
    """
    from sspo_verl.tools.analyze.thresholds import defaults

    low, high = defaults()
    low, high = (low if entropy_low is None else entropy_low), (high if entropy_high is None else entropy_high)
    if low > high:
        raise click.UsageError(f"--entropy-low ({low:g}) is over --entropy-high ({high:g}). Swap them.")
    if entropy_column and model is None:
        raise click.UsageError("--entropy-column needs --model: entropies of tokens are useless without the tokens.")
    if model is None and (segmenters or segment_max_tokens):
        raise click.UsageError("--segmenter and --segment-max-tokens need --model: segments are made of tokens.")
    for option, file in {"--png": png, "--html": html}.items():
        if file is not None and not os.access(file.parent, os.W_OK):
            raise click.UsageError(f"{option}: {file.parent} is not a folder that can be written to.")
    try:
        paths = expand(files)
    except OSError as error:
        raise click.UsageError(str(error)) from error
    columns = Columns(text, source_column or SOURCE, (correct_column,) if correct_column else CORRECT, entropy_column)
    _check_columns(
        paths,
        text,
        {"--source-column": source_column, "--correct-column": correct_column, "--entropy-column": entropy_column},
    )
    if suggest is not None:
        _suggest(paths, columns, suggest, as_json)
        return
    cutters = _cutters(model, segmenters, segment_max_tokens)
    if len(cutters) > 1 or _needs_entropy(cutters):
        if png or html:
            raise click.UsageError("--png and --html show one segmenter, which needs no entropy: give one --segmenter.")
        if _needs_entropy(cutters) and not entropy_column:
            raise click.UsageError("--segmenter entropy needs --entropy-column: the entropies of the tokens.")
        _compare(paths, columns, cutters, limit, as_json)
        return
    by_tokens = next(iter(cutters.values()), None)
    _run(paths, columns, model, by_tokens, low, high, limit, as_json, png, html, responses)


def _suggest(paths: list[Path], columns: Columns, share: float, as_json: bool) -> None:
    from sspo_verl.tools.analyze import suggest

    try:
        doc = suggest.suggest(suggest.read(paths, columns), share)
    except suggest.NothingToSuggest as error:
        raise click.UsageError(f"--suggest: {error}") from error
    click.echo(json.dumps(doc, indent=1) if as_json else "\n".join(suggest.lines(doc)))


def _cutters(model: Path | None, segmenters: tuple[str, ...], max_tokens: int | None) -> dict[str, ByTokens]:
    """{name: segmenter}; empty if there is no model."""
    if model is None:
        return {}
    from sspo_verl.plugin.tokenizer import load_tokenizer
    from sspo_verl.tools.analyze.cut import ByTokens
    from sspo_verl.tools.segmenter_option import settings_of

    try:
        tokenizer = load_tokenizer(model)
    except ValueError as error:
        raise click.UsageError(f"--model: {error}") from error
    option = "--segmenter" if segmenters else "--model"
    try:
        names = segmenters or ("line_break",)
        return {name: ByTokens(tokenizer, settings_of(name, max_tokens)) for name in names}
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from error


def _needs_entropy(cutters: dict[str, ByTokens]) -> bool:
    if not cutters:
        return False  # do not import torch for text only
    from sspo_verl.segmenters import factory_of

    return any(factory_of(cutter.settings.segmenter).needs_entropy for cutter in cutters.values())


def _compare(
    paths: list[Path], columns: Columns, cutters: dict[str, ByTokens], limit: int | None, as_json: bool
) -> None:
    from sspo_verl.tools.analyze.compare import compare, show

    found, skipped = compare(paths, columns, cutters, limit)
    summaries = {name: of.summary() for name, of in found.items()}
    _warn("not counted", skipped.summary())
    if as_json:
        click.echo(json.dumps({"segmenters": summaries, "skipped": skipped.summary()}, indent=1, ensure_ascii=False))
    if not any(of["responses"] for of in summaries.values()):
        raise click.ClickException(f"No response could be cut, of {len(paths)} file(s).")
    if not as_json:
        show(summaries, _console())


def _check_columns(paths: list[Path], text: str, others: dict[str, str | None]) -> None:
    """Check the column names up front: a misspelt name would otherwise only show at the end."""
    seen: dict[str, None] = {}
    for path in paths:
        try:
            names = columns_of(path)
        except OSError as error:
            raise click.UsageError(f"{path} cannot be read: {error.strerror}.") from error
        if names is None:
            return  # nothing to check against: its lines are counted as unreadable
        seen |= dict.fromkeys(names)
        if text not in names:
            raise click.UsageError(f"{path} has no column {text!r}. It has {_listed(names)}. Choose with --text.")
    for option, name in others.items():
        if name is not None and name not in seen:
            raise click.UsageError(f"{option}: no file has a column {name!r}. There are {_listed(list(seen))}.")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(names[:LISTED]) or "no columns") + more


def _run(
    paths: list[Path],
    columns: Columns,
    model: Path | None,
    by_tokens: ByTokens | None,
    low: float,
    high: float,
    limit: int | None,
    as_json: bool,
    png: Path | None,
    html: Path | None,
    responses: int,
) -> None:
    from rich.console import Console

    from sspo_verl.tools.analyze.cut import by_lines
    from sspo_verl.tools.analyze.document import document
    from sspo_verl.tools.analyze.run import Analysis, analyze
    from sspo_verl.tools.analyze.sample import Sample

    with Console(stderr=True).status("reading") as status:

        def progress(so_far: Analysis) -> None:
            status.update(f"{so_far.rows:,} rows")

        sample = Sample(responses) if html is not None else None
        analysis = analyze(paths, columns, by_tokens or by_lines, low, high, limit, progress, sample)

    doc = document(analysis, paths, columns, model, low, high)
    _warn("not counted", doc["skipped"])
    _warn("counted, but not all of it could be used", doc["partly_used"])
    if as_json:
        click.echo(json.dumps(doc, indent=1, ensure_ascii=False))
    if not doc["all"]["responses"]:
        raise click.ClickException(f"No response could be read from {len(paths)} file(s) with {analysis.rows} rows.")
    if not as_json:
        from sspo_verl.tools.analyze.table import show

        show(doc, _console())
    names = paths[0].name if len(paths) == 1 else f"{len(paths)} files, {paths[0].name} to {paths[-1].name}"
    if html is not None and sample is not None:
        from sspo_verl.tools.analyze.thresholds import Thresholds
        from sspo_verl.tools.report.texts import write

        write(html, sample, by_tokens, Thresholds(low, high), f"Responses of {names}")
        click.echo(f"{html} is written", err=True)
    if png is not None:
        from sspo_verl.tools.analyze.figure import draw

        draw(analysis, png, names, f"low: H < {low:g}, high: H > {high:g} nats per token")
        click.echo(f"{png} is written", err=True)


def _console():
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def _warn(what: str, kinds: dict[str, dict]) -> None:
    for kind, found in kinds.items():
        more = ", ..." if found["n"] > len(found["first"]) else ""
        click.echo(f"sspo analyze: {found['n']:,} rows {what}: {kind} ({', '.join(found['first'])}{more})", err=True)


if __name__ == "__main__":
    command()
