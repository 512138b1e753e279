r"""Plain numbers, compared exactly: integers, decimals, fractions and scientific notation, in LaTeX or not.

Most answers are one of these. They are decided here, without math-verify, by one rule:

- exact values (integers, fractions) agree if they are equal;
- a decimal agrees with any value up to 5e-7, both absolutely and relatively (math-verify: six decimals, absolutely);
- a decimal of at least four significant digits also agrees with an exact value that is not an integer and of which it
  is the rounding: 0.3333 and 1/3, but neither 0.333 nor 0.3334, and never 1999.9996 and 2000.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

TOLERANCE = Fraction(5, 10**7)
MIN_DIGITS = 4  # significant digits of a decimal that can represent an exact value
LONGEST = 200  # characters of a number; longer texts are not numbers
LARGEST_EXPONENT = 400

_UNSIGNED = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_POWER = r"(?:[eE]|(?:\\times|\\cdot|\*|\u00d7)10\^)(?:\{(?P<braced>[+-]?\d+)\}|(?P<bare>[+-]?\d+))"
_DECIMAL = re.compile(rf"(?P<sign>[+-]?)(?P<digits>{_UNSIGNED})(?:{_POWER})?")
_FRACTION = re.compile(r"(?P<sign>[+-]?)(?:\\[dt]?frac\{(?P<a>-?\d+)\}\{(?P<b>-?\d+)\}|(?P<c>\d+)/(?P<d>\d+))")
_SPACE = r"(?:\s|\\[,;: ])"
_TWO_NUMBERS = re.compile(rf"\d{_SPACE}+\d")
_SPACES = re.compile(rf"{_SPACE}|\\!")
# Thousands separators in LaTeX, besides a comma: a narrow space, or a comma in braces.
THOUSANDS = re.compile(r"(?<=\d)(?:,\s*\\!\s*|\\[,!;: ]\s*|\{,\})(?=\d{3}(?!\d))")
# A number with commas: its first group does not begin with 0.
GROUPED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
# A comma next to white space separates two numbers.
_SEPARATED = re.compile(rf",{_SPACE}|{_SPACE},")
_MIXED = re.compile(
    rf"(?P<sign>[-+]?)(?P<integer>\d+)(?:{_SPACE}+(?P<a>\d+)/(?P<b>\d+)|{_SPACE}*\\[dt]?frac\{{(?P<c>\d+)\}}\{{(?P<d>\d+)\}})"
)


@dataclass(frozen=True)
class Number:
    value: Fraction
    step: Fraction | None = None  # for a decimal: one unit of its last digit
    digits: int = 0  # for a decimal: number of significant digits

    @property
    def is_decimal(self) -> bool:
        return self.step is not None


def read_number(text: str) -> Number | None:
    """The number, if the complete text is one; else None."""
    if len(text) > LONGEST:
        return None
    text = THOUSANDS.sub("", text.strip())
    if found := _MIXED.fullmatch(text):
        above, below = int(found["a"] or found["c"]), int(found["b"] or found["d"])
        if not 0 < above < below:
            return None
        value = int(found["integer"]) + Fraction(above, below)
        return Number(-value if found["sign"] == "-" else value)
    if _TWO_NUMBERS.search(text) or _SEPARATED.search(text):
        return None
    text = _SPACES.sub("", text).replace("\u2212", "-")  # the minus sign
    if found := _FRACTION.fullmatch(text):
        above, below = (int(found["a"] or found["c"]), int(found["b"] or found["d"]))
        if below == 0:
            return None
        value = Fraction(above, below)
        return Number(-value if found["sign"] == "-" else value)
    if not (found := _DECIMAL.fullmatch(text)) or not text.isascii():
        return None
    digits = found["digits"].replace(",", "")
    integer, point, decimals = digits.partition(".")
    exponent = int(found["braced"] or found["bare"] or 0)
    if abs(exponent) > LARGEST_EXPONENT:
        return None
    scale = Fraction(10) ** (exponent - len(decimals))
    value = int(integer + decimals) * scale
    value = -value if found["sign"] == "-" else value
    if not point or not decimals:
        return Number(value)
    return Number(value, step=scale, digits=len((integer + decimals).lstrip("0")))


def agree(a: Number, b: Number) -> bool:
    """True if two numbers agree by the rule of this module."""
    if a.value == b.value:
        return True
    if not a.is_decimal and not b.is_decimal:
        return False
    return close(a.value, b.value) or is_rounding(a, b.value, b.is_decimal) or is_rounding(b, a.value, a.is_decimal)


def close(a: Fraction, b: Fraction) -> bool:
    """Equal up to TOLERANCE, both absolutely and relatively."""
    return abs(a - b) <= TOLERANCE * min(1, max(abs(a), abs(b)))


def is_rounding(decimal: Number, exact: Fraction, exact_is_decimal: bool) -> bool:
    """True if a decimal is the rounding, at its last digit, of an exact value that is not an integer."""
    if decimal.step is None or decimal.digits < MIN_DIGITS or exact_is_decimal or exact.denominator == 1:
        return False
    return abs(decimal.value - exact) * 2 <= decimal.step
