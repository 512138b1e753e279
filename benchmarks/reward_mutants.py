r"""Wrong answers that the reward accepts: python benchmarks/reward_mutants.py FILE.parquet ...

FILE: written by `sspo data`, or any parquet file in verl's layout with a text as reward_model.ground_truth.

1. Mutants: a ground truth with one change (a digit, a sign, a bound, a bracket, a variable, the order of a list or
   tuple), as the answer to itself. How many of each kind are accepted, and all of those, with why each may be right:
   the same value (both are evaluated to 60 digits by sympy, without this package), an unordered list, a bracket at
   infinity, another unit, -0, or none of these ("?"), to be inspected.
2. Unlike ground truths: pairs of different ground truths that are not plain numbers, one as the answer to the other.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from reward import ground_truths

from sspo_verl.reward.judge import Judge
from sspo_verl.reward.numbers import read_number
from sspo_verl.reward.reading import Items, read
from sspo_verl.reward.tidy import canonical, tidy
from sspo_verl.reward.units import without_unit

_OUTSIDE_TEXT = r"(?<![\\A-Za-z])"


def digit(text: str, rng: random.Random) -> str | None:
    place = _choose(rng, r"\d", text)
    if place is None:
        return None
    other = rng.choice([d for d in "0123456789" if d != text[place.start()]])
    return _put(text, place, other)


def sign(text: str, rng: random.Random) -> str | None:
    if rng.random() < 0.3 or not (place := _choose(rng, r"(?<![\\^_{(\[,])[-+]", text)):
        return f"-{text}" if not text.startswith("-") and text[:1] not in "([\\" else None
    return _put(text, place, "+" if place.group() == "-" else "-")


_BOUNDS = {"<": r"\le ", ">": r"\ge ", r"\le": "<", r"\ge": ">", r"\leq": "<", r"\geq": ">", r"\leqslant": "<"}


def bound(text: str, rng: random.Random) -> str | None:
    place = _choose(rng, r"<|>|\\(?:leq|geq|le|ge|leqslant|geqslant)(?![a-zA-Z])", text)
    return place and _put(text, place, _BOUNDS.get(place.group(), ">"))


_BRACKETS = {"(": "[", "[": "(", ")": "]", "]": ")"}


def bracket(text: str, rng: random.Random) -> str | None:
    """Mutate the brackets of an interval or tuple: both, or on one side."""
    places = list(re.finditer(r"(?<![A-Za-z}0-9])[(\[][^()\[\]]*,[^()\[\]]*[)\]]", text))
    if not places:
        return None
    place = rng.choice(places)
    inner, how = place.group(), rng.randrange(3)
    left = _BRACKETS[inner[0]] if how != 1 else inner[0]
    right = _BRACKETS[inner[-1]] if how != 0 else inner[-1]
    return _put(text, place, left + inner[1:-1] + right)


def variable(text: str, rng: random.Random) -> str | None:
    place = _choose(rng, rf"{_OUTSIDE_TEXT}[a-df-hj-zA-DF-HJ-Z](?![A-Za-z])", text)
    if place is None:
        return None
    return _put(text, place, rng.choice([c for c in "abckmnpqrstuvwxyz" if c != place.group().lower()]))


def order(text: str, rng: random.Random) -> str | None:
    """Swap two adjacent members of a tuple or list."""
    places = list(re.finditer(r"(?<=[(\[{,])\s*([^(),\[\]{}]+),\s*([^(),\[\]{}]+)(?=[)\]},\\])", text))
    if "," in text and not places:
        parts = text.split(",")
        return ",".join([parts[1], parts[0], *parts[2:]]) if not re.search(r"[()\[\]{}]", text) else None
    if not places:
        return None
    place = rng.choice(places)
    return _put(text, place, f"{place[2]},{place[1]}")


KINDS = (digit, digit, sign, bound, bracket, variable, order)


def _choose(rng: random.Random, pattern: str, text: str) -> re.Match | None:
    return rng.choice(places) if (places := list(re.finditer(pattern, text))) else None


def _put(text: str, place: re.Match, instead: str) -> str:
    return text[: place.start()] + instead + text[place.end() :]


def mutants(golds: list[str], count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """(kind, ground truth, mutant), without repeated pairs or mutants with the same text."""
    rng = random.Random(seed)
    seen: set[tuple[str, str]] = set()
    while len(seen) < count:
        gold, kind = rng.choice(golds), rng.choice(KINDS)
        mutant = kind(gold, rng)
        if mutant and canonical(tidy(mutant)) != canonical(tidy(gold)) and (gold, mutant) not in seen:
            seen.add((gold, mutant))
            yield kind.__name__, gold, mutant


def unlike(golds: list[str], count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Pairs of ground truths: half random, half adjacent when sorted by text without digits, so they look alike."""
    rng = random.Random(seed)
    golds = [gold for gold in golds if read_number(tidy(gold)) is None]
    golds.sort(key=lambda gold: (re.sub(r"[\d\s]", "", tidy(gold)), gold))
    seen: set[tuple[str, str]] = set()
    while len(seen) < count:
        kind = ("any two", "look alike")[len(seen) % 2]
        place = rng.randrange(len(golds))
        other = rng.randrange(len(golds)) if kind == "any two" else place + rng.randint(-12, 12)
        pair = golds[place], golds[other % len(golds)]
        if pair not in seen and canonical(tidy(pair[0])) != canonical(tidy(pair[1])):
            seen.add(pair)
            yield kind, *pair


