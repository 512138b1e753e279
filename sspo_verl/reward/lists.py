r"""Comparison of lists, tuples and sets of members; `match` compares the members.

ground truth     the answer is correct if it has
1, 2             the same members in any order, in brackets or not; each equally often (an answer may repeat one)
x = 1, y = 2     as above; without names, in this order
\{1, 2\}         the same set, in braces or bare
(1, 2)           the same in this order, in parentheses or bare
[1, 2)           the same, and the same brackets; [1, 2, 3] and [3, -1] are tuples, not intervals
1, 2, \ldots, n  the same in this order
"""

# sympy's types are partial.
# pyright: reportOperatorIssue=false, reportArgumentType=false
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import sympy

from sspo_verl.reward import constants
from sspo_verl.reward.expressions import expression
from sspo_verl.reward.reading import INEQUALITIES, Builder, Chain, Items, Leaf, Node, has_ellipsis, is_interval, read

MOST = 60  # limit of members for a comparison in any order
_PROPOSITION = re.compile(r"(?:(?:\\(?:neg|lnot|text)(?![a-zA-Z]))?[A-Za-z\s{}'()])+")
_ONE_LETTER = re.compile(r"[A-Za-z]")

Match = Callable[[Node, Node], bool]


def match_items(gold: Node, answer: Node, match: Match) -> bool:
    g = _family(gold) if isinstance(gold, Builder) else gold
    a = _family(answer) if isinstance(answer, Builder) else answer
    if not isinstance(g, Items) and not isinstance(a, Items):
        return False
    if _depth(g) != _depth(a) and max(_depth(g), _depth(a)) > 1:
        return False
    g, a = (node if isinstance(node, Items) else Items((node,), text=node.text) for node in (g, a))
    g, a = _as_tuple(g), _as_tuple(a)
    if not _brackets_agree(g, a) or not _joins_agree(g, a):
        return False
    a = _with_parameter_of(g, a)
    g, a = _in_order_of_names(g, a), _in_order_of_names(a, g)
    if _has_order(g, a):
        return _in_order(g.items, a.items, match)
    if r"\{" in (g.left, a.left):
        return _cover(g.items, a.items, match)
    answers = list(a.items)
    if len(g.items) < len(answers) <= MOST:
        answers = [item for n, item in enumerate(answers) if not any(match(item, other) for other in answers[:n])]
    return _pair_up(list(g.items), answers, match)


def pair_up(golds: tuple, answers: tuple, match: Match) -> bool:
    """True if golds and answers can be paired up, in any order."""
    return _pair_up(list(golds), list(answers), match)


def _depth(node: Node) -> int:
    r"""Nesting depth of the braces of a set: 2 for \{\{1\}\} and for \{\emptyset\}."""
    if isinstance(node, Leaf):
        return int(node.text == r"\emptyset")
    if not isinstance(node, Items):
        return 0
    return (node.left == r"\{") + max((_depth(item) for item in node.items), default=0)


def _as_tuple(node: Items) -> Items:
    """Put a list in square brackets that is not an interval, like [1, 2, 3] or [3, -1], into parentheses."""
    if (node.left, node.right) != ("[", "]") or (len(node.items) == 2 and not _falls(node)):
        return node
    return replace(node, left="(", right=")")


def _falls(node: Items) -> bool:
    low, high = (expression(item.text) for item in node.items)
    if not all(isinstance(end, sympy.Expr) and not end.free_symbols for end in (low, high)):
        return False
    bounds = constants.enclosure(constants.evaluated(low) - constants.evaluated(high))
    return bounds is not None and bool(bounds[0] > 0)


def _brackets_agree(g: Items, a: Items) -> bool:
    if is_interval(g) or is_interval(a) or r"\langle" in (g.left, a.left):
        return (g.left, g.right) == (a.left, a.right)
    if any((node.left, node.right) in (("(", "]"), ("[", ")")) for node in (g, a)):
        return False  # and not an interval
    return {g.left, a.left} != {"(", r"\{"}


def _has_order(g: Items, a: Items) -> bool:
    if g.left in ("(", "[", r"\langle") or has_ellipsis(g.text) or has_ellipsis(a.text):
        return True
    return g.left + a.left in ("", "(") and len(_names(g)) > 1 and len(_names(a)) < 2


def _in_order_of_names(node: Items, other: Items) -> Items:
    """Reorder coordinates, y = 2, x = 1 to x = 1, y = 2, if the other is a tuple without names."""
    names = [item.sides[0].strip() if isinstance(item, Chain) else "" for item in node.items]
    if node.left or other.left != "(" or not set(names) <= {"x", "y", "z"} or len(set(names)) < len(names):
        return node
    return replace(node, items=tuple(item for _, item in sorted(zip(names, node.items, strict=True))))


