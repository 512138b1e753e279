r"""Comparison of relations, and relations that name a value: x = 5 is 5, x + y = 5 is not."""

# sympy's types are partial.
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportReturnType=false, reportArgumentType=false
from __future__ import annotations

import itertools

import sympy

from sspo_verl.reward.expressions import expression, proportional
from sspo_verl.reward.lists import Match
from sspo_verl.reward.names import is_function, is_name
from sspo_verl.reward.reading import Chain, Node, read
from sspo_verl.reward.tidy import words

_TURNED = {">": "<", r"\ge": r"\le"}
_EQUAL = {"=", r"\approx"}

Step = tuple[str, str, str]  # sign, left, right


def match_relations(gold: Node, answer: Node, match: Match) -> bool:
    """Two nodes of which one at least is a Chain; not as sets."""
    if isinstance(gold, Chain) and isinstance(answer, Chain):
        if _same_relation(gold, answer, match):
            return True
        g, a = named_value(gold), named_value(answer)
        return g is not None and a is not None and _same_name(gold, answer) and match(g, a)
    g, a = named_value(gold) or gold, named_value(answer) or _arithmetic(answer) or answer
    return (g is not gold or a is not answer) and match(g, a)


def named_value(node: Node) -> Node | None:
    r"""The right side of x = 5, f(x) = 2x, AB = 2 + 3 = 5, x \in A; None where the left is not a name."""
    if not isinstance(node, Chain):
        return None
    first, last = node.sides[0], node.sides[-1]
    if node.signs == ("=",) and not is_name(first) and is_name(last) and not is_function(last):
        return read(first)  # 3 = x
    name = next((side for side in (first, node.sides[-2]) if is_name(side)), None)
    if name is None or (is_function(name) and not _is_constant(last)):
        return None
    if set(node.signs) <= _EQUAL:
        exact = [side for side, sign in zip(node.sides[1:], node.signs, strict=True) if sign == "="]
        return read(exact[-1] if exact else last)
    return read(node.sides[1]) if node.signs == (r"\in",) else None


def _arithmetic(node: Node) -> Node | None:
    """3, of 2 + 1 = 3."""
    if isinstance(node, Chain) and set(node.signs) <= _EQUAL and all(map(_is_constant, node.sides[:-1])):
        return read(node.sides[-1])
    return None


def _is_constant(text: str) -> bool:
    found = expression(text)
    return found is not None and not getattr(found, "free_symbols", True)


def _same_name(gold: Chain, answer: Chain) -> bool:
    one, other = (words(chain.sides[0]).replace(" ", "") for chain in (gold, answer))
    return one == other


def _same_relation(gold: Chain, answer: Chain, match: Match) -> bool:
    """Perhaps turned round, or multiplied by a constant."""
    g, a = _steps(gold), _steps(answer)
    if len(g) != len(a):
        return False
    if all(_same_step(x, y, match) for x, y in zip(g, a, strict=True)):
        return True
    sign, left, right = a[0]
    return len(g) == 1 and g[0][0] == "=" and _same_step(g[0], (sign, right, left), match)


def _steps(chain: Chain) -> list[Step]:
    r"""With < and \le only, from the smallest on."""
    steps = [(sign, *pair) for sign, pair in zip(chain.signs, itertools.pairwise(chain.sides), strict=True)]
    signs = set(chain.signs)
    if signs & set(_TURNED) and signs <= {*_TURNED, "=", r"\ne"}:
        return [(_TURNED.get(sign, sign), right, left) for sign, left, right in reversed(steps)]
    return steps


def _same_step(gold: Step, answer: Step, match: Match) -> bool:
    if gold[0] != answer[0]:
        return False
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
