r"""Parses an unstructured text as one sympy expression, and compares two expressions.

Parsed by latex2sympy2_extended, like in math-verify. Exact constants are compared by `constants`, those with decimals
by the rule of `numbers`; expressions with variables at points, where they are constants; all else by math-verify.
"""

# sympy's types are partial.
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportReturnType=false, reportArgumentType=false
# pyright: reportAssignmentType=false
from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import sympy
from sympy.core.function import AppliedUndef

from sspo_verl.reward import constants
from sspo_verl.reward.numbers import GROUPED, close, is_rounding, read_number

_PRIME = re.compile(r"(?<![A-Za-z])([A-Za-z])(?:('+)|\^\s*\{?\s*((?:\\prime\s*)+)\}?)")
_POINT = r"([A-Z](?:'+|_\w|_\{\w+\})?)"
_ANGLE = re.compile(rf"(?:m\s*)?\\angle\s*{_POINT}\s*{_POINT}\s*{_POINT}(?![A-Za-z_'])")
_TRANSPOSED = re.compile(r"(?<![A-Za-z\\])([A-Z])\s*\^\s*(?:T|\{\s*(?:\\text\{)?T\}?\s*\}|\\text\{T\}|\{?\\top\}?)")
_OF_FUNCTION = re.compile(
    r"(?<![A-Za-z\\])([fghyFGH])\s*\^\s*\{\s*(?:(-)1|\((\w)\))\s*\}(?=\s*\()"
)  # inverse, derivative
_E_WITH_INDEX = re.compile(r"(?<![A-Za-z\\])([eE])\s*_")  # not Euler's number
_GAMMA = re.compile(r"\\(gamma(?![a-zA-Z])|Gamma(?![a-zA-Z])(?!\s*\())")  # a letter: no function, not Euler's constant
# Before a bracket whose commas are separators: \gcd(12,180), f(1,250).
_TAKES_ARGUMENTS = re.compile(
    r"(?:\\(?:max|min|gcd|lcm)|\\(?:operatorname|text)\{[^{}]*\}"
    r"|(?:(?<![A-Za-z\\])[A-Za-z]|\\(?:phi|varphi|psi|sigma|tau|mu))(?:'+|_\w|_\{[^{}]*\})*)\s*$"
)
# Points at which expressions with variables are compared. Each row has one value per variable, in turn. Only points at
# which both are real count; \sqrt{x} \sqrt{y} equals \sqrt{xy} wherever it is defined.
_POINTS = (
    (Fraction(31, 97), Fraction(71, 113), Fraction(17, 89), Fraction(53, 61)),
    (Fraction(127, 53), Fraction(173, 79), Fraction(151, 47), Fraction(233, 101)),
    (Fraction(-43, 59), Fraction(-103, 67), Fraction(-19, 83), Fraction(-211, 73)),
    (Fraction(-29, 103), Fraction(139, 37), Fraction(-89, 41), Fraction(101, 43)),
    (Fraction(67, 11), Fraction(-47, 107), Fraction(109, 29), Fraction(-61, 71)),
    (Fraction(389, 17), Fraction(421, 13), Fraction(307, 19), Fraction(353, 23)),
)
_WHOLE = ((3, 5, 2, 4), (4, 2, 7, 3), (6, 3, 1, 5), (7, 8, 3, 2))  # for n! and (-1)^n, which have no value elsewhere
ENOUGH = 2
# Piecewise expressions, and those that are 0 up to a number, are also compared at integers: these, those near each
# constant in them, and beyond the product of all constants; up to a limit, a low one with exponents and factorials.
_RUN = (0, 1, -1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, -2, -3, -4, -5)
_IN_PIECES = (sympy.floor, sympy.ceiling, sympy.frac, sympy.Abs, sympy.Max, sympy.Min, sympy.sign, sympy.Mod)
_WHOLE_ONLY = (sympy.factorial, sympy.binomial, sympy.gamma)
_LARGEST_POINT, _LARGEST_WITH_POWERS = 10**9, 150


@lru_cache(maxsize=512)
def expression(text: str):
    """The expression that latex2sympy2_extended parses from a tidy text; None if it cannot."""
    from latex2sympy2_extended.latex2sympy2 import latex2sympy
    from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex

    text = GROUPED.sub(_without_commas, text.replace(r"^\circ", " "))
    text = _ANGLE.sub(_angle, text)
    text = _TRANSPOSED.sub(r"\1_{transposed}", text)
    text = _OF_FUNCTION.sub(lambda f: rf"{f[1]}_{{{'inverse' if f[2] else 'derivative' + f[3]}}}", text)
    text = _PRIME.sub(lambda f: rf"{f[1]}_{{prime{len(f[2] or '') or f[3].count('prime')}}}", text)
    text = _E_WITH_INDEX.sub(r"\\text{\1}_", text)
    text = _GAMMA.sub(r"\\text{\1}", text)
    config = NormalizationConfig(basic_latex=True, malformed_operators=True, nits=True, boxed="none")
    try:
        read = latex2sympy(normalize_latex(text, config), is_real=True, normalization_config=None)
    except Exception:  # antlr's, sympy's or others: all they mean is that parsing failed
        return None
    if not isinstance(read, sympy.Basic | sympy.MatrixBase) or read.has(sympy.nan, sympy.zoo):
        return None  # 5:00 as a ratio is infinite; only its text can be compared
    return _named(read) if isinstance(read, sympy.Expr) else read


