"""Writes a run's files in addition to verl's: its metrics in one file, its curve, and the numbers of the summary."""

from __future__ import annotations

import json
from pathlib import Path

from sspo_verl.tools import files
from sspo_verl.tools.quickstart import summary
from sspo_verl.tools.quickstart.run import Run
from sspo_verl.tools.report import draw
from sspo_verl.tools.report.panels import OVERVIEW
from sspo_verl.tools.report.runs import Group
from sspo_verl.tools.report.runs import Run as ReportRun
from sspo_verl.tools.runs import metrics_file
from sspo_verl.tools.runs.metrics_file import Rows


def publish(run: Run) -> None:
    """Write the files, for all attempts so far; nothing if there was no step."""
    if rows := run.rows():
        metrics_file.write(rows, run.metrics)
        draw_curve(run.path.name, rows, run.curve, f"Quickstart: {run.path.name}")
        files.write(run.summary, json.dumps(summary.collect(rows), indent=2) + "\n")


def draw_curve(label: str, rows: Rows, path: Path, title: str) -> None:
    """Draw a PNG of held-out accuracy, training reward, clip fraction and entropy over the steps."""
    groups = [Group(label, [ReportRun(label, path.parent, rows)])]
    draw.png(path, draw.pictures(OVERVIEW, groups), groups, title)