_MINUS_ZERO = re.compile(r"-\$?0\$?(?![\d.])|(?<![\d.])\$?0\$?(?![\d.])")
_AT_INFINITY = re.compile(r"[(\[](?=\s*-\\infty)|(?<=\\infty)\s*[)\]]")


def _round(text: str) -> str:
    return text.replace("[", "(").replace("]", ")")


def _rises(text: str) -> bool:
    """True if something in square brackets may be an interval: two ends, the first not known to be the larger."""
    for inner in re.findall(r"\[([^()\[\]]*)\]", text):
        ends = [read_number(tidy(end)) for end in inner.split(",")]
        if len(ends) == 2 and (ends[0] is None or ends[1] is None or ends[0].value <= ends[1].value):
            return True
    return False


def why(gold: str, answer: str) -> str:
    """Why an accepted pair may be right, determined without the comparison under test."""
    if (without_unit(tidy(gold)) or gold) == (without_unit(tidy(answer)) or answer):
        return "another unit"
    if _MINUS_ZERO.sub("0", gold) == _MINUS_ZERO.sub("0", answer):
        return "-0 is 0"
    try:
        import sympy
        from math_verify import parse

        values = [parse(f"\\boxed{{{text}}}") for text in (gold, answer)]
        exact = [v[0] for v in values if v and isinstance(v[0], sympy.Expr) and not v[0].free_symbols]
        if len(exact) == 2:
            difference, size = abs((exact[0] - exact[1]).evalf(60)), max(abs(e.evalf(60)) for e in exact)
            if difference <= 1e-40 * size:
                return "the same value"
            if any(e.has(sympy.Float) for e in exact) and difference <= 5e-7 * min(1, size):
                return "the same value to six decimals"
    except Exception:
        pass
    one, other = read(tidy(gold)), read(tidy(answer))
    if isinstance(one, Items) and isinstance(other, Items) and one.left in ("", "\\{"):
        items = [Counter(str(item) for item in node.items) for node in (one, other)]
        if items[0] == items[1]:
            return "a list without order"
    if _AT_INFINITY.sub("", gold) == _AT_INFINITY.sub("", answer):
        return "a bracket at infinity, which is in no set of numbers"
    if _round(gold) == _round(answer) and not _rises(gold) and not _rises(answer):
        return "square brackets around what is no interval"
    return "?"


def judge(name: str, triples: list[tuple[str, str, str]], workers: int) -> None:
    start = time.perf_counter()
    tried, accepted, unsettled = Counter(), [], Counter()
    with Judge(workers=workers) as judge:
        verdicts = judge.check_all((f"\\boxed{{{answer}}}", gold) for _, gold, answer in triples)
    for (kind, gold, answer), verdict in zip(triples, verdicts, strict=True):
        tried[kind] += 1
        unsettled[kind] += verdict.status != "ok"
        if verdict.correct:
            accepted.append((kind, why(gold, answer), gold, answer))
    counts = Counter(kind for kind, *_ in accepted)
    print(f"\n{name}: {len(triples):,} in {time.perf_counter() - start:.0f} s\n")
    print("| what was changed | tried | accepted | not settled |\n|---|---|---|---|")
    for kind in tried:
        print(f"| {kind} | {tried[kind]:,} | {counts[kind]} | {unsettled[kind]} |")
    print(f"\nwhy: {dict(Counter(reason for _, reason, *_ in accepted))}")
    for line in sorted(accepted):
        print("accepted, {}, {}: {!r} <- {!r}".format(*line))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=18_396)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    found = sorted({gold for golds in ground_truths(arguments.files).values() for gold in golds if gold.strip()})
    if arguments.mutants:
        judge("mutants", list(mutants(found, arguments.mutants, arguments.seed)), arguments.workers)
    if arguments.pairs:
        judge("unlike ground truths", list(unlike(found, arguments.pairs, arguments.seed)), arguments.workers)
