"""Learning curves as a PNG: held-out accuracy, training reward, clip fraction and entropy over steps."""

from __future__ import annotations

from pathlib import Path

from sspo_verl.quickstart.metrics import Rows, points

# series, title, unit of the y axis, share (shown in percent) or not
PANELS = (
    ("accuracy", "Held-out accuracy", "greedy, % of problems", True),
    ("reward", "Training reward", "mean over the batch", False),
    ("clip fraction", "Clip fraction", "% of tokens", True),
    ("entropy", "Entropy of the policy", "nats per token", False),
)


def draw(runs: dict[str, Rows], path: Path, title: str) -> None:
    """One line per run in each of four panels. `runs`: {label: rows}, rows as `metrics.merge` gives them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axis, (series, name, unit, as_percent) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        for label, rows in runs.items():
            data = points(rows, series)
            values = [100 * v if as_percent else v for _, v in data]
            axis.plot([step for step, _ in data], values, marker="o", markersize=3, linewidth=1.5, label=label)
            if series == "accuracy":
                for step, percent in zip([step for step, _ in data], values, strict=True):
                    axis.annotate(
                        f"{percent:.0f}", (step, percent), (0, 5), textcoords="offset points", ha="center", fontsize=8
                    )
        axis.set_title(name, loc="left", fontsize=11)
        axis.set_ylabel(unit, fontsize=9)
        axis.set_xlabel("step", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        if series == "accuracy":
            axis.set_ylim(0, 110)
        elif series == "reward":
            axis.set_ylim(0, 1.05)
        else:
            axis.set_ylim(0, 1.1 * max(axis.get_ylim()[1], 1e-3))
        if not any(points(rows, series) for rows in runs.values()):
            axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color="gray")
    if len(runs) > 1:
        figure.axes[0].legend(fontsize=8)
    canvas.print_png(path)
