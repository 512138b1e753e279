r"""The counting task, for a small real model: the next three numbers, one per line, the last one boxed.

    14              two worked examples, each a separate turn: without any, SmolLM2-135M boxes nothing
    15
    16
    17
    \boxed{17}
    ...
    398             the problem
    399
    400
    401
    \boxed{401}     the answer, all that the reward looks at (sspo_verl.reward.math)

Four lines are four subsentences.
"""

from __future__ import annotations

import random
from pathlib import Path

from sspo_verl.tools.tasks import parquet

DATA_SOURCE = "counting"
STEPS = 3
NUMBERS = range(10, 1000)  # all numbers that occur
EXAMPLES = (14, 362)

TEST_ROWS = 256  # all others are for training
SPLIT_SEED = 7


def solution(start: int, steps: int = STEPS) -> str:
    lines = [str(start + step) for step in range(1, steps + 1)]
    return "\n".join([*lines, boxed(start + steps)])


def boxed(number: int) -> str:
    return rf"\boxed{{{number}}}"


def messages(start: int, steps: int = STEPS) -> list[dict[str, str]]:
    """The prompt's messages. The system message is empty: SmolLM2's chat template would add a longer one."""
    turns = [{"role": "system", "content": ""}]
    for example in EXAMPLES:
        turns.append({"role": "user", "content": str(example)})
        turns.append({"role": "assistant", "content": solution(example, steps)})
    return [*turns, {"role": "user", "content": str(start)}]


def splits() -> dict[str, list[int]]:
    """Every start except the examples', once, in a fixed order: `train`, and `test`, which is held out."""
    starts = [start for start in NUMBERS[:-STEPS] if start not in EXAMPLES]
    random.Random(SPLIT_SEED).shuffle(starts)
    return {"train": starts[TEST_ROWS:], "test": starts[:TEST_ROWS]}


def verl_row(start: int, index: int, split: str) -> dict:
    return parquet.verl_row(DATA_SOURCE, messages(start), str(start + STEPS), split, index)


def write_parquet(folder: Path) -> dict[str, int]:
    """Write train.parquet and test.parquet in verl's layout; return the number of rows of each."""
    rows = {
        split: [verl_row(start, index, split) for index, start in enumerate(starts)]
        for split, starts in splits().items()
    }
    return parquet.write_splits(folder, rows)
