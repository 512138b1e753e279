r"""The reward on real ground truths: python benchmarks/reward.py FILE.parquet ... [--pairs 5000]

FILE: written by `sspo data`, or any parquet file in verl's layout with a text as reward_model.ground_truth.

1. For each set: how many ground truths, boxed, are right against themselves by the reward as verl calls it; how many
   are read as mathematics in all their parts, not only as text, and the time that takes; and how many are right when
   written differently (\dfrac, other spaces, $ and a full stop around them).
2. Throughput, compared with verl's own verl.utils.reward_score.math_verify, on the same pairs from the same threads, in
   the same run: half of them a ground truth written differently, half another ground truth of the same set.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet

from sspo_verl.reward import expressions, numbers, reading, tidy, units
from sspo_verl.reward.judge import Judge
from sspo_verl.reward.settle import settle

THREADS = 8
RESPONSE = "We compute step by step.\nHence $x = 3$ and so on.\n\nThe final answer is $\\boxed{{{}}}$.\nThat is all."


def ground_truths(files: list[Path]) -> dict[str, list[str]]:
    sets = defaultdict(list)
    for file in files:
        for row in pyarrow.parquet.read_table(file, columns=["data_source", "reward_model"]).to_pylist():
            sets[row["data_source"]].append(row["reward_model"]["ground_truth"])
    return dict(sets)


def written_differently(gold: str) -> str:
    gold = gold.replace("\\frac", "\\dfrac").replace("+", " + ").replace("=", " = ")
    return gold if "\\" in gold else re.sub(r",(?!\d{3})", ", ", gold)


def _in_dollars(text: str) -> str:
    return text if "$" in text else f"${text}$"


def leaves(node: reading.Node) -> list[str]:
    """The parts of an answer that are read as one expression each."""
    if isinstance(node, reading.Leaf):
        return [node.text]
    if isinstance(node, reading.Chain):
        return list(node.sides)
    if isinstance(node, reading.Builder):
        return leaves(node.condition)
    return [text for part in (node.items if isinstance(node, reading.Items) else node.parts) for text in leaves(part)]


def is_mathematics(gold: str) -> bool:
    """True if all parts of a ground truth are read as mathematics, not only as text."""
    for cached in (tidy.tidy, reading.read, expressions.expression):
        cached.cache_clear()
    values = [units.without_unit(text) or text for text in leaves(reading.read(tidy.tidy(gold)))]
    return all(expressions.expression(tidy.PERCENT.sub("", value)) is not None for value in values)


def self_consistency(sets: dict[str, list[str]]) -> None:
    print("| set | ground truths | of them empty | right by the reward | read as mathematics | written differently"
          " | median ms | p99 ms | max ms |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    odd = []
    with Judge() as judge:
        for name, golds in sets.items():
            full = [gold for gold in golds if gold.strip()]
            times, alone = [], 0
            for gold in full:
                start = time.perf_counter()
                alone += is_mathematics(gold)
                times.append(1000 * (time.perf_counter() - start))
            itself = judge.check_all((f"\\boxed{{{gold}}}", gold) for gold in full)
            other = judge.check_all((f"\\boxed{{{_in_dollars(written_differently(gold))}.}}", gold) for gold in full)
            for how, verdicts in (("as it is", itself), ("written differently", other)):
                odd += [(name, how, g, v.status) for g, v in zip(full, verdicts, strict=True) if not v.correct]
            times.sort()
            right, different = sum(v.correct for v in itself), sum(v.correct for v in other)
            print(f"| {name} | {len(golds):,} | {len(golds) - len(full)} | {right:,} | {alone:,} | {different:,} |"
                  f" {statistics.median(times):.2f} | {times[int(0.99 * len(times))]:.1f} | {times[-1]:.1f} |",
                  flush=True)  # fmt: skip
    for name, how, gold, status in odd:
        print(f"not right, {how}: {name}: {gold!r} ({status})")


def make_pairs(sets: dict[str, list[str]], count: int, seed: int) -> list[tuple[str, str, bool]]:
    """(response, ground truth, whether it is right), shuffled; each set contributes pairs in proportion to its size."""
    rng = random.Random(seed)
    golds = [(name, gold) for name, golds in sets.items() for gold in golds if _braces_match(gold) and gold.strip()]
    pairs = []
    for number, (name, gold) in enumerate(rng.sample(golds, min(count, len(golds)))):
        answer = written_differently(gold)
        if number % 2:
            while settle(answer := rng.choice(sets[name]), gold) or not answer.strip():
                pass
        pairs.append((RESPONSE.format(answer), gold, not number % 2))
    return pairs


def _braces_match(text: str) -> bool:
    return text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")


def measure(score: Callable[[str, str], bool], pairs: list, threads: int) -> dict[str, float]:
    times: list[float] = []
    lock = threading.Lock()

    def one(pair: tuple[str, str, bool]) -> bool:
        start = time.perf_counter()
        right = score(pair[0], pair[1])
        with lock:
            times.append(1000 * (time.perf_counter() - start))
        return right

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(one, pairs))
    seconds = time.perf_counter() - start
    times.sort()
    return {
        "seconds": seconds,
        "rate": len(pairs) / seconds,
        "median": statistics.median(times),
        "p99": times[int(0.99 * len(times))],
        "accepted": sum(result for result, pair in zip(results, pairs, strict=True) if pair[2]),
        "false": sum(result for result, pair in zip(results, pairs, strict=True) if not pair[2]),
    }


def throughput(pairs: list[tuple[str, str, bool]]) -> None:
    from verl.utils.reward_score.math_verify import compute_score as verls

    def plain(pair: tuple[str, str, bool]) -> bool:
        return numbers.read_number(tidy.tidy(pair[1])) is not None

    subsets = {
        "all": pairs,
        "ground truth a plain number": [pair for pair in pairs if plain(pair)],
        "any other": [pair for pair in pairs if not plain(pair)],
    }
    warm_up = [(RESPONSE.format(f"x+{n}"), f"{n}+x", True) for n in range(3 * THREADS)]
    print(f"\n{THREADS} threads; verl's scorer has a pool of 4 processes. Workers are started before the time runs.\n")
    print("| pairs | scorer | checks/s | ratio | median ms | p99 ms | right ones accepted | wrong ones accepted |\n"
          "|---|---|---|---|---|---|---|---|")  # fmt: skip
    scorers: dict[str, Callable[[str, str], bool]] = {"verl": lambda response, gold: verls(response, gold) > 0}
    with Judge(workers=4) as four, Judge() as default:
        scorers["this, 4 workers"] = lambda response, gold: four.check(response, gold).correct
        scorers[f"this, {default.workers} (default here)"] = lambda response, gold: (
            default.check(response, gold).correct
        )
        for score in scorers.values():
            measure(score, warm_up, THREADS)
        for subset, chosen in subsets.items():
            base = None
            right = sum(pair[2] for pair in chosen)
            for name, score in scorers.items():
                m = measure(score, chosen, THREADS)
                base = base or m["rate"]
                print(f"| {subset}: {len(chosen):,} | {name} | {m['rate']:,.0f} | {m['rate'] / base:.1f} |"
                      f" {m['median']:.2f} | {m['p99']:.1f} | {m['accepted']:,} of {right:,} |"
                      f" {m['false']:,} of {len(chosen) - right:,} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("golds", "throughput"), help="one of the two parts")
    arguments = parser.parse_args()
    found = ground_truths(arguments.files)
    if arguments.only != "throughput":
        self_consistency(found)
    if arguments.only != "golds":
        throughput(make_pairs(found, arguments.pairs, arguments.seed))
