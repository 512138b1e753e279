"""Draws tiles with matplotlib: the same axes are used for the page (as SVG) and for the PNGs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sspo_verl.tools.report import style
from sspo_verl.tools.report.curves import Curve, curve, curves, profiles
from sspo_verl.tools.report.panels import FAN, PROFILE, TIMELINE, Tile
from sspo_verl.tools.report.runs import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TILE_INCHES = (4.9, 3.0)
LETTER_INCHES = (0.1, 0.22)  # size of a letter in the legend, with some margin
SETTINGS: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": style.light("muted"),
    "axes.labelcolor": style.light("muted"),
    "axes.titlecolor": style.light("ink"),
    "text.color": style.light("ink"),
    "xtick.color": style.light("muted"),
    "ytick.color": style.light("muted"),
    "grid.color": style.light("grid"),
    "figure.facecolor": "white",
    "svg.fonttype": "none",  # text stays text: selectable, and in the page's own font
}
ALL_MARKED = 16  # up to this many points, each point of a curve has a marker
ANNOTATED = 10  # up to this many points, each point of a single curve shows its value
LINEAR_BELOW = 0.1  # in percent, on a logarithmic axis
FAR_APART = 20.0
PALE, DARK = 0.14, 0.28

Picture = tuple[Tile, list[Curve]]  # for a fan: the quantiles of one algorithm


def pictures(tiles: Sequence[Tile], groups: list[Group]) -> list[Picture]:
    """The pictures to draw: a tile with its curves, or for a fan one picture per algorithm; empty if unmeasured."""
    found: list[Picture] = []
    for tile in tiles:
        if tile.kind == PROFILE:
            found.append((tile, profiles(groups, tile.series, tile.scale)))
            continue
        if tile.kind != FAN:
            found.append((tile, curves(groups, tile.series[0], tile.scale)))
            continue
        fans = [[curve(g.label, i, g.rows, s, tile.scale) for s in tile.series] for i, g in enumerate(groups)]
        measured = [complete for fan in fans if len(complete := [c for c in fan if c is not None]) == len(tile.series)]
        found += [(tile, fan) for fan in measured] or [(tile, [])]
    return found


def plain(label: str) -> str:
    """A name escaped for matplotlib, which would read text between two dollar signs as a formula."""
    return label.replace("$", r"\$")


def draw(axis: Axes, tile: Tile, lines: list[Curve], labels: Sequence[str]) -> None:
    """Draw one picture. labels: of all algorithms, so that those without a curve can be named."""
    from matplotlib.ticker import MaxNLocator

    name = f"{tile.title}: {plain(lines[0].label)}" if tile.kind == FAN and lines else tile.title
    axis.set_title(name, loc="left", fontsize=12, fontweight="bold", pad=10)
    axis.set_ylabel(tile.unit)
    axis.set_xlabel(tile.axis + _unmeasured(tile, lines, labels))
    axis.set_axisbelow(True)
    axis.grid(visible=True, axis="y", linewidth=0.8)
    axis.tick_params(length=0)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    if not lines:
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color=style.light("muted"))
        axis.set_yticks([])
        axis.set_xticks([])
        return
    {FAN: _draw_fan, TIMELINE: _draw_timeline}.get(tile.kind, _draw_lines)(axis, tile, lines)
    if tile.kind == PROFILE:
        axis.set_xticks(range(len(tile.places)), tile.places)


def _unmeasured(tile: Tile, lines: list[Curve], labels: Sequence[str]) -> str:
    missing = [label for label in labels if label not in {c.label for c in lines}]
    if not missing or not lines or tile.kind == FAN:
        return ""
    named = plain(", ".join(missing)) if len(missing) <= 2 else f"{len(missing)} of {len(labels)} labels"
    return f"   (not measured: {named})"


def _draw_lines(axis: Axes, tile: Tile, lines: list[Curve]) -> None:
    for c in lines:
        color = style.color(c.style)
        if max(c.seeds) > 1:
            band = axis.fill_between(c.steps, c.low, c.high, color=color, alpha=PALE, linewidth=0)
            band.set_gid(f"run-{c.style}-band")
        few = len(c.steps) <= ALL_MARKED
        (line,) = axis.plot(
            c.steps,
            c.mean,
            label=plain(c.label),
            color=color,
            linewidth=1.8,
            marker=style.marker(c.style),
            markersize=4.5,
            # At different steps for each curve, so that markers of overlapping curves can be told apart.
            markevery=1 if few else (c.style * 0.03 % 0.1, 0.1),
        )
        line.set_gid(f"run-{c.style}-line")
    if len(lines) == 1 and len(lines[0].steps) <= ANNOTATED and tile.top is not None:
        for step, value in zip(lines[0].steps, lines[0].mean, strict=True):
            axis.annotate(f"{value:.0f}", (step, value), (0, 6), textcoords="offset points", ha="center", fontsize=9)
    _limit(axis, tile, lines)


def _limit(axis: Axes, tile: Tile, lines: list[Curve]) -> None:
    low, high = min(min(c.low) for c in lines), max(max(c.high) for c in lines)
    if tile.log or (tile.share and _far_apart(lines)):
        axis.set_ylabel(f"{tile.unit}, log scale")
        axis.set_yscale("symlog", linthresh=LINEAR_BELOW)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_ylim(0, max(1.5 * high, 1.0))
    elif tile.top is not None:
        axis.set_ylim(0, max(tile.top, high))
    elif tile.from_zero and low >= 0:
        axis.set_ylim(0, 1.1 * high or 1.0)


def _far_apart(lines: list[Curve]) -> bool:
    """Whether the smaller curves would be squeezed at the bottom of a linear scale."""
    highest = [max(c.high) for c in lines]
    return max(highest) > FAR_APART * max(min(highest), LINEAR_BELOW)


def _draw_fan(axis: Axes, tile: Tile, lines: list[Curve]) -> None:
    color, which = style.color(lines[0].style), lines[0].style
    by_step = [dict(zip(c.steps, c.mean, strict=True)) for c in lines]
    steps = [step for step in lines[0].steps if all(step in of for of in by_step)]
    levels = [[of[step] for step in steps] for of in by_step]
    middle = len(levels) // 2
    for i, alpha in zip(range(middle), (PALE, DARK), strict=False):
        band = axis.fill_between(steps, levels[i], levels[-1 - i], color=color, alpha=alpha, linewidth=0)
        band.set_gid(f"run-{which}-band-{i}")
    (line,) = axis.plot(steps, levels[middle], color=color, linewidth=1.8, label=plain(lines[0].label))
    line.set_gid(f"run-{which}-line")
    axis.set_ylim(0, 1.1 * max(levels[-1]) or 1.0)


def _draw_timeline(axis: Axes, tile: Tile, lines: list[Curve]) -> None:
    """One row per algorithm, the first on top: a thin line over the checked steps, a bar where the sign was seen."""
    rows = len(lines)
    for row, c in enumerate(lines):
        base, color = float(rows - 1 - row), style.color(c.style)
        (line,) = axis.plot(c.steps, [base] * len(c.steps), color=color, linewidth=1.2, label=plain(c.label))
        line.set_gid(f"run-{c.style}-line")
        seen = [(step, share) for step, share in zip(c.steps, c.mean, strict=True) if share > 0]
        if seen:
            width = max(0.35, 0.004 * (c.steps[-1] - c.steps[0]))
            x, height = [step for step, _ in seen], [0.55 * share for _, share in seen]
            bars = axis.bar(x, height, width=width, bottom=base, color=color, linewidth=0)
            for number, bar in enumerate(bars):
                bar.set_gid(f"run-{c.style}-bar-{number}")
        steps = "no step" if not seen else f"{len(seen)} of {len(c.steps)} steps"
        text = axis.annotate(
            f"{plain(c.label)}: {steps}",
            (0, base + 0.6),
            (0, 1),
            ("axes fraction", "data"),
            "offset points",
            fontsize=9,
        )
        text.set_gid(f"run-{c.style}-text")
    axis.set_ylim(-0.15, rows)
    axis.set_yticks([])


def share_scale(axes: Sequence[Axes]) -> None:
    limits = [axis.get_ylim() for axis in axes]
    for axis in axes:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def png(path: Path, chosen: Sequence[Picture], groups: list[Group], title: str, same_scale: bool = False) -> None:
    """Draw all pictures into one file, with a legend."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    with matplotlib.rc_context(SETTINGS):
        columns = 2 if len(chosen) in (2, 4) else min(3, len(chosen))
        rows = -(-len(chosen) // columns)
        width, height = TILE_INCHES
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
        figure = Figure(figsize=(width * columns, height * rows + 0.9), layout=layout)
        canvas = FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.01, ha="left", fontsize=15, fontweight="bold")
        labels = [group.label for group in groups]
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for axis, (tile, lines) in zip(axes, chosen, strict=False):
            draw(axis, tile, lines, labels)
        for axis in figure.axes[len(chosen) :]:
            axis.set_axis_off()
        if same_scale:
            share_scale([axis for axis, (_, lines) in zip(figure.axes, chosen, strict=False) if lines])
        letters = int(width * columns / LETTER_INCHES[0]) - 6  # next to the line
        texts = [textwrap.fill(_legend(group), letters) for group in groups]
        handles = [
            Line2D([], [], color=style.color(i), marker=style.marker(i), linewidth=1.8, label=text)
            for i, text in enumerate(texts)
        ]
        several = any(len(group.runs) > 1 for group in groups)
        longest = max(len(line) for text in texts for line in text.splitlines())
        beside = min(2 * columns, max(1, letters // (longest + 6)), len(handles))
        lines = -(-len(handles) // beside) - 1 + sum(text.count("\n") for text in texts)  # more than one
        figure.set_figheight(figure.get_figheight() + LETTER_INCHES[1] * lines)
        figure.legend(
            handles=handles,
            loc="outside lower left",
            ncols=beside,
            frameon=False,
            title="lines: means over the seeds; bands: from min to max" if several else None,
            alignment="left",
        )
        canvas.print_png(path, metadata={"Title": title})


def _legend(group: Group) -> str:
    seeds = len(group.runs)
    label = plain(group.label)
    return label if seeds == 1 else f"{label} ({seeds} seeds)"


def figure_of(picture: Picture, groups: list[Group]) -> Figure:
    """One separate picture, for the page. Call within `rc_context(SETTINGS)`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=TILE_INCHES, layout="constrained")
    figure.patch.set_visible(False)
    axis = figure.subplots()
    axis.patch.set_visible(False)
    draw(axis, *picture, [group.label for group in groups])
    return figure
