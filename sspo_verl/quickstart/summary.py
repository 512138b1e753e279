"""The end of the story: what a run did, in numbers and in words."""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import mean, median

from sspo_verl.quickstart import metrics
from sspo_verl.quickstart.progress import clock, percent
from sspo_verl.quickstart.run_dir import RunDir

NOT_LOGGED = "n/a"


def collect(rows: metrics.Rows) -> dict[str, float | int | None]:
    """The numbers of the summary; None where verl logged nothing of the kind.

    clip_fraction: mean over all steps, of valid response tokens. entropy_*: mean over valid response tokens, in nats,
    of the policy that sampled. seconds_per_step: median, without validation.
    """

    def values(series: str) -> list[float]:
        return [v for _, v in metrics.points(rows, series)]

    accuracy, clipped, entropy = values("accuracy"), values("clip fraction"), values("entropy")
    segments, seconds, difference = (
        values("segments per response"),
        values("seconds per step"),
        values("rollout difference"),
    )
    return {
        "steps": max(rows, default=0),
        "accuracy_before": accuracy[0] if accuracy else None,
        "accuracy_after": accuracy[-1] if len(accuracy) > 1 else None,
        "clip_fraction": mean(clipped) if clipped else None,
        "clip_fraction_highest": max(clipped) if clipped else None,
        "entropy_first": entropy[0] if entropy else None,
        "entropy_last": entropy[-1] if entropy else None,
        "segments_per_response": mean(segments) if segments else None,
        "seconds_per_step": median(seconds) if seconds else None,
        "rollout_difference": max(difference) if difference else None,
    }


def before_and_after(validation: Path) -> tuple[dict, dict] | None:
    """The first held-out problem that was wrong at the first validation and right at the last, if there is one."""
    files = sorted(validation.glob("[0-9]*.jsonl"), key=lambda p: int(p.stem))
    if len(files) < 2:
        return None
    first, last = ({e["input"]: e for e in map(json.loads, f.read_text().splitlines())} for f in (files[0], files[-1]))
    for problem, before in first.items():
        after = last.get(problem)
        if after and before["score"] < 1 <= after["score"]:
            return before, after
    return None


def _side_by_side(before: dict, after: dict) -> list[str]:
    left, right = ((e["input"] + e["output"]).rstrip().split("\n") for e in (before, after))
    height = max(len(left), len(right))
    left, right = (lines + [""] * (height - len(lines)) for lines in (left, right))
    width = max(map(len, left)) + 6
    return [f"{a:<{width}}{b}".rstrip() for a, b in zip(left, right, strict=True)]


def shorten(path: Path) -> str:
    """Relative to where the user stands, if that is shorter to read."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def render(numbers: dict, run: RunDir, algorithm: str, seconds: dict[str, float], resumed_from: int = 0) -> str:
    """The summary as text. `seconds` and `resumed_from` are those of the call that finished the run."""

    def shown(text: str, *names: str) -> str:
        values = [numbers[name] for name in names]
        return NOT_LOGGED if None in values else text.format(*values)

    before, after = numbers["accuracy_before"], numbers["accuracy_after"]
    if before is None or after is None:
        accuracy = NOT_LOGGED
    else:
        accuracy = f"{percent(before, 1)} → {percent(after, 1)}  ({100 * (after - before):+.1f} points)"
    clipped = numbers["clip_fraction"]
    if clipped is None:
        clip = NOT_LOGGED
    else:
        clip = f"{percent(clipped, 2)} of tokens (highest step: {percent(numbers['clip_fraction_highest'], 2)})"
    segments = shown("{:.1f}", "segments_per_response")
    if segments == NOT_LOGGED:
        segments += f" ({algorithm} does not cut responses)"

    lines = [f"{algorithm}, {numbers['steps']} steps on sums of four digits", ""]
    table = [
        ("held-out accuracy", accuracy),
        ("", "greedy, on problems that neither the warm-up nor the training saw"),
        ("clip fraction", clip),
        ("entropy", shown("{:.3f} → {:.3f} nats per token", "entropy_first", "entropy_last")),
        ("segments per response", segments),
        ("time per step", shown("{:.1f} s", "seconds_per_step")),
        ("sampler vs trainer", shown("token probabilities differ by {:.0e} on average", "rollout_difference")),
    ]
    if seconds:
        parts = ", ".join(f"{name} {clock(s)}" for name, s in seconds.items())
        whole = f"from step {resumed_from}: " if resumed_from else ""
        table.append(("time", f"{whole}{clock(sum(seconds.values()))}  ({parts})"))
    lines += [f"  {name:<22} {text}" for name, text in table]

    if example := before_and_after(run.validation):
        lines += ["", "  a held-out problem before and after"]
        lines += [f"    {line}" for line in _side_by_side(*example)]

    model = run.hugging_face_model()
    attempts = run.attempts()
    places = [
        ("checkpoint", shorten(model or run.checkpoints)),
        ("metrics (JSONL)", shorten(run.metrics)),
        ("curve (PNG)", shorten(run.curve)),
        ("verl's own log", shorten(attempts[-1] / "verl.log") if attempts else NOT_LOGGED),
    ]
    lines += [""] + [f"  {name:<22} {place}" for name, place in places]
    return "\n".join(lines)
