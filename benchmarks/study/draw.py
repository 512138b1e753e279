"""Small multiples with intervals, in the report's colours and markers, which suit the colour-blind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.study.statistics import Interval
from sspo_verl.tools.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = (3.1, 2.6)
COLUMNS = 5
HANDLE_INCHES, CHARACTER_INCHES, LINE_INCHES = 0.5, 0.065, 0.17  # of the legend
SETTINGS: dict[Any, Any] = {
    "font.size": 8,
    "axes.edgecolor": style.light("muted"),
    "axes.labelcolor": style.light("muted"),
    "text.color": style.light("ink"),
    "xtick.color": style.light("muted"),
    "ytick.color": style.light("muted"),
    "grid.color": style.light("grid"),
    "figure.facecolor": "white",
    "svg.hashsalt": "study",
}


class Styles:
    """A colour and a marker per name, in the order of the names."""

    def __init__(self, names: Sequence[str]):
        self.names = list(dict.fromkeys(names))

    def of(self, name: str) -> dict[str, Any]:
        index = self.names.index(name)
        return {"color": style.color(index), "marker": style.marker(index), "markersize": 4, "linewidth": 1.2}


def panels(
    file: Path,
    titles: Sequence[str],
    draw: Callable[[Axes, int], None],
    labels: tuple[str, str],
    columns: int = COLUMNS,
    sharex: bool = True,
) -> None:
    """Draw one figure of equal panels with one legend. draw(axes, index) fills a panel. sharex: same scale for all."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(columns, len(titles))
    lines = -(-len(titles) // columns)
    with pyplot.rc_context(SETTINGS):
        size = (PANEL_INCHES[0] * columns, PANEL_INCHES[1] * lines + 0.5)
        figure, grid = pyplot.subplots(
            lines, columns, figsize=size, sharex=sharex, sharey=True, squeeze=False, layout="constrained"
        )
        for index, axes in enumerate(grid.flat):
            if index >= len(titles):
                axes.set_visible(False)
                continue
            axes.set_title(titles[index], fontsize=8)
            axes.grid(True, linewidth=0.5)
            axes.spines[["top", "right"]].set_visible(False)
            draw(axes, index)
        for axes in grid[-1]:
            axes.set_xlabel(labels[0])
        for axes in grid[:, 0]:
            axes.set_ylabel(labels[1])
        legend(figure, grid.flat)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=110, metadata={"Software": None})
        pyplot.close(figure)


def legend(figure, axes: Sequence[Axes]) -> None:
    """Draw one legend for all panels, below them."""
    found = {}
    for each in axes:
        found |= dict(zip(*reversed(each.get_legend_handles_labels()), strict=True))
    longest = max(len(label) for label in found)
    columns = min(len(found), 8, int(figure.get_figwidth() / (HANDLE_INCHES + CHARACTER_INCHES * longest)))
    more_lines = -(-len(found) // columns) - 1
    figure.set_figheight(figure.get_figheight() + LINE_INCHES * more_lines)
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns, frameon=False)


def curve(
    axes: Axes, x: Sequence[float], y: Sequence[Interval], look: dict[str, Any], label: str, line: bool = True
) -> None:
    """Draw means with their intervals as bars."""
    below = [each.mean - each.low for each in y]
    above = [each.high - each.mean for each in y]
    look = look if line else look | {"linestyle": "none"}
    axes.errorbar(x, [each.mean for each in y], [below, above], elinewidth=0.8, capsize=1.5, label=label, **look)


def log_scale(axes: Axes, ticks: Sequence[float] = ()) -> None:
    """Logarithmic scale with ticks at `ticks`, or at the powers of ten. None in between: labels would overlap, and the
    marks alone took a quarter of the report's time."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    if ticks:
        axes.set_xticks(ticks, [f"{tick:.0e}".replace("e-0", "e-") for tick in ticks])


def zero_line(axes: Axes) -> None:
    axes.axhline(0, color=style.light("muted"), linewidth=0.8)
