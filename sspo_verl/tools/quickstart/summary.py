"""The summary of a run: its numbers and its text."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from sspo_verl.metrics.warnings import SIGNS
from sspo_verl.tools.quickstart.display import clock, percent, shorten
from sspo_verl.tools.quickstart.run import Run
from sspo_verl.tools.report import series
from sspo_verl.tools.report.numbers import numbers, warnings_seen
from sspo_verl.tools.runs import attempts
from sspo_verl.tools.runs.metrics_file import Rows

NOT_LOGGED = "n/a"


def collect(rows: Rows) -> dict[str, object]:
    """The numbers of the summary; None for what verl did not log. warnings: {sign: [steps seen, steps]}.

    Clip fractions are of valid response tokens; entropies are means over these, in nats, of the sampling policy.
    """
    validated = series.points(rows, series.ACCURACY)
    return {
        **numbers(rows),
        "accuracy_first_step": validated[0][0] if validated else None,
        "warnings": warnings_seen(rows),
    }


def before_and_after(validation: Path) -> tuple[int, dict, dict] | None:
    """The first held-out problem that was wrong at the first validation and right at the last, if there is one; with
    the step of the first."""
    files = sorted(validation.glob("[0-9]*.jsonl"), key=lambda p: int(p.stem))
    if len(files) < 2:
        return None
    # splitlines() would also split at U+2028 and U+0085 in a response.
    lines = (filter(None, file.read_text().split("\n")) for file in (files[0], files[-1]))
    first, last = ({e["input"]: e for e in map(json.loads, of_file)} for of_file in lines)
    for problem, before in first.items():
        after = last.get(problem)
        if after and before["score"] < 1 <= after["score"]:
            return int(files[0].stem), before, after
    return None


def _side_by_side(before: dict, after: dict) -> list[str]:
    left, right = ((e["input"] + e["output"]).rstrip().split("\n") for e in (before, after))
    height = max(len(left), len(right))
    left, right = (lines + [""] * (height - len(lines)) for lines in (left, right))
    width = max(map(len, left)) + 6
    return [f"{a:<{width}}{b}".rstrip() for a, b in zip(left, right, strict=True)]


def _warnings(seen: dict[str, tuple[int, int]]) -> list[str]:
    """The warning signs that this run showed: how often, and what to do."""
    shown = [(SIGNS[name], count, of) for name, (count, of) in seen.items() if count]
    if not shown:
        return [f"  {'warnings':<22} {'none' if seen else NOT_LOGGED}"]
    lines = ["  warnings"]
    for sign, count, of in shown:
        lines += [
            f"    {sign.title}: at {count} of {of} steps",
            *textwrap.wrap(f"{sign.advice}.", 110, initial_indent=" " * 6, subsequent_indent=" " * 6),
        ]
    return lines


def render(found: dict, run: Run, seconds: dict[str, float], resumed_from: int = 0) -> str:
    """The summary as text. `seconds` and `resumed_from` are those of the call that finished the run."""

    def shown(text: str, *names: str) -> str:
        values = [found[name] for name in names]
        return NOT_LOGGED if None in values else text.format(*values)

    before, after = found["accuracy_first"], found["accuracy_last"]
    if before is None or after is None:
        accuracy = NOT_LOGGED
    else:
        since = found["accuracy_first_step"]
        begin = f"from step {since}: " if since else ""  # the starting model was not measured
        accuracy = f"{begin}{percent(before, 1)} → {percent(after, 1)}  ({100 * (after - before):+.1f} points)"
    clipped = found["clip_fraction"]
    if clipped is None:
        clip = NOT_LOGGED
    else:
        clip = f"{percent(clipped, 2)} of tokens (highest step: {percent(found['clip_fraction_highest'], 2)})"
    lines = [f"{run.path.name}, {found['steps']} steps on sums of four digits", ""]
    table = [
        ("held-out accuracy", accuracy),
        ("", "greedy, on problems that neither the starting model nor the training saw"),
        ("clip fraction", clip),
        ("entropy", shown("{:.3f} → {:.3f} nats per token", "entropy_first", "entropy_last")),
        ("segments per response", shown("{:.1f}", "segments_per_response")),
        ("time per step", shown("{:.1f} s", "seconds_per_step")),
        ("sampler vs trainer", shown("token probabilities differ by {:.0e} on average", "rollout_difference")),
    ]
    if seconds:
        parts = ", ".join(f"{name} {clock(s)}" for name, s in seconds.items())
        since = f"from step {resumed_from}: " if resumed_from else ""
        table.append(("time", f"{since}{clock(sum(seconds.values()))}  ({parts})"))
    lines += [f"  {name:<22} {text}" for name, text in table]

    lines += ["", *_warnings(found["warnings"])]

    if example := before_and_after(run.validation):
        since, before, after = example
        lines += ["", f"  a held-out problem {f'at step {since}' if since else 'before'} and after"]
        lines += [f"    {line}" for line in _side_by_side(before, after)]

    model = run.hugging_face_model()
    tried = run.attempts()
    places = [
        ("checkpoint", shorten(model or run.checkpoints)),
        ("metrics (JSONL)", shorten(run.metrics)),
        ("curve (PNG)", shorten(run.curve)),
        ("verl's own log", shorten(tried[-1] / attempts.LOG) if tried else NOT_LOGGED),
    ]
    lines += [""] + [f"  {name:<22} {place}" for name, place in places]
    return "\n".join(lines)
