"""Exact constants: equality and inequality are proved, and what is too large is refused at once."""

import itertools
import time

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import Integer, Rational, cos, exp, log, pi, root, sin, sqrt

from sspo_verl.reward.constants import TooLarge, Undecided, equal


def unevaluated(base, exponent):
    return sympy.Pow(base, exponent, evaluate=False)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=3), st.integers(30, 400), st.booleans())
def test_roots_and_what_differs_from_them_by_a_little(radicands, digits, nothing):
    """A sum of roots, and the root of its square, with 10^-digits added to one of them or not."""
    total = sum(sqrt(n) for n in radicands)
    other = sqrt(sympy.expand(total**2)) + (0 if nothing else Rational(1, 10**digits))
    assert equal(total, other) is nothing


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 10), st.integers(10, 3000), st.integers(-2, 2))
def test_large_integers(base, exponent, more):
    assert equal(unevaluated(base, exponent), unevaluated(base, exponent) + Integer(more)) is (more == 0)


def test_constants_with_pi_e_and_logarithms():
    small = Rational(1, 10**300)
    for one, other in (
        (log(12), 2 * log(2) + log(3)),
        (exp(200) - exp(-200), 2 * sympy.sinh(200)),
        (sin(pi / 10), (sqrt(5) - 1) / 4),
        (sympy.atan(Rational(1, 2)) + sympy.atan(Rational(1, 3)), pi / 4),
        (cos(pi / 7) - cos(2 * pi / 7) + cos(3 * pi / 7), Rational(1, 2)),
        (root(7 + 5 * sqrt(2), 3), 1 + sqrt(2)),
        (1 / (sympy.E + 1), (sympy.E - 1) / (exp(2) - 1)),
        (exp(sympy.I * pi / 3), Rational(1, 2) + sqrt(3) / 2 * sympy.I),
    ):
        assert equal(one, other) is True, (one, other)
        assert equal(one + small, other) is False, (one, other)


def test_exponentials_that_are_nearer_than_any_fixed_number_of_digits():
    for a, b in itertools.combinations([exp(-n) for n in (500, 1000, 5000)], 2):
        assert equal(1 + a, 1 + b) is False
    assert equal(exp(20000) + 1, exp(20000)) is False
    assert equal(sqrt(unevaluated(Integer(2), 3000) + 1), unevaluated(Integer(2), 1500)) is False


def test_what_would_never_end_is_refused_at_once():
    tower = unevaluated(Integer(9), unevaluated(Integer(9), unevaluated(Integer(9), 9)))
    start = time.process_time()
    for huge in (tower, sympy.factorial(10**12, evaluate=False), unevaluated(Integer(10), 10**12)):
        with pytest.raises(TooLarge, match="too many digits"):
            equal(huge, Integer(5))
    assert time.process_time() - start < 2
    assert issubclass(TooLarge, Undecided)