def _without_commas(found: re.Match) -> str:
    before, depth = found.string[: found.start()], 0
    for position in range(len(before) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(before[position], 0)
        if depth < 0:
            return found.group() if _TAKES_ARGUMENTS.search(before[:position]) else found.group().replace(",", "")
    return found.group().replace(",", "")


def _angle(found: re.Match) -> str:
    """One name for an angle, whichever side it is named from."""
    one, vertex, other = (re.sub(r"[_{}]", "", point.replace("'", "prime")) for point in found.groups())
    return rf"\text{{angle{min(one, other)}{vertex}{max(one, other)}}}"


def _named(read: sympy.Expr) -> sympy.Expr:
    """Replace i by the imaginary unit, unless it may be an index, and dx/dt, which sympy takes for 0, by a symbol."""
    instead: dict = {
        node: sympy.Symbol(str(node), real=True)
        for node in read.atoms(sympy.Derivative)
        if isinstance(node.expr, sympy.Symbol)
    }
    if not read.has(sympy.Sum, sympy.Product):
        instead[sympy.Symbol("i", real=True)] = sympy.I
    read = read.xreplace(instead)
    return (
        read
        if read.has(sympy.I)
        else read.xreplace({power: -((-power.base) ** power.exp) for power in _odd_roots(read)})
    )


def _odd_roots(read: sympy.Expr) -> list[sympy.Pow]:
    r"""\sqrt[3]{-8} and the like: real if there is no i, as in LaTeX."""
    roots = [power for power in read.atoms(sympy.Pow) if power.exp.is_Rational and power.exp.p == 1 and power.exp.q % 2]
    return [power for power in roots if power.exp.q > 1 and power.base.is_number and power.base.is_negative]


def same_expression(answer: str, gold: str) -> bool:
    """True if two tidy texts are equal as expressions; False if one of them cannot be read."""
    g, a = expression(gold), expression(answer)
    if g is None or a is None:
        return False
    if isinstance(g, sympy.MatrixBase) or isinstance(a, sympy.MatrixBase):
        return _same_matrix(g, a)
    if not isinstance(g, sympy.Expr) or not isinstance(a, sympy.Expr):
        return _by_math_verify(g, a)
    if (known := equal(g, a, gold, answer)) is not None:
        return known
    return _by_math_verify(g, a)


def equal(gold: sympy.Expr, answer: sympy.Expr, gold_text: str = "", answer_text: str = "") -> bool | None:
    """True if two expressions are equal; None if neither constants nor points decide it. Raises Undecided.

    The texts matter for decimals: they show how many digits were given.
    """
    if gold == answer:
        return True
    if not gold.free_symbols and not answer.free_symbols:
        if gold.has(sympy.Float) or answer.has(sympy.Float):
            return _decimals_agree(gold, answer, gold_text, answer_text)
        return constants.equal(gold, answer)
    return _equal_at_points(_exact(gold), _exact(answer))


def _exact(expression: sympy.Expr) -> sympy.Expr:
    return expression.xreplace({number: sympy.Rational(str(number)) for number in expression.atoms(sympy.Float)})


def _same_matrix(g, a) -> bool:
    g, a = (m.doit() if hasattr(m, "doit") else m for m in (g, a))
    if not isinstance(g, sympy.MatrixBase) or not isinstance(a, sympy.MatrixBase) or g.shape != a.shape:
        return False
    return all(bool(equal(x, y)) for x, y in zip(g.flat(), a.flat(), strict=True))


def _by_math_verify(g, a) -> bool:
    from math_verify import verify

    return verify(g, a, timeout_seconds=None, raise_on_error=True, allow_set_relation_comp=True)


def _decimals_agree(gold: sympy.Expr, answer: sympy.Expr, gold_text: str, answer_text: str) -> bool | None:
    """Apply the rule of `numbers` to two constants, real or complex, at least one with decimals."""
    g_parts, a_parts = _parts(_exact(gold)), _parts(_exact(answer))
    if g_parts is None or a_parts is None:
        return None
    (g_real, g_imaginary), (a_real, a_imaginary) = g_parts, a_parts
    if not close(g_imaginary, a_imaginary):
        return False
    if close(g_real, a_real):
        return True
    if g_imaginary or a_imaginary:
        return False
    return _rounds(answer_text, g_real, gold) or _rounds(gold_text, a_real, answer)


def _parts(number: sympy.Expr) -> tuple[Fraction, Fraction] | None:
    """Real and imaginary parts, exact or to 60 decimals and digits; None if infinite or not a number."""
    value = constants.evaluated(number)
    if value.has(sympy.oo, sympy.zoo, sympy.nan):
        return None
    if value.is_Rational:
        return _fraction(value), Fraction(0)
    digits = 60 + constants.digits_before_point(value)
    real, imaginary = value.evalf(digits).as_real_imag()
    found = []
    for part in (real, imaginary):
        part = part.evalf(digits)
        if not part.is_Number or not part.is_finite:
            return None
        found.append(_fraction(sympy.Rational(part)))
    return found[0], found[1]


def _fraction(number: sympy.Rational) -> Fraction:
    return Fraction(int(number.p), int(number.q))


def _rounds(decimal_text: str, value: Fraction, expression: sympy.Expr) -> bool:
    decimal = read_number(decimal_text)
    return (
        decimal is not None
        and decimal.is_decimal
        and not constants.evaluated(_exact(expression)).is_integer
        and is_rounding(decimal, value, expression.has(sympy.Float))
    )


def without_arguments(expression: sympy.Expr) -> sympy.Expr:
    """Replace each f(x), which has no value at a point, by a symbol."""
    return expression.xreplace({call: sympy.Symbol(str(call), real=True) for call in expression.atoms(AppliedUndef)})


def values_at_points(expressions: list[sympy.Expr], points=_POINTS):
    """Values of the expressions at each point where all can be computed."""
    expressions = [without_arguments(constants.evaluated(e)) for e in expressions]
    symbols = sorted(set().union(*(e.free_symbols for e in expressions)), key=str)
    for point in points:
        values = {  # no two alike
            symbol: sympy.Rational(*(Fraction(point[n % len(point)]) + n // len(point)).as_integer_ratio())
            for n, symbol in enumerate(symbols)
        }
        yield [constants.evaluated(e.xreplace(values)) for e in expressions]


def at_points(expressions: list[sympy.Expr], test: Callable[..., bool | None]) -> bool | None:
    """True if a test of constants holds at every point where it has an answer; None if there are too few of those."""
    real = not any(e.has(sympy.I) for e in expressions)
    counted = 0
    for points in (_POINTS, _WHOLE, _further(expressions)):
        if counted >= ENOUGH and points in (_POINTS, _WHOLE):
            continue
        for values in values_at_points(expressions, points):
            if real and not all(_is_real(value) for value in values):
                continue
            result = test(*values)
            if result is False:
                return False
            counted += result is True
        if not any(e.has(*_WHOLE_ONLY, *_IN_PIECES, sympy.Pow) for e in expressions):
            break
    return True if counted >= ENOUGH else None


def _further(expressions: list[sympy.Expr]) -> tuple[tuple[int, ...], ...]:
    """Integer points for piecewise and integer-only expressions; none for others."""
    has_pieces = any(e.has(*_IN_PIECES) or _has_even_root(e) for e in expressions)
    has_whole = any(e.has(*_WHOLE_ONLY) for e in expressions)
    if not has_pieces and not has_whole:
        return ()
    numbers = set().union(*(e.atoms(sympy.Rational) for e in expressions))
    constants_in_it = {each for number in numbers for each in (abs(int(number.p)), int(number.q)) if each > 1}
    beyond = math.prod(constants_in_it) + 1
    powers = has_whole or any(power.exp.free_symbols for e in expressions for power in e.atoms(sympy.Pow))
    largest = _LARGEST_WITH_POWERS if powers else _LARGEST_POINT
    more = [each + step for each in constants_in_it for step in (-1, 0, 1, 2)]
    smallest = 0 if has_whole else -largest
    wanted = [n for n in (*_RUN, *sorted(more), beyond, beyond**2, -beyond) if smallest <= n <= largest]
    symbols = len(set().union(*(e.free_symbols for e in expressions)))
    # Each variable takes them in a different order.
    return tuple(
        tuple(wanted[(n * (2 * variable + 1) + 5 * variable) % len(wanted)] for variable in range(max(1, symbols)))
        for n in range(len(wanted))
    )


def _has_even_root(expression: sympy.Expr) -> bool:
    return any(
        power.exp.is_Rational and power.exp.q % 2 == 0 and power.base.free_symbols
        for power in expression.atoms(sympy.Pow)
    )


def _is_real(value: sympy.Expr) -> bool:
    return value.is_Rational or (value.is_real is not False and constants.enclosure(value, 64) is not None)


def _equal_at_points(gold: sympy.Expr, answer: sympy.Expr) -> bool | None:
    return at_points([gold, answer], constants.equal)


def proportional(gold: sympy.Expr, answer: sympy.Expr, positive: bool) -> bool | None:
    """True if one is the other times a non-zero constant (`positive`: a positive constant)."""
    factors: list = []

    def same_factor(g, a):
        if not factors:
            if constants.equal(g, sympy.Integer(0)) or constants.equal(a, sympy.Integer(0)):
                return None
            factors.append((g, a))
            if positive:
                bounds = constants.enclosure(g * a)
                return None if bounds is None else bool(bounds[0] > 0)
            return True
        first_g, first_a = factors[0]
        return constants.equal(g * first_a, a * first_g)

    if gold.free_symbols != answer.free_symbols:
        return False
    return at_points([_exact(gold), _exact(answer)], same_factor)
