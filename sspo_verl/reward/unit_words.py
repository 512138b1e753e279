"""Words that are units though they are short, and words that are not units although they follow a value."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# After a number without a space, too.
ABBREVIATIONS = _words("""
    cm mm km dm nm kg mg ml mL kL dL kW kWh kHz MHz GHz Hz kJ kPa Pa mol ft yd mi lb lbs oz hr hrs min mins sec secs
    ms mph kph kmh km/h m/s rpm pts ft/s mi/h kg/m
""")

# Shorter than four letters or without a sign that they are words, after a space.
SHORT_NOUNS = _words("""
    men cup cups egg eggs day days way ways car cars cow cows dog dogs cat cats pen pens box bag bags pie pies toy
    toys bus boy boys girl feet foot inch mile year cent week hour hen hens ant ants bee bees hat hats cap caps key
    keys gem gems tin tins can cans jar jars bar bars bed beds row rows set sets pig pigs map maps mug mugs nut nuts
    pot pots tea fox elk rat rats fly kid kids ton tons gal gals sq USD EUR per lap laps job jobs win wins old ago
    yen
""")

# They change the value, or say that it is not the complete answer.
NOT_UNITS = _words("""
    zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty seventy
    eighty ninety hundreds thousands millions billions trillions quadrillion quintillion googol score gross half
    halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths seventh eighth eighths ninth tenth
    tenths hundredth hundredths thousandth thousandths millionth double twice triple squared cubed factorial root
    power choose mod modulo base
    binary octal decimal hexadecimal over times plus minus divided multiplied by or and not nor but except if when
    where whenever unless for with without from to through until between more most less least fewer greater smaller
    larger bigger above below under beyond than about at all any every no none never nothing neither either both is
    are was were be has have can cannot does do such that which so thus hence since because infinity infinite
    infinitely undefined unknown impossible exist exists exactly almost nearly negative positive even odd pi sin cos
    tan log ln exp sqrt remainder reciprocal opposite inverse solution solutions real reals imaginary complex
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
    # Chinese: ten thousand, and ten thousand of them.
    "\u4e07": "10^{4}",
    "\u842c": "10^{4}",
    "\u4ebf": "10^{8}",
    "\u5104": "10^{8}",
}
