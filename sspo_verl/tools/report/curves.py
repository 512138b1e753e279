"""One curve per algorithm from its seeds: the mean, and the band from min to max."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from sspo_verl.tools.report.runs import Group
from sspo_verl.tools.report.series import points, values
from sspo_verl.tools.runs.metrics_file import Rows


@dataclass(frozen=True)
class Curve:
    """Mean, min and max at each step over the seeds that have a value there, and their number."""

    label: str
    style: int  # index of its label, which determines colour and marker
    steps: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    seeds: list[int]


def curve(label: str, style: int, seeds: list[Rows], series: str, scale: float = 1.0) -> Curve | None:
    """Curve of a series; None if no seed measured it. scale: 100 shows shares in percent."""
    at: dict[int, list[float]] = {}
    for rows in seeds:
        for step, value in points(rows, series):
            at.setdefault(step, []).append(scale * value)
    if not at:
        return None
    steps = sorted(at)
    of = [at[step] for step in steps]
    return Curve(
        label, style, steps, [fmean(v) for v in of], [min(v) for v in of], [max(v) for v in of], list(map(len, of))
    )


def profile(label: str, style: int, seeds: list[Rows], series: tuple[str, ...], scale: float = 1.0) -> Curve | None:
    """Several series side by side: `steps` are their positions, and a seed's value is its mean over the steps."""
    of = {place: [fmean(v) for rows in seeds if (v := values(rows, name))] for place, name in enumerate(series)}
    of = {place: [scale * value for value in found] for place, found in of.items() if found}
    if not of:
        return None
    each = list(of.values())
    low, high = [min(v) for v in each], [max(v) for v in each]
    return Curve(label, style, list(of), [fmean(v) for v in each], low, high, list(map(len, each)))


def profiles(groups: list[Group], series: tuple[str, ...], scale: float = 1.0) -> list[Curve]:
    found = (profile(group.label, style, group.rows, series, scale) for style, group in enumerate(groups))
    return [c for c in found if c is not None]


def curves(groups: list[Group], series: str, scale: float = 1.0) -> list[Curve]:
    found = (curve(group.label, style, group.rows, series, scale) for style, group in enumerate(groups))
    return [c for c in found if c is not None]
