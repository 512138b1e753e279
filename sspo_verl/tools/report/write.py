"""Writes the report's files: the page, and a PNG of each section next to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sspo_verl.tools import files
from sspo_verl.tools.report import draw, page, table
from sspo_verl.tools.report.panels import SECTIONS
from sspo_verl.tools.report.responses import OfLabel
from sspo_verl.tools.report.runs import Group

DEFAULT_NAME = "report.html"


@dataclass(frozen=True)
class Report:
    page: Path
    pngs: list[Path]
    summaries: list[table.Summary]


def page_path(out: Path) -> Path:
    """`out` is the page if it ends in .html, else the folder of the page."""
    return out if out.suffix.lower() in (".html", ".htm") else out / DEFAULT_NAME


def check_out(out: Path) -> None:
    """Check, before anything is read or written, that the page can be written to `out`. Raises ValueError."""
    page = page_path(out)
    if page.is_dir():
        raise ValueError(f"--out: {page} is a folder, and the page needs this name. Give another folder or file.")
    there = next(folder for folder in page.absolute().parents if folder.exists())
    if not there.is_dir():
        raise ValueError(f"--out: {there} is a file. Give a folder, or an HTML file (its name ends in .html).")


def write(groups: list[Group], notes: list[str], out: Path, responses: list[OfLabel] | None = None) -> Report:
    target = page_path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    summaries = [table.summarize(group) for group in groups]
    title = ", ".join(group.label for group in groups) if len(groups) <= 5 else f"{len(groups)} algorithms"
    pngs = []
    for section in SECTIONS:
        file = target.with_name(f"{target.stem}-{section.key}.png")
        chosen = [picture for picture in draw.pictures(section.tiles, groups) if picture[1]]
        if chosen:
            draw.png(file, chosen, groups, section.title, section.same_scale)
            pngs.append(file)
        else:
            file.unlink(missing_ok=True)  # from an earlier report, whose runs had measured it
    files.write(target, page.render(groups, notes, summaries, f"Training with {title}", responses))
    return Report(target, pngs, summaries)
