"""The results as one JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sspo_verl.tools.evaluate.measure import Figures
from sspo_verl.tools.evaluate.plan import Plan
from sspo_verl.tools.evaluate.run import Result


def document(plan: Plan, results: list[Result]) -> dict[str, Any]:
    return {
        "sampling": asdict(plan.sampling),
        "sets": {
            name: {
                "problems": len(problems),
                "templates": sorted({problem.template or "chat template" for problem in problems}),
            }
            for name, problems in plan.sets.items()
        },
        "models": [
            {
                "name": result.work.model.name,
                "path": str(result.work.model.path),
                "settings": result.work.store.settings,
                "responses": str(result.work.store.folder / "responses.jsonl"),
                "reused": result.reused,
                "seconds": round(result.seconds, 1),
                "sets": {name: _figures(one) for name, one in result.sets.items()},
                "average": _figures(result.average),
            }
            for result in results
        ],
    }


def _figures(one: Figures) -> dict[str, Any]:
    k = one.samples
    return {
        "problems": one.problems,
        "samples": k,
        "accuracy": asdict(one.accuracy),
        "pass_at": {str(j): asdict(estimate) for j, estimate in one.pass_at.items()},
        "maj_at": {str(k): asdict(one.maj_at)},
        "mean_tokens": one.mean_tokens,
        "cut_off": one.cut_off,
        "no_answer": one.no_answer,
        "statuses": one.statuses,
    }
