r"""Equality of two exact constants: decided however large, small or close to each other they are.

- Rational values are compared exactly (sympy's integers).
- All others are enclosed in intervals of increasing precision until the difference is shown not to be 0, or is below
  the separation bound of Burnikel, Funke, Mehlhorn, Schirra and Schmitt (2001): a difference made of integers, roots,
  and sines and cosines of rational multiples of pi cannot be below it without being 0.
- With pi, e or logarithms no such bound is known: then the two are equal if the difference is 0 after expansion, or is
  below 2^-b, where b grows with the size of both (at least 500 bits).

Anything that would take too long to compute (9^{9^{9^9}}) is refused up front.
"""

# sympy's types are partial.
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportReturnType=false, reportArgumentType=false
from __future__ import annotations

import math
from functools import lru_cache

import sympy
from mpmath import libmp
from mpmath.libmp import libmpi

LARGEST = 8_000_000  # bits of a number that is computed
LONGEST = 60_000  # bits to which a difference is evaluated
MIN_BITS = 500  # bits, where no bound is known


class Undecided(Exception):
    """No proof either way within the limits: it is unknown whether the two are equal."""


class TooLarge(Undecided):
    """A number with more digits than this module computes."""


class _NotReal(Exception):
    """Not a real number, or one that this module cannot enclose."""


def evaluated(expression: sympy.Expr) -> sympy.Expr:
    """Evaluate what sympy left unevaluated. Raises TooLarge before a computation that would not end."""
    _size(expression)
    return expression.doit()


def equal(one: sympy.Expr, other: sympy.Expr) -> bool | None:
    """True if two exact constants (no symbols, no decimals) are equal; None if this module does not apply.

    Raises Undecided.
    """
    one, other = evaluated(one), evaluated(other)
    if one == other:
        return True
    if one.is_Rational and other.is_Rational:
        return False
    if one.has(sympy.oo, sympy.zoo, sympy.nan) or other.has(sympy.oo, sympy.zoo, sympy.nan):
        return None
    difference = one - other
    try:
        return is_zero(difference)
    except _NotReal:
        return _complex_is_zero(difference)


def _complex_is_zero(difference: sympy.Expr) -> bool | None:
    try:
        parts = [part.doit() for part in difference.as_real_imag()]
        if any(part.has(sympy.re, sympy.im) for part in parts):
            return None
        return all(is_zero(part) for part in parts)
    except _NotReal:
        return None


def digits_before_point(number: sympy.Expr) -> int:
    """Upper bound of the decimal digits before the point, for all parts of a constant. Raises Undecided."""
    return math.ceil(_largest(number) * math.log10(2))


@lru_cache(maxsize=256)
def is_zero(number: sympy.Expr) -> bool:
    """True if a real constant is 0. Raises Undecided, and _NotReal."""
    if number.is_Rational:
        return number == 0
    if _sign(number, 64) or _sign(number, 256):
        return False
    expanded = sympy.expand(number)
    if expanded.is_Rational:
        return expanded == 0
    lost = _largest(number)  # bits that cancel
    bits = 256
    if _sign(number, bits + lost):
        return False
    bound = _Bound().of(number)
    if bound is not None and bound <= LONGEST:
        needed = bound
    else:
        needed = max(MIN_BITS, 4 * _written(number))
        simple = sympy.expand_log(sympy.expand(sympy.together(expanded).as_numer_denom()[0]), force=False, factor=True)
        if simple.expand() == 0:
            return True
    while bits < needed + 64:
        bits = min(2 * bits, needed + 64)
        if bits > LONGEST:
            raise Undecided(f"the two constants agree to more than {LONGEST} bits, or nearly so")
        if _sign(number, bits + lost):
            return False
    return _magnitude(_enclosure(number, bits + lost)) < -needed


def _largest(number: sympy.Expr) -> int:
    """log2 of the largest term or factor in a constant, at least 0."""
    size = max(_bits(node) for node in sympy.preorder_traversal(number))
    if size > LONGEST:
        raise Undecided("the two constants are too large, and too near to each other, to be told apart")
    return max(0, math.ceil(size))


def _sign(number: sympy.Expr, bits: int) -> bool:
    """True if the enclosure with that many bits excludes 0."""
    low, high = _enclosure(number, bits)
    return libmp.mpf_sign(low) * libmp.mpf_sign(high) > 0


def _magnitude(interval) -> float:
    """log2 of the largest absolute value in an interval; -inf for 0."""
    return max(_log2(end) for end in interval)


