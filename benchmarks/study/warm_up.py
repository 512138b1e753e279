"""Trains the starting models: a small Qwen2 from scratch, on a task's error-prone writer, with a fixed seed.

python -m benchmarks.study start sums      writes benchmarks/study/starts/sums.safetensors
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from benchmarks.study import model
from benchmarks.study.tasks import TASKS, Task
from benchmarks.study.text import of_bytes

STARTS = Path(__file__).with_name("starts")


@dataclass(frozen=True)
class Settings:
    """Everything the weights depend on, besides the task, the shape and torch itself."""

    steps: int = 400
    batch_size: int = 64
    learning_rate: float = 5e-3
    rise: float = 0.05  # share of steps for the rate's warm-up; then half a cosine down to 0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    seed: int = 0


SETTINGS = {"sums": Settings(), "long_sums": Settings(steps=500), "long_spaces": Settings(steps=800)}
SETTINGS["mini_sudoku"] = Settings(steps=800)
SETTINGS |= {f"sums_start_{seed}": Settings(seed=seed) for seed in (1, 2)}


def batch(task: Task, rng: random.Random, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts, solutions with end token, and the solutions' mask."""
    problems = [task.draw(rng, False) for _ in range(rows)]
    text = of_bytes()
    end = text.end
    solutions = [[*text.encode(task.solution(problem, rng)), end] for problem in problems]
    longest = max(map(len, solutions))
    padded = torch.tensor([s + [end] * (longest - len(s)) for s in solutions])
    mask = torch.tensor([[True] * len(s) + [False] * (longest - len(s)) for s in solutions])
    return task.encode_prompts(problems), padded, mask


def train(task: Task, settings: Settings, shape: model.Shape, on_step: Callable[[int, float], None]) -> model.Qwen2:
    """Train a model. Same settings, same machine: same bits. `on_step(done, loss)` is called after every step."""
    net = model.Qwen2(model.new_weights(shape, settings.seed))
    rng = random.Random(settings.seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.steps, pct_start=settings.rise, cycle_momentum=False
    )
    for step in range(settings.steps):
        prompts, solutions, mask = batch(task, rng, settings.batch_size)
        _, log_softmax = net.log_probs(prompts, solutions)
        loss = nll_loss(log_softmax[mask], solutions[mask])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        on_step(step + 1, loss.item())
    return net


def accuracy(net: model.Qwen2, task: Task, count: int, seed: int | None) -> float:
    """Accuracy on held-out problems; sampled with this seed, or greedy."""
    problems = task.problems(random.Random(0), count, held_out=True)
    uniform = None if seed is None else torch.rand(task.limit, count, generator=torch.Generator().manual_seed(seed))
    found = net.sample(task.encode_prompts(problems), uniform, of_bytes().end, task.limit)
    return task.rewards(problems, found.tokens, found.mask).mean().item()


def make(name: str, out: Path, settings: Settings | None = None) -> dict:
    """Train a model, write it, and return the record in its file."""
    settings = settings or SETTINGS[name]
    task, shape = TASKS[name], model.Shape()

    def show(step: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"step {step}/{settings.steps}, loss {loss:.3f}", flush=True)

    net = train(task, settings, shape, show)
    rounded = model.Qwen2({k: w.half() for k, w in net.weights().items()})
    record = {"task": name, "settings": asdict(settings), "shape": asdict(shape), "torch": torch.__version__}
    record |= {"sampled": accuracy(rounded, task, 500, 0), "greedy": accuracy(rounded, task, 500, None)}
    model.save(net, out, json.dumps(record))
    return record


@functools.cache
def start(name: str) -> dict[str, Tensor]:
    """Weights of a task's starting model."""
    file = STARTS / f"{name}.safetensors"
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: python -m benchmarks.study start {name} makes it.")
    return {name: weight.to(torch.get_default_device()) for name, weight in model.load(file)[0].items()}
