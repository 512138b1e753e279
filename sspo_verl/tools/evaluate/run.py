"""Evaluates one model after the other: generates what is missing, scores it, stores it, and computes the figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sspo_verl.tools.evaluate import merge
from sspo_verl.tools.evaluate.generate import Generated
from sspo_verl.tools.evaluate.generate import generate as generate_with_vllm
from sspo_verl.tools.evaluate.measure import Figures, averaged, figures
from sspo_verl.tools.evaluate.plan import Plan, Work
from sspo_verl.tools.evaluate.prompts import Prompt
from sspo_verl.tools.evaluate.scorers import Score, Scorers
from sspo_verl.tools.evaluate.store import Response

LOG = "vllm.log"
Show = Callable[[str], None]
Generate = Callable[..., Iterator[list[Generated]]]


@dataclass(frozen=True)
class Result:
    work: Work
    sets: dict[str, Figures]
    average: Figures
    reused: int  # responses that already existed
    seconds: float


def run(plan: Plan, show: Show, generate: Generate | None = None) -> list[Result]:
    """Run the plan. Raises merge.Failed if a model cannot be merged or vLLM fails; what was generated is kept."""
    with Scorers(plan.answer) as scorers:
        return [_one(plan, work, scorers, show, generate or generate_with_vllm) for work in plan.works]


def _one(plan: Plan, work: Work, scorers: Scorers, show: Show, generate: Generate) -> Result:
    began = time.monotonic()
    with work.store as store:
        samples = range(plan.sampling.k)
        wanted = [(prompt, sample) for prompt in work.prompts for sample in samples]
        missing = [(prompt, sample) for prompt, sample in wanted if (*prompt.key, sample) not in store.responses]
        if missing:
            _fill(plan, work, missing, scorers, show, generate)
        by_set = {
            name: figures([[store.responses[name, one.index, sample] for sample in samples] for one in problems])
            for name, problems in plan.sets.items()
        }
    reused = len(wanted) - len(missing)
    return Result(work, by_set, averaged(list(by_set.values())), reused, time.monotonic() - began)


def _fill(
    plan: Plan,
    work: Work,
    missing: list[tuple[Prompt, int]],
    scorers: Scorers,
    show: Show,
    generate: Generate,
) -> None:
    name, store = work.model.name, work.store
    if work.model.shards:
        show(f"{name}: merging the checkpoint's shards")
    folder = merge.weights(work.model, plan.merged)
    show(f"{name}: loading into vLLM")
    done, tokens, since = 0, 0, time.monotonic()
    log: Path = store.folder / LOG
    for batch in generate(folder, missing, plan.sampling, work.length, plan.platform, log):
        if not batch:  # loaded
            since = time.monotonic()
        scores = scorers.score([(one.prompt.problem, one.output) for one in batch])
        store.add(_response(one, score) for one, score in zip(batch, scores, strict=True))
        done += len(batch)
        tokens += sum(one.tokens for one in batch)
        speed = tokens / max(time.monotonic() - since, 1e-3)
        show(f"{name}: {done:,} of {len(missing):,} responses, {speed:,.0f} tokens a second")


def _response(one: Generated, score: Score) -> Response:
    problem = one.prompt.problem
    return Response(
        set=problem.set,
        index=problem.index,
        sample=one.sample,
        data_source=problem.data_source,
        prompt=one.prompt.text,
        output=one.output,
        tokens=one.tokens,
        finished=one.finished,
        answer=score.answer,
        status=score.status,
        correct=score.correct,
        score=float(score.correct),
        gold=problem.gold,
    )
