"""Generates every figure and table of the study from the committed results: docs/evidence/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.study import conditions, figures_gradient, figures_one_batch, figures_train, markdown, results
from benchmarks.study.claims import compare
from benchmarks.study.conditions import Table
from benchmarks.study.points import Point, of_grids
from benchmarks.study.results import Row

OUT = Path(__file__).parents[2] / "docs" / "evidence"


def write(out: Path = OUT, folder: Path = results.FOLDER) -> list[Path]:
    """Write the report for all tables that have results; return the files."""
    found = []
    for file in sorted(conditions.FOLDER.glob("*.yaml")):
        rows = results.read(folder / f"{file.stem}.jsonl")
        if rows:
            found += write_table(conditions.read(file), rows, out)
    return found


def write_table(table: Table, rows: list[Row], out: Path) -> list[Path]:
    """Write the figures of each grid, and a page of tables; return the files."""
    out.mkdir(parents=True, exist_ok=True)
    page = out / f"{table.name}.md"
    files = [page]
    text = [f"# {table.name}\n\n{counted(table, rows)}\n", *_comparisons(table, rows)]
    for grid, spec in table.grids.items():
        points = of_grids(table, rows, [grid])
        if points:
            figures = FIGURES[spec.get("figures", "none")](points, out, f"{table.name}_{grid}")
            files += figures
            images = "".join(f"![{file.stem}]({file.name})\n\n" for file in figures)
            text.append(f"\n## {grid}\n\n{images}{TABLES[spec.get('tables', spec['experiment'])](points)}")
    page.write_text("".join(text))
    return files


def _comparisons(table: Table, rows: list[Row]) -> list[str]:
    found = compare(table, rows)
    text = [f"\n## Comparisons\n\n{markdown.comparisons(found)}"] if found else []
    return text + ([f"\n## Agreement\n\n{markdown.agreements(table, rows)}"] if table.agreements else [])


def counted(table: Table, rows: list[Row]) -> str:
    """A sentence on the cells with a result, their CPU time, and the commits they were run with."""
    hours = sum(row.cpu_seconds for row in rows) / 3600
    commits = ", ".join(sorted({row.made_with["commit"] for row in rows}))
    return f"{len(rows)} of {len(table.cells())} cells; {hours:.2f} hours of one core; commits {commits}."


def no_figures(points: Sequence[Point], out: Path, name: str) -> list[Path]:
    return []


def by_rate(points: Sequence[Point], out: Path, name: str) -> list[Path]:
    file = out / f"{name}.png"
    figures_one_batch.by_rate(points, file)
    return [file]


def by_bound(points: Sequence[Point], out: Path, name: str) -> list[Path]:
    files = []
    for measure, label in figures_one_batch.MEASURES.items():
        files.append(out / f"{name}_{measure}.png")
        figures_one_batch.by_bound(points, files[-1], measure, label)
    return files


def by_setting(points: Sequence[Point], out: Path, name: str) -> list[Path]:
    file = out / f"{name}.png"
    figures_one_batch.by_setting(points, file)
    return [file]


def curves(points: Sequence[Point], out: Path, name: str) -> list[Path]:
    files = []
    for measure in figures_train.MEASURES:
        files.append(out / f"{name}_{measure}.png")
        figures_train.curves(points, files[-1], measure)
    return files


def quality(points: Sequence[Point], out: Path, name: str) -> list[Path]:
    """Figures with a few estimators each, in the table's order."""
    files, names = [], list(points[0].result["estimators"])
    for measure in figures_gradient.MEASURES:
        for number, begin in enumerate(range(0, len(names), figures_gradient.LINES), 1):
            files.append(out / f"{name}_{measure}_{number}.png")
            some = names[begin : begin + figures_gradient.LINES]
            figures_gradient.estimators(points, files[-1], measure, some)
    return files


# Keyed by a grid's `figures`.
FIGURES = {
    "none": no_figures,
    "by_rate": by_rate,
    "by_bound": by_bound,
    "by_setting": by_setting,
    "curves": curves,
    "quality": quality,
}
# Keyed by a grid's `tables`, or else by its experiment.
TABLES = {
    "one_batch": lambda points: markdown.outcomes(points, ("gain",)),
    "train": lambda points: markdown.trainings(points, ("final", "area", "reward"), markdown.COURSE),
    "through_verl": lambda points: markdown.trainings(points, ("reward",)),
    "gradient": markdown.gradients,
    "identical": markdown.identical,
}
