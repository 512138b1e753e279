"""verl's custom reward function for the arithmetic task: 1 if the last line is right, else 0."""

from __future__ import annotations

from sspo_verl.quickstart.arithmetic import is_solved


def compute_score(
    data_source: str, solution_str: str | None, ground_truth: str, extra_info: dict | None = None, **_: object
) -> dict[str, float]:
    """verl calls this by keyword, once per response; `acc` is what its validation reports."""
    right = float(is_solved(solution_str or "", ground_truth))
    return {"score": right, "acc": right}
