"""The results table: one column per benchmark plus the average, one row per model, one block per figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.table import Table

AVERAGE = "average"


def blocks(doc: dict[str, Any]) -> list[tuple[str, Callable[[dict[str, Any]], str]]]:
    """(title, function from a benchmark's figures to a cell), in display order."""
    k = doc["sampling"]["k"]
    sampled = [
        *((f"pass@{j}, %", lambda one, j=j: percent(one["pass_at"][j])) for j in _pass_ks(doc) if j != "1"),
        (f"maj@{k}, %", lambda one: percent(one["maj_at"][str(k)])),
    ]
    return [
        (f"accuracy, % (mean of {k} samples)" if k > 1 else "accuracy, %", lambda one: percent(one["accuracy"])),
        *(sampled if k > 1 else []),
        ("mean length, tokens", lambda one: f"{one['mean_tokens']:,.0f}"),
        ("cut off at the limit, %", lambda one: f"{100 * one['cut_off']:.1f}"),
        ("without an answer, %", lambda one: f"{100 * one['no_answer']:.1f}"),
    ]


def _pass_ks(doc: dict[str, Any]) -> list[str]:
    return list(doc["models"][0]["average"]["pass_at"])


def percent(estimate: dict[str, float]) -> str:
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def build(doc: dict[str, Any]) -> Table:
    shown = Table(box=None, padding=(0, 2, 0, 0))
    shown.add_column("")
    for name, about in doc["sets"].items():
        shown.add_column(f"{name} ({about['problems']})", justify="right")
    several = len(doc["sets"]) > 1
    if several:
        shown.add_column(AVERAGE, justify="right")
    for title, cell in blocks(doc):
        shown.add_row(title, style="bold")
        for model in doc["models"]:
            columns = [*model["sets"].values(), *([model[AVERAGE]] if several else [])]
            shown.add_row("  " + model["name"], *map(cell, columns))
    return shown


def notes(doc: dict[str, Any], described: str) -> list[str]:
    """Notes on model, settings and data, without which two tables cannot be compared."""
    templates = {", ".join(about["templates"]): [] for about in doc["sets"].values()}
    for name, about in doc["sets"].items():
        templates[", ".join(about["templates"])].append(name)
    lines = [
        described[0].upper() + described[1:] + ".",
        "Template: " + "; ".join(f"{template} ({', '.join(names)})" for template, names in templates.items()) + ".",
        "[low, high]: 95 % confidence interval over problems (Wilson); average: mean of the columns.",
    ]
    if {"amc", "amc23"} <= doc["sets"].keys():
        lines.append("The 40 problems of amc23 are among the 83 of amc: the average counts them twice.")
    for model in doc["models"]:
        statuses = model[AVERAGE]["statuses"]
        if unsettled := {name: statuses[name] for name in ("timeout", "failed") if statuses.get(name)}:
            said = " and ".join(f"{count:,} {name}" for name, count in unsettled.items())
            lines.append(f"Checks of {model['name']} without a verdict, counted as wrong: {said}.")
    return lines


def show(doc: dict[str, Any], described: str, console: Console) -> None:
    console.print(build(doc))
    click.echo("\n" + "\n".join(notes(doc, described)))
