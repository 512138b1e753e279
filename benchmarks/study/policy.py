"""Policies: the interface for training and sampling, whatever the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor, nn

from benchmarks.study import smollm2
from benchmarks.study.model import Qwen2, Samples
from benchmarks.study.tasks import TASKS
from benchmarks.study.warm_up import start


class Policy(Protocol):
    """Interface of a model; see the docstrings of `model.Qwen2`."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def weights_copy(self) -> dict[str, Tensor]: ...

    def log_probs(self, prompts: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]: ...

    def sample(self, prompts: Tensor, uniform: Tensor | None, end: int, limit: int) -> Samples: ...


def new_policy(task: str, weights: dict[str, Tensor] | None = None) -> Policy:
    """A task's starting model, or the same model with other weights."""
    if TASKS[task].text is smollm2.text:
        return smollm2.SmolLM2(weights)
    return Qwen2(start(task) if weights is None else weights)