def _log2(value) -> float:
    _, mantissa, exponent, size = value
    if not mantissa:
        return -math.inf if value == libmp.fzero else math.inf
    return exponent + size


# Enclosures: pairs of mpmath floats, rounded outwards.


def enclosure(number: sympy.Expr, bits: int = 300):
    """(low, high), exact fractions around a real constant; None if this module cannot enclose it."""
    try:
        ends = _enclosure(number, bits)
        return tuple(sympy.Rational(*libmp.to_rational(end)) for end in ends)
    except (_NotReal, OverflowError):
        return None


def _enclosure(number: sympy.Expr, bits: int):
    try:
        return _Enclose(bits + 20).of(number)
    except (ValueError, ZeroDivisionError, OverflowError) as error:  # mpmath's
        raise _NotReal(str(error)) from error


class _Enclose:
    def __init__(self, precision: int):
        self.precision = precision
        self.done: dict = {}

    def of(self, e):
        if e not in self.done:
            self.done[e] = self._of(e)
        return self.done[e]

    def _of(self, e):
        p = self.precision
        if e.is_Rational:
            return libmp.from_rational(e.p, e.q, p, "f"), libmp.from_rational(e.p, e.q, p, "c")
        if e is sympy.pi:
            return libmp.mpf_pi(p, "f"), libmp.mpf_pi(p, "c")
        if e is sympy.E:
            return libmp.mpf_e(p, "f"), libmp.mpf_e(p, "c")
        if e.is_Add:
            result = libmpi.mpi_zero
            for term in e.args:
                result = libmpi.mpi_add(result, self.of(term), p)
            return result
        if e.is_Mul:
            result = self.of(e.args[0])
            for factor in e.args[1:]:
                result = libmpi.mpi_mul(result, self.of(factor), p)
            return result
        if e.is_Pow:
            return self._power(*e.as_base_exp() if e.base is not sympy.E else (sympy.E, e.exp))
        if isinstance(e, sympy.exp):
            return libmpi.mpi_exp(self.of(e.args[0]), p)
        if isinstance(e, sympy.log) and len(e.args) == 1:
            return libmpi.mpi_log(self._positive(self.of(e.args[0])), p)
        return self._function(e)

    def _function(self, e):
        p = self.precision
        if len(e.args) == 1:
            x = self.of(e.args[0])
            if isinstance(e, sympy.sin | sympy.cos):
                cosine, sine = libmpi.mpi_cos_sin(x, p)
                return cosine if isinstance(e, sympy.cos) else sine
            if isinstance(e, sympy.tan | sympy.cot | sympy.sec | sympy.csc):
                cosine, sine = libmpi.mpi_cos_sin(x, p)
                above, below = {
                    sympy.tan: (sine, cosine),
                    sympy.cot: (cosine, sine),
                    sympy.sec: (libmpi.mpi_one, cosine),
                    sympy.csc: (libmpi.mpi_one, sine),
                }[type(e)]
                return libmpi.mpi_div(above, self._nonzero(below), p)
            if isinstance(e, sympy.atan):
                return libmpi.mpi_atan(x, p)
            if isinstance(e, sympy.asin | sympy.acos):
                root = libmpi.mpi_sqrt(libmpi.mpi_sub(libmpi.mpi_one, libmpi.mpi_mul(x, x, p), p), p)
                arcsine = libmpi.mpi_atan(libmpi.mpi_div(x, self._nonzero(root), p), p)
                if isinstance(e, sympy.asin):
                    return arcsine
                return libmpi.mpi_sub(libmpi.mpi_div(self.of(sympy.pi), libmpi.mpi_from_str("2", p), p), arcsine, p)
            if isinstance(e, sympy.sinh | sympy.cosh | sympy.tanh):
                return self.of(e.rewrite(sympy.exp))
            if isinstance(e, sympy.Abs):
                return libmpi.mpi_abs(x, p)
        raise _NotReal(f"{type(e).__name__} is not enclosed")

    def _power(self, base, exponent):
        p = self.precision
        if base is sympy.E:
            return libmpi.mpi_exp(self.of(exponent), p)
        b = self.of(base)
        if exponent.is_Integer:
            if exponent < 0:
                return libmpi.mpi_div(libmpi.mpi_one, self._nonzero(libmpi.mpi_pow_int(b, int(-exponent), p)), p)
            return libmpi.mpi_pow_int(b, int(exponent), p)
        if exponent == sympy.Rational(1, 2) and libmp.mpf_sign(b[0]) >= 0:
            return libmpi.mpi_sqrt(b, p)
        return libmpi.mpi_exp(libmpi.mpi_mul(self.of(exponent), libmpi.mpi_log(self._positive(b), p), p), p)

    @staticmethod
    def _positive(interval):
        if libmp.mpf_sign(interval[0]) <= 0:
            raise _NotReal("a root or logarithm of what is not known to be positive")
        return interval

    @staticmethod
    def _nonzero(interval):
        if libmp.mpf_sign(interval[0]) * libmp.mpf_sign(interval[1]) <= 0:
            raise _NotReal("a division by what is not known to differ from 0")
        return interval


