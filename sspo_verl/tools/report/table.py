"""The summary table: each algorithm in a few numbers, over its seeds."""

from __future__ import annotations

import math
from statistics import fmean

from sspo_verl.metrics.warnings import SIGNS
from sspo_verl.tools.report.numbers import Numbers, numbers, warnings_seen
from sspo_verl.tools.report.runs import Group
from sspo_verl.tools.report.series import not_finite
from sspo_verl.tools.report.settings import aggregation

Summary = dict[str, object]

# {number: (heading, unit, digits, factor)}
_ROWS: dict[str, tuple[str, str, int, float]] = {
    "accuracy_first": ("accuracy, first", "%", 1, 100),
    "accuracy_last": ("accuracy, last", "%", 1, 100),
    "accuracy_best": ("accuracy, best", "%", 1, 100),
    "reward_last": ("reward, last", "", 3, 1),
    "clip_fraction": ("clipped, own bounds", "% of tokens", 3, 100),
    "grpo_clip_fraction": ("clipped by GRPO's bounds", "% of tokens", 3, 100),
    "gspo_clip_fraction": ("clipped by GSPO's bounds", "% of tokens", 3, 100),
    "gspo_wide_clip_fraction": ("clipped by GSPO's bounds, 0.2", "% of tokens", 3, 100),
    "segments_per_response": ("segments per response", "", 2, 1),
    "entropy_first": ("entropy, first", "nats", 3, 1),
    "entropy_last": ("entropy, last", "nats", 3, 1),
    "seconds_per_step": ("time per step, median", "s", 2, 1),
}
NOT_MEASURED = "not measured"
NOT_KNOWN = "not known"
DIFFERS = " (≠)"  # marks a setting that makes runs hard to compare
CAPTION = (
    "Of several seeds: the mean, and in parentheses min and max. Clip fractions and segments are means "
    "over the steps. The last accuracy is missing where there was only one validation. NaN or infinite: the first "
    "step at which a metric of verl's was; such steps have no point in the curves. Warnings: at how many steps of all "
    "seeds."
)


def summarize(group: Group) -> Summary:
    """Summary as printed by --json: each number with mean, min, max and number of seeds that measured it; else null."""
    runs = [numbers(run.rows) for run in group.runs]
    summary: Summary = {
        "label": group.label,
        "seeds": len(group.runs),
        "paths": [str(run.path) for run in group.runs],
        "steps": [run.steps for run in group.runs],
        "planned_steps": [run.planned_steps for run in group.runs],
    }
    summary["loss_agg_mode"] = sorted({mode for run in group.runs if (mode := aggregation(run.settings))})
    summary["not_finite"] = _not_finite(group)
    summary |= {name: _spread(runs, name) for name in _ROWS}
    summary["warnings"] = _warnings(group)
    return summary


def _spread(runs: list[Numbers], name: str) -> dict[str, float | None] | None:
    """Mean, min and max of a number over the seeds. not_finite: number of seeds with NaN, which are excluded."""
    measured = [v for run in runs if (v := run[name]) is not None]
    data = [v for v in measured if math.isfinite(v)]
    if not measured:
        return None
    mean, low, high = (fmean(data), min(data), max(data)) if data else (None, None, None)
    spread: dict[str, float | None] = {"mean": mean, "min": low, "max": high, "seeds": len(data)}
    if bad := len(measured) - len(data):
        spread["not_finite"] = bad
    return spread


def _not_finite(group: Group) -> dict[str, int] | None:
    """The first step at which a metric was NaN or infinite, the number of such steps, and of seeds."""
    found = [{step for steps, _ in not_finite(run.rows).values() for step in steps} for run in group.runs]
    steps = set().union(*found)
    return {"first_step": min(steps), "steps": len(steps), "seeds": sum(map(bool, found))} if steps else None


def _warnings(group: Group) -> dict[str, dict[str, int]] | None:
    """For each sign, the number of steps (over all seeds) at which it was seen, and that checked for it."""
    seen = [warnings_seen(run.rows) for run in group.runs]
    found = {}
    for sign in SIGNS:
        counts = [run[sign] for run in seen if sign in run]
        if counts:
            found[sign] = {"seen": sum(n for n, _ in counts), "of": sum(of for _, of in counts)}
    return found or None


def rows(summaries: list[Summary]) -> list[tuple[str, list[str]]]:
    """(heading, a cell per algorithm). The spread over seeds is on a separate line."""
    table: list[tuple[str, list[str]]] = [
        ("seeds", [str(s["seeds"]) for s in summaries]),
        ("steps", [_steps(s) for s in summaries]),
        ("loss aggregation", _aggregations(summaries)),
        ("NaN or infinite", [_broken(s) for s in summaries]),
    ]
    for name, (heading, unit, digits, factor) in _ROWS.items():
        cells = [_cell(s[name], digits, factor) for s in summaries]
        table.append((f"{heading} ({unit})" if unit else heading, cells))
    for sign in SIGNS:
        table.append((f"warning: {SIGNS[sign].title.lower()}", [_seen(s["warnings"], sign) for s in summaries]))
    return table


def _steps(summary: Summary) -> str:
    steps, planned = summary["steps"], summary["planned_steps"]
    assert isinstance(steps, list)
    assert isinstance(planned, list)
    said = [f"{done} of {of}" if of and done < of else str(done) for done, of in zip(steps, planned, strict=True)]
    return said[0] if len(set(said)) == 1 else ", ".join(said)


def _aggregations(summaries: list[Summary]) -> list[str]:
    """loss_agg_mode of each algorithm, with a mark if they differ."""
    named = [", ".join(modes) if isinstance(modes := s["loss_agg_mode"], list) else "" for s in summaries]
    differ = len({name for name in named if name}) > 1
    return [f"{name}{DIFFERS if differ else ''}" if name else NOT_KNOWN for name in named]


def _broken(summary: Summary) -> str:
    found = summary["not_finite"]
    if not isinstance(found, dict):
        return "no"
    seeds = f"\n(in {found['seeds']} of {summary['seeds']} seeds)" if summary["seeds"] != 1 else ""
    return f"from step {found['first_step']}, at {found['steps']}{seeds}"


def _cell(spread: object, digits: int, factor: float) -> str:
    if not isinstance(spread, dict):
        return NOT_MEASURED
    bad = spread.get("not_finite", 0)
    if not spread["seeds"]:
        return "NaN"
    mean, low, high = (f"{factor * spread[key]:.{digits}f}" for key in ("mean", "min", "max"))
    cell = mean if spread["seeds"] == 1 else f"{mean}\n({low} to {high})"
    return f"{cell}\n(NaN in {bad} of {bad + spread['seeds']} seeds)" if bad else cell


def _seen(warnings: object, sign: str) -> str:
    if not isinstance(warnings, dict) or sign not in warnings:
        return NOT_MEASURED
    count = warnings[sign]
    return f"{count['seen']} of {count['of']} steps" if count["seen"] else "no"
