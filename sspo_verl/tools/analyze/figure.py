"""An analysis as a PNG: the distributions of tokens and segments, and the share of segments in each band."""

from __future__ import annotations

from pathlib import Path

from sspo_verl.metrics.names import BANDS
from sspo_verl.tools.analyze.count import Counts, Histogram
from sspo_verl.tools.analyze.run import Analysis

BINS = 60
MIN_BARS = 6  # a single bar does not show a distribution
SHOWN = 0.995  # share of the values shown: a few very long ones would squeeze all others into one bin
COLOURS = {"all": "#4c5b70", "correct": "#1b7f5c", "wrong": "#c8553d", "unknown": "#9aa0a6"}
PANELS = (
    ("Segments per response", "segments", "segments", "responses"),
    ("Tokens per response", "tokens", "tokens", "responses"),
    ("Tokens per segment", "segment_tokens", "tokens", "segments"),
)


def draw(analysis: Analysis, path: Path, title: str, bands: str) -> None:
    """Draw the analysis. bands: description of the entropy bands."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = list(figure.subplots(2, 2).flat)
    groups = {name: counts for name, counts in analysis.by_correct().items() if counts.responses > counts.empty}
    groups = groups or {"all": analysis.group()}
    for axis, (name, field, unit, things) in zip(axes, PANELS, strict=False):
        _distribution(axis, {label: getattr(counts, field) for label, counts in groups.items()}, unit, things)
        axis.set_title(name, loc="left", fontsize=11)
    _bands(axes[3], groups, bands)
    for axis in axes:
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    canvas.print_png(path)


def _distribution(axis, histograms: dict[str, Histogram], unit: str, things: str) -> None:
    total = Histogram()
    for histogram in histograms.values():
        total.merge(histogram)
    if not total.n:
        _say(axis, "not known without --model")
        return
    first, last = min(total.counts), int(total.quantiles([SHOWN])[0] + 0.999999)
    first = max(min(first, last + 1 - MIN_BARS), 0)
    width = max(-(-(last + 1 - first) // BINS), 1)  # integers: a bin covers `width` of them
    bins = max(-(-(last + 1 - first) // width), MIN_BARS)
    edges = [first + i * width - 0.5 for i in range(bins + 1)]
    for label, histogram in histograms.items():
        if not histogram.n:
            continue
        heights = [0.0] * bins
        for value, count in histogram.counts.items():
            if (place := (value - first) // width) < bins:
                heights[place] += 100 * count / histogram.n
        colour = COLOURS[label]
        axis.stairs(heights, edges, fill=True, color=colour, alpha=0.25)
        axis.stairs(heights, edges, color=colour, linewidth=1.5, label=f"{label} ({histogram.n:,})")
        mean = histogram.sum / histogram.n
        if mean < edges[-1]:
            axis.axvline(mean, color=colour, linewidth=1, linestyle="--")
    beyond = sum(count for value, count in total.counts.items() if value > edges[-1])
    label = unit if width == 1 else f"{unit}, {width} to a bin"
    axis.set_xlabel(label + (f"; {beyond:,} beyond, up to {max(total.counts):,}" if beyond else ""), fontsize=9)
    axis.set_ylabel(f"% of {things}", fontsize=9)
    axis.set_xlim(edges[0], edges[-1])
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.margins(y=0.15)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, title="dashed: mean", title_fontsize=8)


def _bands(axis, groups: dict[str, Counts], bands: str) -> None:
    axis.set_title("Segments by band of entropy", loc="left", fontsize=11)
    known = {label: summary for label, counts in groups.items() if (summary := counts.summary()["entropy_bands"])}
    if not known:
        _say(axis, "no entropies in these files")
        return
    width = 0.8 / len(known)
    for place, (label, summary) in enumerate(known.items()):
        at = [i + (place - (len(known) - 1) / 2) * width for i in range(len(BANDS))]
        shares = [100 * summary[band]["share"] for band in BANDS]
        clips = [summary[band]["clipped_segments"] for band in BANDS]
        colour = COLOURS[label]
        bars = axis.bar(at, shares, width * 0.92, color=colour, alpha=0.45, label=f"{label} ({summary['of']:,})")
        axis.bar_label(bars, fmt="%.0f", fontsize=8)
        if any(clips):
            clipped = [share * clip["all"]["share"] if clip else 0 for share, clip in zip(shares, clips, strict=True)]
            axis.bar(at, clipped, width * 0.92, color=colour, label="of these, clipped")
    axis.set_xticks(range(len(BANDS)), BANDS)
    axis.set_xlabel(bands, fontsize=9)
    axis.set_ylabel("% of segments", fontsize=9)
    axis.margins(y=0.35)  # space for the legend above the bars
    axis.grid(alpha=0.3, axis="y")
    axis.legend(fontsize=8, loc="upper right", ncols=len(known))


def _say(axis, words: str) -> None:
    axis.text(0.5, 0.5, words, transform=axis.transAxes, ha="center", color="gray")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