def _joins_agree(g: Items, a: Items) -> bool:
    """Compare the joins: `and` differs from `or` between inequalities, equations of different variables and
    propositions; x = 1 or y = 2 is not the pair (1, 2)."""
    if any(one.joins == {"or"} and len(_names(one)) > 1 and other.left == "(" for one, other in ((g, a), (a, g))):
        return False
    logical = [node.joins & {"and", "or"} for node in (g, a)]
    if not all(logical) or logical[0] == logical[1]:
        return True
    if any(isinstance(item, Leaf) and _PROPOSITION.fullmatch(item.text) for item in (*g.items, *a.items)):
        return False
    conditions = any(isinstance(item, Chain) and set(item.signs) & INEQUALITIES for item in (*g.items, *a.items))
    return not conditions and len(_names(g)) < 2 and len(_names(a)) < 2


def _names(node: Items) -> set[str]:
    """Left-hand sides of the equations in a list."""
    return {"".join(i.sides[0].split()) for i in node.items if isinstance(i, Chain) and set(i.signs) == {"="}}


def _in_order(golds, answers, match: Match) -> bool:
    return len(golds) == len(answers) and all(match(x, y) for x, y in zip(golds, answers, strict=True))


def _cover(golds, answers, match: Match) -> bool:
    """True if two sets have the same members."""
    if max(len(golds), len(answers)) > MOST:
        return _in_order(golds, answers, match)

    def alike(g, a):
        return _depth(g) == _depth(a) and match(g, a)

    return all(any(alike(g, a) for a in answers) for g in golds) and all(
        any(alike(g, a) for g in golds) for a in answers
    )


def _pair_up(golds: list, answers: list, match: Match) -> bool:
    """Perfect matching by augmenting paths; tries the same position first."""
    if len(golds) != len(answers) or len(golds) > MOST:
        return _in_order(golds, answers, match)
    known: dict[tuple[int, int], bool] = {}
    taken: dict[int, int] = {}

    def right(g: int, a: int) -> bool:
        if (g, a) not in known:
            known[g, a] = match(golds[g], answers[a])
        return known[g, a]

    def place(g: int, tried: set[int]) -> bool:
        for a in [g, *range(len(answers))]:
            if a in tried or not right(g, a):
                continue
            tried.add(a)
            if a not in taken or place(taken[a], tried):
                taken[a] = g
                return True
        return False

    return all(place(g, set()) for g in range(len(golds)))


# Families: one member for each integer.


def _family(node: Builder) -> Node:
    r"""Convert {2k\pi | k \in \mathbb{Z}} and {x | x = 2k\pi, k \in \mathbb{Z}} to the list 2k\pi, k \in \mathbb{Z}."""
    condition = node.condition
    if _is_membership(condition) and not node.domain:
        return Items((read(node.bound), condition), joins=frozenset(","), text=node.text)
    if isinstance(condition, Items) and not condition.left and condition.joins <= {",", "and"}:
        if not any(_is_membership(item) for item in condition.items):
            return node
        items = [_value_of(node.bound, item) for item in condition.items]
        if tuple(items) != condition.items:
            return Items(tuple(items), joins=frozenset(","), text=node.text)
    return node


def _is_membership(node: Node) -> bool:
    return isinstance(node, Chain) and node.signs == (r"\in",)


def _value_of(bound: str, item: Node) -> Node:
    if isinstance(item, Chain) and item.signs == ("=",) and item.sides[0].strip() == bound:
        return Leaf(item.sides[1])
    return item


def _parameter(node: Items) -> str | None:
    r"""The parameter k of a list with k \in \mathbb{Z} as its last item."""
    last = node.items[-1]
    if (
        len(node.items) > 1
        and isinstance(last, Chain)
        and _is_membership(last)
        and _ONE_LETTER.fullmatch(last.sides[0])
    ):
        return last.sides[0]
    return None


def _with_parameter_of(gold: Items, answer: Items) -> Items:
    r"""Rename the answer's parameter to the ground truth's: n\pi, n \in \mathbb{Z} to k\pi, k \in \mathbb{Z}."""
    there, here = _parameter(gold), _parameter(answer)
    if not there or not here or there == here or re.search(_letter(there), answer.text):
        return answer
    items = tuple(read(re.sub(_letter(here), there, item.text)) for item in answer.items)
    return Items(items, answer.left, answer.right, answer.joins, answer.text)


def _letter(name: str) -> str:
    return rf"(?<![A-Za-z\\]){name}(?![A-Za-z])"
