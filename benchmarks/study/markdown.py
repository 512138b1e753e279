"""The study's tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from statistics import fmean
from typing import Any

from benchmarks.study.claims import Comparison
from benchmarks.study.conditions import Table
from benchmarks.study.points import Point, grouped, of_grids, values
from benchmarks.study.results import Row
from benchmarks.study.statistics import Interval, mean_interval, mean_interval_unpaired

SHARES = (("clipped_low", "clipped low"), ("clipped_high", "clipped high"), ("with_gradient", "with gradient"))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: float, signed: bool = False) -> str:
    return f"{value:{'+' if signed else ''}.3f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def interval(found: Interval, signed: bool = False) -> str:
    return f"{number(found.mean, signed)} {ends(found, signed)}"


def ends(found: Interval, signed: bool = False) -> str:
    """The interval in brackets, or the range of too few values in parentheses."""
    low, high = number(found.low, signed), number(found.high, signed)
    return f"({low} to {high})" if found.is_range else f"[{low}, {high}]"


def probability(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-12 else "under 1e-12"  # less is lost to rounding


def place_words(place: Iterable[tuple[str, Any]]) -> str:
    words = {"learning_rate": "rate", "target_kl": "KL"}
    return ", ".join(f"{words.get(name, name)} {value:g}" for name, value in place if not isinstance(value, str))


def comparisons(found: Sequence[Comparison]) -> str:
    """One row each; the difference is in the metric's own unit, with its 95 % t interval; beside it the bootstrap."""
    head = ("task", "at", "first - second", "metric", "difference", "bootstrap", "seeds", "p", "p, Holm", "")
    rows = [
        (
            dict(each.place)["task"],
            place_words(each.place),
            f"{each.first} - {each.second}",
            each.metric,
            interval(each.difference, signed=True),
            ends(each.bootstrap, signed=True),
            str(each.difference.n),
            probability(each.p),
            probability(each.corrected),
            each.verdict,
        )
        for each in found
    ]
    return table(head, rows)


def outcomes(points: Sequence[Point], metrics: Sequence[str]) -> str:
    """One row per algorithm and place: metrics with intervals over seeds, KL and shares of tokens as means."""
    head = ("task", "at", "algorithm", *metrics, "seeds", "KL", *(word for _, word in SHARES))
    groups = grouped(points, lambda each: (each.place, each.algorithm.name))
    rows = []
    for (place, name), there in groups.items():
        cells = [dict(place)["task"], place_words(place), name]
        cells += [interval(mean_interval(list(values(there, metric).values()))) for metric in metrics]
        cells += [str(len(there)), f"{mean(there, 'kl'):.4f}"]
        rows.append([*cells, *(percent(mean(there, share)) for share, _ in SHARES)])
    return table(head, rows)


def identical(points: Sequence[Point]) -> str:
    """A sentence on a null control: the largest difference between the algorithms' results in any number."""
    largest = 0.0
    for there in grouped(points, lambda each: (each.place, each.seed)).values():
        columns = zip(*(flat(each.result) for each in there), strict=True)
        largest = max([largest, *(max(column) - min(column) for column in columns)])
    names = {each.algorithm.name for each in points}
    return (
        f"{len(points)} results of {len(names)} algorithms; largest difference within a seed, in any number of a "
        f"result: {largest:g}.\n"
    )


def flat(result: Any) -> list[float]:
    """The numbers of a result; without by_length, because segmentations differ."""
    if isinstance(result, dict):
        return [x for name, inner in result.items() if name != "by_length" for x in flat(inner)]
    return [x for inner in result for x in flat(inner)] if isinstance(result, list) else [result]


def mean(points: Sequence[Point], metric: str) -> float:
    return sum(each.result[metric] for each in points) / len(points)


# Columns on a training's curves: (curve, heading, its number, that number's format).
COURSE = (
    ("kl", "KL", fmean, "{:.4f}".format),
    *((name, words, fmean, percent) for name, words in SHARES),
    ("entropy", "entropy at the end", itemgetter(-1), number),
    ("length", "length at the end", itemgetter(-1), "{:.1f}".format),
)


def trainings(points: Sequence[Point], metrics: Sequence[str], course: Sequence[tuple] = ()) -> str:
    """One row per algorithm and place: metrics with intervals over seeds, how many of the runs collapsed, and of the
    curves in `course` the mean over seeds: of KL and shares of tokens their mean over the steps."""
    head = ("task", "at", "algorithm", *metrics, "collapsed", "seeds", *(words for _, words, _, _ in course))
    rows = []
    for (place, name), there in grouped(points, lambda each: (each.place, each.algorithm.name)).items():
        cells = [dict(place)["task"], place_words(place), name]
        cells += [interval(mean_interval(list(values(there, metric).values()))) for metric in metrics]
        collapsed = [each.result["collapsed"] for each in there if "collapsed" in each.result]
        cells += [f"{sum(collapsed):.0f}" if collapsed else "", str(len(there))]
        for curve, _, summary, written in course:
            cells.append(written(fmean(summary(each.result["curves"][curve]) for each in there)))
        rows.append(cells)
    return table(head, rows)


def agreements(conditions: Table, results: Sequence[Row]) -> str:
    """One row per algorithm that two grids share: both means, and their difference, unpaired."""
    head, rows = ("algorithm", "metric", "grids", "first", "second", "difference", "seeds"), []
    for wanted in conditions.agreements:
        grids, metric = wanted["grids"], wanted["metric"]
        first, second = (grouped(of_grids(conditions, results, [g]), lambda each: each.algorithm.name) for g in grids)
        for name in [name for name in first if name in second]:
            both = [[each.result[metric] for each in found[name]] for found in (first, second)]
            cells = [name, metric, " - ".join(grids), *(interval(mean_interval(found)) for found in both)]
            difference = mean_interval_unpaired(*both)
            rows.append([*cells, interval(difference, signed=True), " and ".join(str(len(found)) for found in both)])
    return table(head, rows)


MEASURES = ("cosine", "bias", "variance")  # the other two divide by what may be indistinguishable from 0


def gradients(points: Sequence[Point]) -> str:
    """One row per drift, distance and estimator: means over seeds, the cosine with its interval."""
    head = ("task", "drifted by", "KL reached", "estimator", *MEASURES, "pairs")
    rows = []
    for (place, drift), there in grouped(_distinct(points), lambda each: (each.place, each.algorithm.name)).items():
        for name in ("on-policy", *there[0].result["estimators"]):
            found = [p.result["on-policy"] if name == "on-policy" else p.result["estimators"][name] for p in there]
            means = [mean_interval([each[measure] for each in found]) for measure in MEASURES]
            cells = [dict(place)["task"], drift, f"{mean(there, 'kl'):.4f}", name, interval(means[0])]
            rows.append([*cells, *(f"{each.mean:.3g}" for each in means[1:]), str(len(there))])
    return table(head, rows)


def _distinct(points: Sequence[Point]) -> list[Point]:
    """Without distances that no seed reached: a drift that its clip held back has the pairs of the distance before."""
    seen: set[tuple[str, int, float]] = set()
    kept = []
    for there in grouped(points, lambda each: (each.place, each.algorithm.name)).values():
        pairs = {(each.algorithm.name, each.seed, each.result["kl"]) for each in there}
        if pairs - seen:
            kept += there
        seen |= pairs
    return kept
