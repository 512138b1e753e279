"""Formats lists of training steps."""

from __future__ import annotations

from collections.abc import Sequence


def ranges(steps: Sequence[int]) -> str:
    """Steps in a compact form: "1 to 4, 7"."""
    found: list[list[int]] = []
    for step in steps:
        if found and step == found[-1][-1] + 1:
            found[-1].append(step)
        else:
            found.append([step])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in found)
