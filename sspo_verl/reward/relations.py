r"""Comparison of relations, and of relations that name a value: x = 5 is 5, x + y = 5 is not."""

# sympy's types are partial.
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportReturnType=false, reportArgumentType=false
from __future__ import annotations

import itertools
import re

import sympy

from sspo_verl.reward.expressions import expression, proportional
from sspo_verl.reward.lists import Match
from sspo_verl.reward.names import is_function, is_name, names_no_value
from sspo_verl.reward.reading import Chain, Items, Node, read
from sspo_verl.reward.tidy import words

_TURNED = {">": "<", r"\ge": r"\le"}
_EQUAL = {"=", r"\approx"}
_SIMILAR = {r"\sim", r"\cong"}
_POINT = re.compile(r"(?<![A-Za-z\\])[A-Z](?:'+|_\w|_\{\w+\})?|(?<=[A-Z])[A-Z](?:'+|_\w|_\{\w+\})?")

Step = tuple[str, str, str]  # sign, left, right


def match_relations(gold: Node, answer: Node, match: Match) -> bool:
    """Match two nodes, at least one a Chain, but not as sets."""
    if isinstance(gold, Chain) and isinstance(answer, Chain):
        if _same_relation(gold, answer, match):
            return True
        g, a = named_value(gold), named_value(answer)
        return g is not None and a is not None and _same_name(gold, answer) and match(g, a)
    g, a = named_value(gold) or gold, named_value(answer) or _arithmetic(answer) or answer
    return (g is not gold or a is not answer) and match(g, a)


def by_name(gold: Node, answer: Node) -> tuple[Node, Node]:
    """Both as unordered lists of equations, if both name their values: (x, y) = (1, 2) or x = 1, y = 2."""
    g, a = _equations(gold), _equations(answer)
    return (gold, answer) if g is None or a is None else (g, a)


def _equations(node: Node) -> Items | None:
    """The equations x = 1, y = 2, also from (x, y) = (1, 2); else None."""
    if isinstance(node, Items) and not node.left and all(isinstance(item, Chain) for item in node.items):
        return node if len({item.sides[0] for item in node.items}) == len(node.items) > 1 else None
    if not isinstance(node, Chain) or node.signs != ("=",):
        return None
    names, values = (read(side) for side in node.sides)
    if not all(isinstance(side, Items) and (side.left, side.right) == ("(", ")") for side in (names, values)):
        return None
    if len(names.items) != len(values.items) or not all(is_name(name.text) for name in names.items):
        return None
    equations = [
        Chain((name.text, value.text), ("=",), f"{name.text}={value.text}")
        for name, value in zip(names.items, values.items, strict=True)
    ]
    return Items(tuple(equations), joins=frozenset(","), text=node.text)


def named_value(node: Node) -> Node | None:
    r"""The right-hand side of x = 5, f(x) = 2x, AB = 2 + 3 = 5, x \in A; None if the left is not a name."""
    if not isinstance(node, Chain):
        return None
    first, last = node.sides[0], node.sides[-1]
    if node.signs == ("=",) and not is_name(first) and is_name(last) and not is_function(last):
        return None if names_no_value(last, first) else read(first)  # 3 = x
    name = next((side for side in (first, node.sides[-2]) if is_name(side)), None)
    if name is None or (is_function(name) and not _is_constant(last)):
        return None
    if set(node.signs) <= _EQUAL:
        exact = [side for side, sign in zip(node.sides[1:], node.signs, strict=True) if sign == "="]
        value = exact[-1] if exact else last
        return None if names_no_value(name, value) else read(value)
    return read(node.sides[1]) if node.signs == (r"\in",) else None


def _arithmetic(node: Node) -> Node | None:
    """The result of a computation: 3 for 2 + 1 = 3."""
    if isinstance(node, Chain) and set(node.signs) <= _EQUAL and all(map(_is_constant, node.sides[:-1])):
        return read(node.sides[-1])
    return None


def _is_constant(text: str) -> bool:
    found = expression(text)
    return found is not None and not getattr(found, "free_symbols", True)


def _same_name(gold: Chain, answer: Chain) -> bool:
    one, other = (words(_name(chain)).replace(" ", "") for chain in (gold, answer))
    return one == other


def _name(chain: Chain) -> str:
    first, last = chain.sides[0], chain.sides[-1]
    return last if not is_name(first) and is_name(last) else first  # 3 = x


def _same_relation(gold: Chain, answer: Chain, match: Match) -> bool:
    """True if two relations are the same, possibly reversed or multiplied by a constant."""
    g, a = _steps(gold), _steps(answer)
    if len(g) != len(a):
        return False
    if all(_same_step(x, y, match) for x, y in zip(g, a, strict=True)):
        return True
    sign, left, right = a[0]
    if len(g) == 1 and sign in _SIMILAR and g[0][0] == sign:
        return _same_points(g[0], a[0])
    return len(g) == 1 and g[0][0] == "=" and _same_step(g[0], (sign, right, left), match)


def _same_points(gold: Step, answer: Step) -> bool:
    r"""Whether points correspond alike: \triangle ABC \sim \triangle DEF is \triangle EFD \sim \triangle BCA."""
    g, a = ([_POINT.findall(side) for side in step[1:]] for step in (gold, answer))
    if not all(len(points) == len(g[0]) > 2 for points in (*g, *a)):
        return False
    pairs = set(zip(*g, strict=True))
    return pairs in (set(zip(*a, strict=True)), set(zip(*reversed(a), strict=True)))


def _steps(chain: Chain) -> list[Step]:
    r"""The steps of a chain, using only < and \le, in ascending order."""
    steps = [(sign, *pair) for sign, pair in zip(chain.signs, itertools.pairwise(chain.sides), strict=True)]
    signs = set(chain.signs)
    if signs & set(_TURNED) and signs <= {*_TURNED, "=", r"\ne"}:
        return [(_TURNED.get(sign, sign), right, left) for sign, left, right in reversed(steps)]
    return steps


def _same_step(gold: Step, answer: Step, match: Match) -> bool:
    if gold[0] != answer[0]:
        return False
    if gold[0] in _SIMILAR and len(_POINT.findall(gold[1])) > 2:
        return _same_points(gold, answer)
    if all(match(read(x), read(y)) for x, y in zip(gold[1:], answer[1:], strict=True)):
        return True
    sides = [expression(side) for side in (*gold[1:], *answer[1:])]
    if gold[0] not in ("=", "<", r"\le", r"\ne") or not all(isinstance(side, sympy.Expr) for side in sides):
        return False
    g, a = sides[0] - sides[1], sides[2] - sides[3]
    if not g.free_symbols or not a.free_symbols:
        return False
    is_inequality = gold[0] in ("<", r"\le")
    if proportional(g, a, positive=is_inequality):
        return True
    if is_inequality:
        return False
    g, a = (sympy.together(difference).as_numer_denom()[0] for difference in (g, a))
    return bool(proportional(g, a, positive=False))
