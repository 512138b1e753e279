"""Tasks of the study: problems, worked solutions by a writer who makes mistakes, and the reward.

    sums          the quickstart's task: four digits added line by line; 7 lines
    sums_start_1  the same task, for a starting model of another seed; so is sums_start_2
    long_sums     the same with ten digits; 19 lines
    long_spaces   long_sums with a space instead of each line break: one line
    mini_sudoku   reasoning-gym's: a 4 x 4 square to complete, written row by row; 4 lines
    counting      SmolLM2's: count on by three from a three-digit number, and box the last; 4 lines
    long_counting the same by 15; 16 lines

All prompts of a task have the same length.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.study import smollm2
from benchmarks.study.text import Text, of_bytes
from sspo_verl.tools.tasks import arithmetic
from sspo_verl.tools.tasks import counting as counting_task


@dataclass(frozen=True)
class Task:
    """A task. `draw` makes a random problem, `prompt` its text, `solution` a text by the error-prone writer."""

    name: str
    limit: int  # maximum tokens of a response
    draw: Callable[[random.Random, bool], Hashable]  # (rng, held_out)
    prompt: Callable[[Hashable], str]
    solution: Callable[[Hashable, random.Random], str]
    is_solved: Callable[[str, Hashable], bool]
    text: Callable[[], Text] = of_bytes  # of the task's model

    def problems(self, rng: random.Random, count: int, held_out: bool) -> list[Hashable]:
        """`count` different problems; a held-out one is never used in training."""
        found: dict[Hashable, None] = {}
        while len(found) < count:
            found[self.draw(rng, held_out)] = None
        return list(found)

    def encode_prompts(self, problems: Sequence[Hashable]) -> Tensor:
        text = self.text()
        return torch.tensor([[*text.start, *text.encode(self.prompt(problem))] for problem in problems])

    def rewards(self, problems: Sequence[Hashable], tokens: Tensor, mask: Tensor) -> Tensor:
        """1 where the response solves its problem, else 0."""
        texts = [self.text().decode(row[valid].tolist()) for row, valid in zip(tokens, mask, strict=True)]
        return torch.tensor([float(self.is_solved(t, p)) for t, p in zip(texts, problems, strict=True)])


def sums(name: str, terms: int, forgets_carry: float, separator: str = "\n") -> Task:
    """Sums of `terms` digits. forgets_carry: the writer's error rate; lower for more terms."""
    longest = len(separator.join(["aha", "99+9=108"] * (terms - 1) + ["#### 108"]))

    def draw(rng: random.Random, held_out: bool) -> arithmetic.Terms:
        while True:
            problem = tuple(rng.randint(1, arithmetic.LARGEST_TERM) for _ in range(terms))
            if arithmetic.is_held_out(problem) == held_out:
                return problem

    def solution(problem, rng: random.Random) -> str:
        return arithmetic.solution(problem, rng, forgets_carry).replace("\n", separator)

    def is_solved(text: str, problem) -> bool:
        return text.endswith(separator + arithmetic.final_line(sum(problem)))

    return Task(name, longest + 4, draw, arithmetic.prompt, solution, is_solved)


def mini_sudoku(
    empty: tuple[int, int] = (6, 9), train: int = 40_000, held_out: int = 8_000, wrong: float = 0.2
) -> Task:
    """reasoning-gym's mini_sudoku: its own entries and answers; a prompt is the puzzle without the text around it.

    empty: minimum and maximum number of cells to fill. train, held_out: numbers of entries. wrong: how often the writer
    fills a cell with a random number.
    """

    @functools.cache
    def entries():
        from reasoning_gym import create_dataset

        return create_dataset("mini_sudoku", seed=1, size=train + held_out, min_empty=empty[0], max_empty=empty[1])

    def draw(rng: random.Random, is_held_out: bool) -> Hashable:
        index = train + rng.randrange(held_out) if is_held_out else rng.randrange(train)
        return _puzzle(entries()[index])

    def solution(problem: tuple[str, str], rng: random.Random) -> str:
        puzzle, answer = problem
        cells = zip(puzzle, answer, strict=True)
        return "".join(rng.choice("1234") if p == "_" and rng.random() < wrong else a for p, a in cells)

    def is_solved(text: str, problem: tuple[str, str]) -> bool:
        return text.strip() == problem[1]

    return Task("mini_sudoku", 40, draw, lambda problem: problem[0] + "=", solution, is_solved)


def _puzzle(entry: dict) -> tuple[str, str]:
    rows = (" ".join(str(cell) if cell else "_" for cell in row) for row in entry["metadata"]["puzzle"])
    return "\n".join(rows), entry["answer"]


def counting(name: str, steps: int) -> Task:
    """Count on by `steps`, after two worked examples. The starts of the recipe's test rows are held out."""
    starts = [s for s in range(100, 1000 - steps) if s not in counting_task.EXAMPLES]  # three digits: equal lengths
    test = set(counting_task.splits()["test"])

    def draw(rng: random.Random, held_out: bool) -> int:
        while True:
            problem = rng.choice(starts)
            if (problem in test) == held_out:
                return problem

    def is_solved(text: str, problem: int) -> bool:
        return text.strip().endswith(counting_task.boxed(problem + steps))

    return Task(
        name,
        12 + 4 * steps,  # three digits and a line break are four tokens
        draw,
        lambda problem: smollm2.chat(counting_task.messages(problem, steps)),
        lambda problem, rng: counting_task.solution(problem, steps),
        is_solved,
        smollm2.text,
    )


TASKS = {
    task.name: task
    for task in (
        *(
            sums(name, arithmetic.N_TERMS, arithmetic.FORGETS_CARRY)
            for name in ("sums", "sums_start_1", "sums_start_2")
        ),
        sums("long_sums", 10, 0.2),
        sums("long_spaces", 10, 0.2, separator=" "),
        mini_sudoku(),
        counting("counting", 3),
        counting("long_counting", 15),
    )
}
