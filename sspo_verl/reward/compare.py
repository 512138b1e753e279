r"""Comparison of two answers: first as texts and plain numbers (`settle`), then by their structure (`reading`).

Runs in a worker's main thread (`worker`): it may take long, use a lot of memory, or never return.
docs/reward.md has the rules, and the cases in which the result differs from math-verify's.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sspo_verl.reward import sets
from sspo_verl.reward.expressions import same_expression
from sspo_verl.reward.letters import with_capitals_apart
from sspo_verl.reward.lists import match_items, pair_up
from sspo_verl.reward.numbers import read_number
from sspo_verl.reward.reading import INEQUALITIES, Builder, Chain, Items, Leaf, Node, Sets, has_ellipsis, is_set, read
from sspo_verl.reward.relations import by_name, match_relations
from sspo_verl.reward.settle import settle
from sspo_verl.reward.tidy import PERCENT, canonical, tidy, words
from sspo_verl.reward.unit_words import CARDINALS
from sspo_verl.reward.units import same_time, with_multipliers, without_units

_LETTERS = re.compile(r"[A-Za-z]{4,}")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_TEXT_WITHIN = re.compile(r"\\text\{[^{}]*[A-Za-z]{3}[^{}]*\}\s*[A-Za-z\d\\]")  # not a product: A \text{ before } B
_BASE = re.compile(r"\(?(-?[0-9A-Za-z.]*\d[0-9A-Za-z.]*)\)?_(\d+|\{?\(?(?:\\text\{)?(\w+)\}?\)?\}?)")
_INDEX_OF_NUMBER = re.compile(r"(?<![A-Za-z_}\d.,])[\d.,]*\d_\{?(\d+)")
BASES = {**CARDINALS, "binary": 2, "octal": 8, "decimal": 10, "hexadecimal": 16, "hex": 16}


def load() -> None:
    """Import the slow dependencies."""
    from math_verify import parse, verify  # noqa: F401


class NotUnderstood(Exception):
    """The ground truth cannot be read at all: no prediction could be correct."""


def same(answer: str, gold: str) -> bool:
    """True if an answer is equal to the ground truth. Both are LaTeX or plain text, without \\boxed."""
    answer, gold = tidy(answer), tidy(gold)
    settled = settle(answer, gold)
    if settled is not None:
        return settled
    if not _braces_match(gold):
        raise NotUnderstood(f"the ground truth {gold[:200]!r} cannot be read")
    gold, answer = with_capitals_apart(gold, answer)
    if match(read(gold), read(answer)):
        return True
    values = without_units(gold, answer)
    g, a = values[0] or gold, values[1] or answer
    return (g, a) != (gold, answer) and _of_several(g) and match(read(g), read(a))


def _of_several(text: str) -> bool:
    r"""True if a unit after a text applies to several values in it: (2, 3)\text{ cm}."""
    return not isinstance(read(text), Leaf | Chain)


def _braces_match(text: str) -> bool:
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def match(gold: Node, answer: Node) -> bool:
    """True if two nodes are equal."""
    if canonical(gold.text) == canonical(answer.text):
        return True
    gold, answer = by_name(gold, answer)
    if isinstance(gold, Leaf) and isinstance(answer, Leaf) and not (is_set(gold) or is_set(answer)):
        return _match_leaf(gold.text, answer.text)
    if (isinstance(gold, Chain) or isinstance(answer, Chain)) and match_relations(gold, answer, match):
        return True
    if match_items(gold, answer, match):
        return True
    return not has_ellipsis(gold.text + answer.text) and _match_sets(gold, answer)


# Sets.


def _match_sets(gold: Node, answer: Node) -> bool:
    g_variable, a_variable = sets.variable(gold), sets.variable(answer)
    if g_variable and a_variable and g_variable != a_variable:
        return False
    if not any(_is_set_like(node) for node in (gold, answer)):
        return False
    if (g := sets.as_set(gold)) is not None and (a := sets.as_set(answer)) is not None:
        return sets.same_set(g, a)
    return _match_written_sets(gold, answer)


def _is_set_like(node: Node) -> bool:
    if isinstance(node, Chain):
        return bool(set(node.signs) & (INEQUALITIES | {r"\in"}))
    if isinstance(node, Items) and not node.left:
        return all(_is_set_like(item) for item in node.items)
    return is_set(node)


def _match_written_sets(gold: Node, answer: Node) -> bool:
    """Compare sets that are not sets of real numbers by notation: A \\cup B, {(x, y) | x + y = 1}."""
    if isinstance(gold, Sets) and isinstance(answer, Sets) and gold.signs == answer.signs:
        if set(gold.signs) <= {r"\cup"} or set(gold.signs) <= {r"\cap"}:
            return pair_up(gold.parts, answer.parts, match)
        return all(match(x, y) for x, y in zip(gold.parts, answer.parts, strict=True))
    if isinstance(gold, Builder) and isinstance(answer, Builder):
        return (
            canonical(gold.bound) == canonical(answer.bound)
            and canonical(gold.domain) == canonical(answer.domain)
            and match(gold.condition, answer.condition)
        )
    return False


# Leaves.


def _match_leaf(gold: str, answer: str) -> bool:
    """Compare leaves with and without their units: upright letters after a number may be a unit or a symbol."""
    gold, answer = with_multipliers(gold), with_multipliers(answer)
    g, a = without_units(gold, answer)
    if (known := same_time(gold if g is None else g, answer if a is None else a)) is not None:
        return known
    if _match_value(gold, answer, _same_bare):
        return True
    if g is None and a is None:
        return False
    if any(PERCENT.search(x) and not PERCENT.search(y or "%") for x, y in ((gold, a), (answer, g))):
        return False  # 40 % is not 40 feet
    return _match_value(gold if g is None else g, answer if a is None else a, _match_without_unit)


def _match_without_unit(gold: str, answer: str) -> bool:
    g, a = read(gold), read(answer)
    return match(g, a) if not (isinstance(g, Leaf) and isinstance(a, Leaf)) else _same_bare(gold, answer)


def _match_value(gold: str, answer: str, test: Callable[[str, str], bool]) -> bool:
    """Compare with the rule for percent: the sign is often omitted if the question asks for percent; 10 % is 0.1."""
    bare_gold, bare_answer = PERCENT.sub("", gold), PERCENT.sub("", answer)
    if (bare_answer != answer) == (bare_gold != gold):  # both in percent, or neither
        return test(bare_gold, bare_answer)
    if test(bare_gold, bare_answer):
        return True
    if bare_answer != answer:
        return test(gold, _hundredth(bare_answer))
    return test(_hundredth(bare_gold), answer)


def _hundredth(text: str) -> str:
    number = read_number(text)
    if number is None:
        return rf"\frac{{{text}}}{{100}}"
    value = number.value / 100
    if number.step is not None:  # the number of digits matters
        places = len(str(number.step.denominator)) + 1
        whole, rest = divmod(int(abs(value) * 10**places), 10**places)
        return f"{'-' if value < 0 else ''}{whole}.{rest:0{places}d}"
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _same_bare(gold: str, answer: str) -> bool:
    settled = settle(answer, gold)
    if settled is not None:
        return settled
    if has_ellipsis(gold) or has_ellipsis(answer):
        return False
    g_words, a_words = words(gold), words(answer)
    if g_words == a_words and _WORD.search(g_words):
        return True
    if _TEXT_WITHIN.search(gold) or _TEXT_WITHIN.search(answer):
        return False
    one, other = _with_base(answer), _with_base(gold)
    if one and other:
        return one == other
    if any(not 2 <= int(index) <= 36 for text in (answer, gold) for index in _INDEX_OF_NUMBER.findall(text)):
        return False  # 12_345 has no base
    # Bare words would be products of their letters: east = seat.
    if _LETTERS.fullmatch(answer) and _LETTERS.fullmatch(gold) and answer.lower() != gold.lower():
        return False
    return same_expression(answer, gold)


def _with_base(text: str) -> tuple[str, str] | None:
    r"""A numeral and its base: 204_5, 204_{(5)}, 204_{\text{five}}."""
    if not (found := _BASE.fullmatch("".join(text.split()))):
        return None
    base = (found[3] or found[2]).lower()
    return found[1].upper(), str(BASES.get(base, base))
