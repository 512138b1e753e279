r"""Sets of real numbers, in any notation: intervals, unions, {x | x > 1}, x < 1 or x > 2, |x| > 1."""

# sympy's types are partial.
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportReturnType=false, reportArgumentType=false
from __future__ import annotations

import itertools

import sympy

from sspo_verl.reward import constants
from sspo_verl.reward.expressions import expression, without_arguments
from sspo_verl.reward.reading import INEQUALITIES, Builder, Chain, Items, Leaf, Node, Sets, is_interval, read

_NUMBERS = {
    "R": sympy.S.Reals,
    "Z": sympy.S.Integers,
    "N": sympy.S.Naturals,
    "Q": sympy.S.Rationals,
    "C": sympy.S.Complexes,
}
_RELATIONS = {
    "<": sympy.StrictLessThan,
    ">": sympy.StrictGreaterThan,
    r"\le": sympy.LessThan,
    r"\ge": sympy.GreaterThan,
    r"\ne": sympy.Ne,
    "=": sympy.Eq,
}
_MANY = 1000  # limit of integers in an interval that are listed


class _NoSet(Exception):
    pass


def as_set(node: Node) -> sympy.Set | None:
    """The set of real numbers that a node represents; None if it does not, or depends on more than one variable."""
    try:
        found = _set(node)
        return _listed(found)
    except (_NoSet, NotImplementedError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return None


def variable(node: Node) -> str | None:
    """The single variable of one or more inequalities; None if written as a set, or without one."""
    if isinstance(node, Chain) and node.signs == (r"\in",):
        name = expression(node.sides[0])
        return str(name) if isinstance(name, sympy.Symbol) else None
    if isinstance(node, Chain) and set(node.signs) <= set(_RELATIONS):
        symbols = _symbols(node.sides)
        return str(symbols[0]) if len(symbols) == 1 else None
    if isinstance(node, Items):
        names = {variable(item) for item in node.items}
        return names.pop() if len(names) == 1 else None
    return None


def same_set(one: sympy.Set, other: sympy.Set) -> bool:
    if one == other:
        return True
    pieces = [_pieces(each) for each in (one, other)]
    if pieces[0] is None or pieces[1] is None or len(pieces[0]) != len(pieces[1]):
        return False
    return all(_same_piece(x, y) for x, y in zip(*pieces, strict=True))


def _set(node: Node) -> sympy.Set:
    if isinstance(node, Leaf):
        return _leaf(node.text)
    if isinstance(node, Sets):
        return _operations(node)
    if isinstance(node, Builder):
        return _builder(node)
    if isinstance(node, Chain):
        return _chain(node)
    if node.left == r"\{":
        return sympy.FiniteSet(*(_number(item) for item in node.items))
    if node.left:
        if len(node.items) != 2:
            raise _NoSet
        low, high = (_number(item) for item in node.items)
        if not (low < high) and not (low == high and node.left == "[" and node.right == "]"):
            raise _NoSet  # (2, 1) is a pair
        return sympy.Interval(low, high, node.left == "(", node.right == ")")
    if len(node.joins) != 1 or not (variable(node) or _are_intervals(node)):
        raise _NoSet
    sets = [_set(item) for item in node.items]
    if node.joins == {"or"}:
        return sympy.Union(*sets)
    if node.joins == {"and"}:
        return sympy.Intersection(*sets)
    if sum(isinstance(item, Chain) and set(item.signs) == {r"\ne"} for item in node.items) >= len(sets) - 1:
        return sympy.Intersection(*sets)  # x < 5, x \ne 2: this never means "or"
    raise _NoSet


def _are_intervals(node: Items) -> bool:
    """Pairs joined by `or`, at least one of which can only be an interval."""
    return (
        node.joins == {"or"}
        and all(isinstance(item, Items) and len(item.items) == 2 and item.left in ("(", "[") for item in node.items)
        and any(is_interval(item) or r"\infty" in item.text for item in node.items)
    )


def _leaf(text: str) -> sympy.Set:
    if text == r"\emptyset":
        return sympy.S.EmptySet
    if text.startswith(r"\mathbb{") and text[9:] == "}":
        return _NUMBERS[text[8]]
    bare = "".join(text.split()).replace("{", "").replace("}", "")
    if bare in (r"\mathbbR^+", r"\mathbbR_+"):
        return sympy.Interval.open(0, sympy.oo)
    if bare in (r"\mathbbN^*", r"\mathbbZ^+", r"\mathbbN_+", r"\mathbbN^+"):
        return sympy.S.Naturals
    raise _NoSet


def _operations(node: Sets) -> sympy.Set:
    if len(set(node.signs)) > 1 and r"\cap" in node.signs:
        raise _NoSet  # which comes first?
    found = _set(node.parts[0])
    for sign, part in zip(node.signs, node.parts[1:], strict=True):
        other = _set(part)
        found = {r"\cup": sympy.Union, r"\cap": sympy.Intersection, r"\setminus": sympy.Complement}[sign](found, other)
    return found


def _builder(node: Builder) -> sympy.Set:
    bound = expression(node.bound)
    if not isinstance(bound, sympy.Symbol) or variable(node.condition) != str(bound):
        raise _NoSet
    found = _set(node.condition)
    return sympy.Intersection(found, _leaf(node.domain)) if node.domain else found


def _chain(node: Chain) -> sympy.Set:
    if node.signs == (r"\in",):
        name = expression(node.sides[0])
        if isinstance(name, sympy.Symbol):
            return _set(read(node.sides[1]))
        raise _NoSet
    symbols = _symbols(node.sides)
    if not set(node.signs) <= INEQUALITIES or len(symbols) != 1:
        raise _NoSet
    x = sympy.Symbol(symbols[0].name, real=True)
    sides = [constants.evaluated(_expression(side)).xreplace({symbols[0]: x}) for side in node.sides]
    found = sympy.S.Reals
    for sign, (left, right) in zip(node.signs, itertools.pairwise(sides), strict=True):
        relation = _RELATIONS[sign](left, right)
        if relation in (True, False, sympy.true, sympy.false):
            found = found if relation else sympy.S.EmptySet
            continue
        found = sympy.Intersection(found, relation.as_set())
    return found


def _symbols(sides: tuple[str, ...]) -> list[sympy.Symbol]:
    try:
        return list(set().union(*(_expression(side).free_symbols for side in sides)))
    except _NoSet:
        return []


def _expression(text: str) -> sympy.Expr:
    """Parse an expression; in -1 < f(x) < 1 the variable is f(x)."""
    read = expression(text)
    if not isinstance(read, sympy.Expr):
        raise _NoSet
    return without_arguments(read)


def _number(node: Node) -> sympy.Expr:
    if not isinstance(node, Leaf):
        raise _NoSet
    number = constants.evaluated(_expression(node.text.replace("+", "", 1) if node.text.startswith("+") else node.text))
    number = number.xreplace({each: sympy.Rational(str(each)) for each in number.atoms(sympy.Float)})
    if number.free_symbols or not number.is_extended_real:
        raise _NoSet
    return number


def _listed(found: sympy.Set) -> sympy.Set:
    if isinstance(found, sympy.Range) and found.size.is_finite and found.size <= _MANY:
        return sympy.FiniteSet(*found)
    return found


def _pieces(found: sympy.Set) -> list | None:
    """Intervals and points of a set, from left to right; None if it contains anything else."""
    parts = found.args if isinstance(found, sympy.Union) else (found,)
    pieces = []
    for part in parts:
        if isinstance(part, sympy.FiniteSet):
            pieces += [(point, point, False, False) for point in part.args]
        elif part is sympy.S.Reals:
            pieces.append((-sympy.oo, sympy.oo, True, True))
        elif isinstance(part, sympy.Interval):
            pieces.append((part.start, part.end, part.left_open, part.right_open))
        else:
            return None
    return sorted(pieces, key=lambda piece: piece[0])


def _same_piece(one, other) -> bool:
    return tuple(map(bool, one[2:])) == tuple(map(bool, other[2:])) and all(
        x == y or (x.is_finite and y.is_finite and constants.equal(x, y) is True)
        for x, y in zip(one[:2], other[:2], strict=True)
    )
