"""The arithmetic task: add four digits line by line, with a filler word before each sum.

    7+8+5+5=        the prompt
    we              a filler word, free to choose
    7+8=15          a running sum
    at
    15+5=20
    ok
    20+5=25
    #### 25         the answer, the only line that the reward looks at

Seven lines are seven subsentences. Sums have almost no entropy and filler words have a lot, so that each of SSPO's
three entropy bands has segments: this is by design of the task.
"""

from __future__ import annotations

import itertools
import random
import zlib
from pathlib import Path

from sspo_verl.tools.tasks import parquet

Terms = tuple[int, ...]

DATA_SOURCE = "sums"
N_TERMS = 4
LARGEST_TERM = 9
HELD_OUT_ONE_IN = 10
FORGETS_CARRY = 0.55
WORDS = "ok so hm go we add now see let sum try yes aha run do on up it is us me my an at by in of to no oh ah or"
FILLERS = WORDS.split()

TRAIN_ROWS = 2048
TEST_ROWS = 256
SPLIT_SEED = 7


def prompt(terms: Terms) -> str:
    return "+".join(map(str, terms)) + "="


def final_line(total: int | str) -> str:
    return f"#### {total}"


def is_held_out(terms: Terms) -> bool:
    """Whether a problem is held out: one in ten, decided by a checksum of the prompt, so no list is needed."""
    return zlib.crc32(prompt(terms).encode()) % HELD_OUT_ONE_IN == 0


def all_problems(held_out: bool) -> list[Terms]:
    terms = range(1, LARGEST_TERM + 1)
    return [p for p in itertools.product(terms, repeat=N_TERMS) if is_held_out(p) == held_out]


def solution(terms: Terms, rng: random.Random, forgets_carry: float = FORGETS_CARRY) -> str:
    """A worked solution by a writer who sometimes forgets a carry (8+7=5) and continues from the wrong sum.

    The warm-up learns from this writer, which leaves the model room to improve by reinforcement learning.
    """
    lines, total = [], terms[0]
    for term in terms[1:]:
        written = total + term
        if total % 10 + term >= 10 and rng.random() < forgets_carry:
            written -= 10
        lines += [rng.choice(FILLERS), f"{total}+{term}={written}"]
        total = written
    return "\n".join([*lines, final_line(total)])


def is_solved(text: str, total: int | str) -> bool:
    """True if the last line of a response is `#### {total}`."""
    return text.rstrip().split("\n")[-1] == final_line(total)


def compute_score(
    data_source: str, solution_str: str | None, ground_truth: str, extra_info: dict | None = None, **_: object
) -> dict[str, float]:
    """Custom reward function for verl: 1 if the last line is right, else 0.

    verl calls it with keyword arguments, once per response; its validation reports `acc`.
    """
    right = float(is_solved(solution_str or "", ground_truth))
    return {"score": right, "acc": right}


def verl_row(terms: Terms, index: int, split: str) -> dict:
    return parquet.verl_row(DATA_SOURCE, [{"role": "user", "content": prompt(terms)}], str(sum(terms)), split, index)


def splits() -> dict[str, list[Terms]]:
    """Fixed, disjoint sets of distinct problems: `train` for reinforcement learning, `test` from the held-out ones."""
    rng = random.Random(SPLIT_SEED)
    return {
        "train": rng.sample(all_problems(held_out=False), TRAIN_ROWS),
        "test": rng.sample(all_problems(held_out=True), TEST_ROWS),
    }


def write_parquet(folder: Path) -> dict[str, int]:
    """Write train.parquet and test.parquet in verl's format; return the number of rows of each."""
    rows = {
        split: [verl_row(terms, index, split) for index, terms in enumerate(problems)]
        for split, problems in splits().items()
    }
    return parquet.write_splits(folder, rows)
