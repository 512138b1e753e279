"""Word lists for units: short words that are units, units of measurement, and words that follow a value but are not
units."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Also directly after a number, without a space.
ABBREVIATIONS = _words("""
    cm mm km dm nm kg mg ml mL kL dL kW kWh kHz MHz GHz Hz kJ kPa Pa mol ft yd mi lb lbs oz hr hrs min mins sec secs
    ms mph kph kmh km/h m/s rpm pts ft/s mi/h kg/m eV keV MeV GeV kcal bpm gpm MB GB rad
""")

# Shorter than four letters, or not otherwise recognizable as words; after a space.
SHORT_NOUNS = _words("""
    men cup cups egg eggs day days way ways car cars cow cows dog dogs cat cats pen pens box bag bags pie pies toy
    toys bus boy boys girl feet foot inch mile year cent week hour hen hens ant ants bee bees hat hats cap caps key
    keys gem gems tin tins can cans jar jars bar bars bed beds row rows set sets pig pigs map maps mug mugs nut nuts
    pot pots tea fox elk rat rats fly kid kids ton tons gal gals sq USD EUR per lap laps job jobs win wins old ago
    yen cents chips films chops bins fins hints knots elms
""")

# Units even if the value has letters: 4t \text{ dollars}.
MEASURES = _words("""
    meter meters metre metres centimeter centimeters centimetre centimetres kilometer kilometers kilometre kilometres
    millimeter millimeters millimetre millimetres inches miles yard yards hours minute minutes second seconds weeks
    month months years gram grams kilogram kilograms pound pounds ounce ounces liter liters litre litres milliliters
    gallon gallons pint pints quart quarts dollar dollars cents euro euros degree degrees radian radians unit units
    square cubic newton newtons joule joules watt watts volt volts ampere amperes ohm ohms kelvin mole moles hertz
    pascal pascals erg ergs dyn people person students points times time of
""")

_ONES = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
    "|eighteen|nineteen"
)
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_LARGE = (
    "hundred|thousand|million|billion|trillion|quadrillion|quintillion|sextillion|septillion|octillion|nonillion"
    "|decillion"
)
_CARDINALS = f"{_ONES}|{_TENS}|{_LARGE}|dozen|lakh|crore|score|googol"
# "first" and "second" have other meanings too.
_IRREGULAR = {"one": "", "two": "", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
              "twelve": "twelfth"}  # fmt: skip


def _ordinal(cardinal: str) -> str:
    return _IRREGULAR.get(cardinal, cardinal[:-1] + "ieth" if cardinal.endswith("y") else cardinal + "th")


CARDINALS = {word: n for n, word in enumerate(_ONES.split("|"))}  # to nineteen
_ORDINALS = "|".join(filter(None, map(_ordinal, f"{_ONES}|{_TENS}|{_LARGE}".split("|"))))
# twenty, tens, sevenths, twentyfive, tenfold, vigintillionths, triples
_NUMERAL = re.compile(
    rf"(?:{_ORDINALS}|{_CARDINALS})+s?(?:fold)?|\w*illion(?:th)?s?"
    r"|(?:doubl|tripl|quadrupl|quintupl|sextupl|septupl|octupl)(?:e|es|ed|ing)"
)

GREEK = _words("""
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega
    varepsilon vartheta varphi varrho varsigma
""")

# These change the value, or say that it is not the complete answer. Numerals are refused by `is_no_unit`.
_NOT_UNITS = _words("""
    bn bil mln mil mill myriad myriads mega giga thou grand tn trn fold folds gross half halves quarter quarters
    twice squared cubed cube cubes factorial root
    power choose mod modulo base cis bc bce mille
    binary octal decimal hexadecimal hex over times plus minus divided multiplied by or and not nor but except if when
    where whenever unless for with without from to through until between more most less least fewer greater smaller
    larger bigger above below under beyond than about at all any every no none never nothing neither either both is
    are was were be has have can cannot does do such that which so thus hence since because infinity infinite
    infinitely undefined unknown impossible exist exists exactly almost nearly negative positive even odd pi sin cos
    tan log ln exp sqrt floor ceil remainder reciprocal opposite inverse solution solutions real reals imaginary complex
    integer-valued constant true false yes maybe other others i e d x y z n k loss debt deficit deficits am pm a.m
    p.m a.m. p.m.
""")

MULTIPLIERS = {
    "dozen": "12",
    "hundred": "10^{2}",
    "thousand": "10^{3}",
    "lakh": "10^{5}",
    "million": "10^{6}",
    "crore": "10^{7}",
    "billion": "10^{9}",
    "trillion": "10^{12}",
    # Chinese: ten thousand, and ten thousand times that.
    "\u4e07": "10^{4}",
    "\u842c": "10^{4}",
    "\u4ebf": "10^{8}",
    "\u5104": "10^{8}",
}


def is_no_unit(word: str) -> bool:
    """True for a word that changes the value before it, or says that the value is not complete."""
    word = word.lower()
    return word in _NOT_UNITS or word in GREEK - {"psi"} or bool(_NUMERAL.fullmatch(word))
