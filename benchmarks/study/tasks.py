"""Tasks of the study: problems, worked solutions by a writer who errs, and the reward.

    sums          the quickstart's task: four digits added line by line; 7 lines
    long_sums     ten digits, the same way; 19 lines
    long_spaces   long_sums with a space in the place of each line break: one line
    mini_sudoku   reasoning-gym's: a square of 4 x 4 to complete, written row by row; 4 lines

Tokens are bytes. All prompts of a task have one length.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sspo_verl.segments import line_break_table
from sspo_verl.tools.quickstart import tokenizer as byte_tokenizer
from sspo_verl.tools.tasks import arithmetic


@functools.cache
def tokenizer():
    return byte_tokenizer.build()


@functools.cache
def special(name: str) -> int:
    return tokenizer().get_vocab()[name]


@functools.cache
def table() -> Tensor:
    """Of `segments.segment_ids`."""
    return line_break_table(tokenizer())


@functools.cache
def _characters() -> tuple[dict[str, int], dict[int, str]]:
    texts = {i: tokenizer().decode([i]) for i in range(256)}
    return {text: i for i, text in texts.items()}, texts


def encode(text: str) -> list[int]:
    """ASCII only: as the tokenizer, but a hundred times as fast."""
    ids, _ = _characters()
    return [ids[character] for character in text]


def decode(tokens: Sequence[int]) -> str:
    """Special tokens have no text."""
    _, texts = _characters()
    return "".join(texts.get(token, "") for token in tokens)


@dataclass(frozen=True)
class Task:
    """A task. `draw` makes a random problem, `prompt` its text, `solution` a text of the erring writer."""

    name: str
    limit: int  # most tokens of a response
    draw: Callable[[random.Random, bool], Hashable]  # (rng, held_out)
    prompt: Callable[[Hashable], str]
    solution: Callable[[Hashable, random.Random], str]
    is_solved: Callable[[str, Hashable], bool]

    def problems(self, rng: random.Random, count: int, held_out: bool) -> list[Hashable]:
        """`count` different problems; a held-out one is never used in training."""
        found: dict[Hashable, None] = {}
        while len(found) < count:
            found[self.draw(rng, held_out)] = None
        return list(found)

    def encode_prompts(self, problems: Sequence[Hashable]) -> Tensor:
        start = special(byte_tokenizer.START)
        return torch.tensor([[start, *encode(self.prompt(problem))] for problem in problems])

    def rewards(self, problems: Sequence[Hashable], tokens: Tensor, mask: Tensor) -> Tensor:
        """1 where the response solves its problem, else 0."""
        texts = [decode(row[valid].tolist()) for row, valid in zip(tokens, mask, strict=True)]
        return torch.tensor([float(self.is_solved(t, p)) for t, p in zip(texts, problems, strict=True)])


def sums(name: str, terms: int, forgets_carry: float, separator: str = "\n") -> Task:
    """Sums of `terms` digits. forgets_carry: of the writer; the more terms, the fewer may go wrong."""
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

    empty: fewest and most cells to fill. train, held_out: numbers of entries. wrong: how often the writer fills a cell
    with any number.
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


TASKS = {
    task.name: task
    for task in (
        sums("sums", arithmetic.N_TERMS, arithmetic.FORGETS_CARRY),
        sums("long_sums", 10, 0.2),
        sums("long_spaces", 10, 0.2, separator=" "),
        mini_sudoku(),
    )
}
