"""An analysis as tables for the terminal, or plain text in a pipe."""

from __future__ import annotations

from typing import Any

from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

MEASURES = {
    "tokens per response": "tokens_per_response",
    "line breaks per response": "line_breaks_per_response",
    "segments per response": "segments_per_response",
    "tokens per segment": "tokens_per_segment",
}
STATISTICS = ("mean", "min", "p50", "p95", "max")
NOT_KNOWN = "-"


def show(doc: dict[str, Any], console: Console) -> None:
    groups = groups_of(doc)
    console.print(_lengths(groups, console))
    if any(group["entropy_bands"] or group["clipped_segments"] for group in groups.values()):
        console.print()
        console.print(_bands(doc, groups, console))
    console.print()
    for note in doc["notes"]:
        console.print(Text(note))


def groups_of(doc: dict[str, Any]) -> dict[str, dict]:
    return {"all": doc["all"], **doc["by_correct"], **{f"source {k}": v for k, v in doc["by_source"].items()}}


def new_table(title: str, console: Console, headings: tuple[str, ...]) -> Table:
    # Box-drawing characters are for terminals; in a pipe, plain columns are easier to process.
    table = Table(title=title, title_justify="left", box=HEAVY_HEAD if console.is_terminal else None)
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _lengths(groups: dict[str, dict], console: Console) -> Table:
    table = new_table("Responses and their segments", console, ("n", *STATISTICS))
    _section(table, "responses", [(name, (f"{g['responses']:,}",)) for name, g in groups.items()])
    if groups["all"]["empty"]:
        _section(table, "of these, empty", [(name, (f"{g['empty']:,}",)) for name, g in groups.items()])
    for title, key in MEASURES.items():
        if groups["all"][key] is not None:
            _section(table, title, [(name, _statistics(g[key])) for name, g in groups.items()])
    singles = [(name, g["single_segment"]) for name, g in groups.items()]
    _section(
        table,
        "share of single-segment responses",
        [(name, (f"{s['of']:,}", f"{s['share']:.1%}") if s else (NOT_KNOWN,)) for name, s in singles],
    )
    return table


def _section(table: Table, title: str, lines: list[tuple[str, tuple[str, ...]]]) -> None:
    table.add_row(Text(title, style="bold"))
    for name, cells in lines:
        table.add_row(Text("  " + name), *cells)
    table.add_section()


def _statistics(summary: dict[str, float] | None) -> tuple[str, ...]:
    if summary is None:
        return (NOT_KNOWN,)
    return (f"{summary['n']:,}", *(number(summary[name]) for name in STATISTICS))


def number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _bands(doc: dict[str, Any], groups: dict[str, dict], console: Console) -> Table:
    low, high = doc["entropy_low"], doc["entropy_high"]
    headings = ("segments", "share", "clipped", "lower bound", "upper bound")
    table = new_table(f"Entropy bands: low H < {low:g}, high H > {high:g} nats per token", console, headings)
    for name, group in groups.items():
        bands = group["entropy_bands"]
        lines = []
        for band in ("low", "mid", "high") if bands else ():
            inside = bands[band]
            share = (f"{inside['n']:,}", f"{inside['share']:.1%}")
            lines.append((f"{band} entropy", (*share, *_clips(inside["clipped_segments"]))))
        for title, key in (("all segments", "clipped_segments"), ("their tokens", "clipped_tokens")):
            if group[key]:
                lines.append((title, (f"{group[key]['of']:,}", "", *_clips(group[key]))))
        _section(table, name, lines or [("not known", ())])
    return table


def _clips(clipped: dict[str, Any] | None) -> tuple[str, ...]:
    return tuple(f"{clipped[side]['share']:.2%}" if clipped else NOT_KNOWN for side in ("all", "low", "high"))