class _Bound:
    """Separation bound, as -log2: an algebraic constant that is smaller is 0. Computed in one traversal."""

    def __init__(self):
        self.roots: dict = {}
        self.circle = 1  # the order of the roots of unity in it

    def of(self, e) -> int | None:
        try:
            above, below = self._of(e)
        except _NotReal:
            return None
        degree = math.prod(self.roots.values()) * self.circle
        return math.ceil((degree - 1) * max(above, 0.0) + below) + 2

    def _of(self, e) -> tuple[float, float]:
        """log2 of bounds on the conjugates of the numerator and denominator, both algebraic integers."""
        if e.is_Rational:
            return math.log2(max(abs(e.p), 1)), math.log2(e.q)
        if e.is_Add:
            above, below = self._of(e.args[0])
            for term in e.args[1:]:
                a, b = self._of(term)
                first, second = above + b, a + below
                above = max(first, second) + math.log2(1 + 2.0 ** -abs(first - second))
                below += b
            return above, below
        if e.is_Mul:
            pairs = [self._of(factor) for factor in e.args]
            return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
        if e.is_Pow and e.exp.is_Rational and e.base is not sympy.E:
            above, below = self._of(e.base)
            if e.exp < 0:
                above, below = below, above
            n, k = abs(int(e.exp.p)), int(e.exp.q)
            if k > 1:
                self.roots[e.base, k] = k
                above = (above + (k - 1) * below) / k
            return n * above, n * below
        if isinstance(e, sympy.sin | sympy.cos | sympy.tan | sympy.cot | sympy.sec | sympy.csc):
            turn = e.args[0] / sympy.pi
            if turn.is_Rational:
                self.circle = math.lcm(self.circle, 4 * int(turn.q))
                return (1.0, 1.0) if isinstance(e, sympy.sin | sympy.cos) else (2.0, 2.0)
        raise _NotReal("not algebraic")


def _written(e) -> int:
    """Approximate number of bits needed to write a constant, including the sizes of intermediate results."""
    total = 0
    for node in sympy.preorder_traversal(e):
        if node.is_Rational:
            total += int(node.p).bit_length() + int(node.q).bit_length()
        total += 2
        if isinstance(node, sympy.exp) or (node.is_Pow and not node.exp.is_Rational):
            total += math.ceil(min(abs(_bits(node)), 1e9))
    return total


def _bits(node) -> float:
    try:
        return min(_magnitude(_enclosure(node, 64)), 1e9)
    except _NotReal:
        return 64.0


def _size(e) -> float:
    """Upper bound of log2 of the absolute value, from the sizes of the parts; symbols are assumed to be small.

    Raises TooLarge if an integer of more than LARGEST bits would be computed.
    """
    if e.is_Number:
        return math.log2(max(abs(int(e.p)), int(e.q))) if e.is_Rational and e.p else 1.0
    if not e.args:
        return 4.0
    sizes = [_size(part) for part in e.args if isinstance(part, sympy.Basic)]
    if not sizes:
        return 4.0
    if e.is_Add:
        size = max(sizes) + math.log2(len(sizes))
    elif e.is_Mul:
        size = sum(sizes)
    elif e.is_Pow and len(sizes) == 2:
        size = sizes[0] * _value(e.args[1], sizes[1])
    elif isinstance(e, sympy.factorial | sympy.gamma):
        size = min(2.0 ** min(sizes[0], 64.0), 1e18) * sizes[0]
    elif isinstance(e, sympy.binomial):
        size = min(2.0 ** min(sizes[0], 64.0), 1e18)
    else:
        return max(sizes)
    if size > LARGEST and not (e.is_Pow and e.args[0].has(sympy.E)):
        raise TooLarge("it has a number with too many digits to compute")
    return min(size, 1e9)


def _value(exponent, size: float) -> float:
    if exponent.is_Rational:
        return float(max(1, abs(exponent.p) / exponent.q))
    if exponent.free_symbols:
        return 16.0
    return 2.0 ** min(size, 64.0)
