"""Prints a report of `sspo data` to the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

SHOWN = 3  # rows of each kind; the JSON report names a few more


def show(report: dict[str, Any], console: Console) -> None:
    table = Table(box=None, padding=(0, 3, 0, 0))
    table.add_column("set")
    for heading in ("read", "no answer", "duplicates", "written"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("file", overflow="fold")
    for name, each in report["sets"].items():
        counts = [each.get(key, {}).get("n", 0) for key in ("without_answer", "duplicates")]
        table.add_row(name, *(f"{n:,}" for n in (each["read"], *counts, each["written"])), each["file"])
    console.print(table)
    for name, each in report["sets"].items():
        for line in _lines(name, each):
            console.print(Text(line))
    if report["template"]:
        console.print(Text(f"template: {report['template']}"))
    for note in report["notes"]:
        console.print(Text(note))


def _lines(name: str, each: dict[str, Any]) -> list[str]:
    lines = []
    if "levels" in each:
        by_level = ", ".join(f"level {level}: {count:,}" for level, count in each["by_level"].items())
        lines.append(f"{name}: {each['at_levels']:,} rows at these levels ({by_level})")
    dropped = each.get("dropped", {})
    kept = {True: "left out", False: "kept"}
    if each.get("without_level", {}).get("n"):
        lines.append(f"{name}: {each['without_level']['n']} rows without a level: {_listed(each['without_level'])}")
    if each.get("without_answer", {}).get("n"):
        lines.append(
            f"{name}: {each['without_answer']['n']} rows without an answer, left out: {_listed(each['without_answer'])}"
        )
    taken_off = each.get("instructions", {"n": 0})
    if taken_off["n"]:
        lines.append(
            f"{name}: {taken_off['n']:,} problems contained an instruction, which was removed: {taken_off['text']!r}"
        )
    same = each.get("duplicates", {"n": 0})
    if same["n"]:
        more = f", {same['with_another_answer']} with different answers" if same["with_another_answer"] else ""
        what = kept[dropped.get("duplicates", False)]
        lines.append(f"{name}: {same['n']} duplicates, {what}{more}: {_listed(same)}")
    shared = each.get("overlap", {})
    for other, found in shared.items():
        if found["n"]:
            what = f", {kept[dropped['overlap']]}" if dropped else ""
            lines.append(f"{name}: {found['n']} problems also in {other}{what}: {_listed(found)}")
    free = [other for other, found in shared.items() if not found["n"]]
    if free:
        lines.append(f"{name}: no overlap with {', '.join(free)}")
    for path in each.get("not_read", []):
        lines.append(f"{name}: also in {path}, which was not read")
    return lines


def _listed(found: dict[str, Any]) -> str:
    first = [" = ".join(one) if isinstance(one, list) else one for one in found["first"][:SHOWN]]
    return ", ".join(first) + (", ..." if found["n"] > len(first) else "")
