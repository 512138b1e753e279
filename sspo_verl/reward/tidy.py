r"""Normalizes LaTeX: removes what carries no meaning, and writes each notation in one form.

`tidy` rewrites local spellings (\dfrac, \leq, \left, \mathrm{e}, ½, √2, pi/2) to the form that the other modules
expect; `canonical` is for comparing texts. Neither interprets the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from sspo_verl.reward.characters import characters
from sspo_verl.reward.numbers import THOUSANDS
from sspo_verl.reward.unit_words import GREEK

_END = r"(?![a-zA-Z])"
_PLAIN_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?")
_SURROUNDED = re.compile(r"\$+([^$]*)\$+|\\\(((?:(?!\\[()]).)*)\\\)|\\\[((?:(?!\\[\[\]]).)*)\\\]", re.DOTALL)
_MARKDOWN = re.compile(r"(\*\*|\*|__|`+)([^*_`]+)\1")
_ANSWER_IS = r"(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*"
_BEGINNING = re.compile(
    rf"^(?:\\(?:approx|quad|qquad)(?![a-zA-Z])|\\[,;: ]|\s|=(?!=)|{_ANSWER_IS}(?::|(?<=is\s))"
    rf"|\\text\{{\s*{_ANSWER_IS}:?\s*\}}\s*[:=]?)+",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
# White space around these is never significant; between letters or digits it may be.
_AROUND_SYMBOLS = re.compile(r"\s*([-+*/=<>,;:!|^_(){}\[\]])\s*")
_AFTER_COMMAND = re.compile(r"(\\[a-zA-Z]+)\s+(?![a-zA-Z])")
# A comma next to white space is a separator; without it, before three digits, it may mark thousands.
_SEPARATING = re.compile(r"(?<=\d)(?:\s+,\s*|,\s+)(?=\d{3}(?!\d))")
PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:per\s?cent|\\?%|pct)\s*\}|(?<![A-Za-z])(?:per\s?cent|percentage|pct))$")
ELLIPSIS = r"\ldots"

# Products of vectors are not products of numbers.
_VECTOR = r"\\(?:vec|overrightarrow|mathbf|boldsymbol|bm)\s*\{?\s*([A-Za-z]+)\s*\}?"
_RULES: tuple[tuple[str, str | Callable[[re.Match], str]], ...] = (  # in this order
    (r"\\(?:left|right|middle)\s*\.", ""),
    (rf"\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits"
     rf"|tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge){_END}", ""),
    (r"\\color\s*(?:\[[^\[\]]*\])?\s*\{[^{}]*\}|\\tag\*?\s*\{[^{}]*\}", ""),
    (rf"\\(?:[dtc]frac|sfrac|nicefrac|flatfrac){_END}", r"\\frac"),
    (rf"\\[dt]binom{_END}", r"\\binom"),
    (rf"\\(?:leq|leqslant|leqq){_END}|<=", r"\\le "),
    (rf"\\(?:geq|geqslant|geqq){_END}|>=", r"\\ge "),
    (rf"\\(?:neq{_END}|not\s*=)|!=", r"\\ne "),
    (rf"\\lt{_END}", "<"),
    (rf"\\gt{_END}", ">"),
    (rf"\\(?:varnothing|O){_END}", r"\\emptyset "),
    (rf"\\(?:dots[cbom]?|cdots|hdots|ldots){_END}|\.\.\.", r"\\ldots "),
    (rf"\\lbrace{_END}", r"\\{"),
    (rf"\\rbrace{_END}", r"\\}"),
    (rf"\\lbrack{_END}", "["),
    (rf"\\rbrack{_END}", "]"),
    (rf"\\(?:[lr]?vert){_END}", "|"),
    (rf"\\(?:vee){_END}", r"\\lor "),
    (rf"\\(?:wedge){_END}", r"\\land "),
    (rf"\\(?:ast){_END}|\*\*(?=\S)", lambda found: "^" if found.group() == "**" else "*"),
    (rf"\\infin{_END}", r"\\infty "),
    (rf"\^\s*\{{\s*\\(?:circ|degree){_END}\s*\}}", r"^\\circ "),
    (rf"\^\s*\\(?:circ|degree){_END}|\\(?:degree|textdegree){_END}", r"^\\circ "),
    (rf"\\(?:mathbb|Bbb)\s*([RNZQC])(?![a-zA-Z])|\\(?:mathbb|Bbb)\s*\{{\s*([RNZQC])\s*\}}|\\([RNZQC]){_END}",
     lambda found: rf"\mathbb{{{found[1] or found[2] or found[3]}}}"),
    (rf"\\(?:measured|spherical)angle{_END}", r"\\angle "),
    (r"\\angle\s*\{([^{}]*)\}", r"\\angle \1"),
    (rf"{_VECTOR}\s*\\times\s*{_VECTOR}", lambda found: f" X_{{{found[1]}cross{found[2]}}} "),
    (r"(?<=\\in)\s*\\(?:mathbf|boldsymbol|bm)\s*(?:\{\s*([RZNQC])\s*\}|([RZNQC])(?![a-zA-Z]))",
     lambda found: rf" \mathbb{{{found[1] or found[2]}}}"),
    (r"(?<=\S)\s*\(\s*([a-zA-Z])\s*\\in\s*(\\mathbb\{[ZN]\}\s*(?:[\^_]\s*(?:[+*]|\{[+*]\}))?)\s*\)$", r", \1\\in \2"),
    (r"(?<=[\w)}\]])\s*\^\s*-\s*(\d+)", r"^{-\1}"),
    (rf"\\tg{_END}", r"\\tan"),
    (rf"\\ctg{_END}", r"\\cot"),
    (rf"\\lg{_END}", r"\\log_{10}"),
    (rf"\\log\s*_\s*(?:e|\{{\s*e\s*\}}|\{{?\\mathrm\s*\{{\s*e\s*\}}\}}?){_END}", r"\\ln "),
    (r"\+\s*/\s*-", r"\\pm "),
    (r"(?<=[)\]\d])\s+U\s+(?=[(\[\\{])", r"\\cup "),
)  # fmt: skip
_SIMPLE = tuple((re.compile(pattern), instead) for pattern, instead in _RULES)
_SPACES = re.compile(
    rf"(?<!\\)\\(?:[,;:! ]|(?:quad|qquad|enspace|thinspace|medspace|thickspace){_END})"
    r"|\\hspace\*?\s*\{[^{}]*\}|~|\s+"
)
_TEXT = re.compile(r"\\(?:textnormal|textsc|textbf|textit|textsf|texttt|textrm|textup|mbox|hbox|emph)(?=\s*\{)")
_OLD_TEXT = re.compile(r"\{\s*\\(?:rm|bf|it|sf)(?![a-zA-Z])\s*([^{}]*)\}|\\(?:rm|bf|it|sf)(?![a-zA-Z])\s*([^{}\\]*)")
_IN_TEXT = re.compile(r"\\(?:text|mathrm|operatorname\*?)\s*\{([^{}]*)\}")
_NESTED_TEXT = re.compile(r"(\\(?:text|mathrm))\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
# 2i, e^x: single letters, not units.
_MATHEMATICS = re.compile(r"(?=.*[\d^+=-])(?:[^A-Za-z]*(?<![A-Za-z])[A-Za-z](?![A-Za-z]))+[^A-Za-z]*")
_BARE_TEXT = re.compile(r"\\(?:text|mathrm)\s+([A-Za-z0-9])|\\mathrm([0-9])")
_WRAPPER = re.compile(
    r"\\(?:(?:textcolor(?:\s*\[[^\[\]]*\])?|colorbox|fcolorbox\s*\{[^{}]*\})\s*\{[^{}]*\}"
    rf"|(?:boldsymbol|bm|pmb|mathbf|mathit|mathsf|mathnormal|ensuremath|fbox|framebox|uline|bold|boxed){_END})\s*"
)
_UNDERLINED = re.compile(r"\\(?:underline|underset\{[^{}]*\})\s*")
_FUNCTIONS = (
    "arcsin|arccos|arctan|arccot|arcsec|arccsc|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|max|min|gcd|lcm"
)
_FUNCTION = re.compile(rf"(?:{_FUNCTIONS}|lg)")
_GREEK = "|".join(sorted(GREEK - {"psi"}))  # pounds per square inch
# Plain text that stands for a command. Not within words, and not inside \text.
_PLAIN_WORD = re.compile(
    rf"\\text\{{[^{{}}]*\}}|(?<![A-Za-z\\])(pi|sqrt|infinity|inf|{_FUNCTIONS}|(?:{_GREEK})(?!\s+[A-Za-z]{{2}}))(?![A-Za-z])"
)
_PLAIN_COMMANDS = {"infinity": "infty", "inf": "infty"}
# Single letters that are units if they are upright and follow a value; other upright letters are symbols.
UNIT_LETTERS = frozenset("mgshlLNJWVAKCFtT")
_MOST_NESTED = 100
_WITH_ARGUMENTS = re.compile(rf"\\(frac|binom|sqrt){_END}\s*")
_OVER = re.compile(r"\{([^{}]*)\\(over|choose)(?![a-zA-Z])([^{}]*)\}|^([^{}]*)\\(over|choose)(?![a-zA-Z])([^{}]*)$")
_PERIOD = re.compile(
    r"(?<![\w.])(\d*)\.(\d*)(?:\\(?:overline|bar)\s*(?:\{\s*(\d+)\s*\}|(\d))"
    r"|\\dot\s*(?:\{\s*(\d)\s*\}|(\d))(?:(\d*)\\dot\s*(?:\{\s*(\d)\s*\}|(\d)))?)(?!\w)"
)
_SCIENTIFIC = re.compile(r"(?<![\w.\\}])(\d+(?:\.\d+)?)[eE]([+-]?\d+)(?![\w.])")
_DEGREES = re.compile(
    r"(\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])(?:\s*\^\s*(?:\{[^{}]*\}|\d))?)\s*"
    r"(?:\(\s*(-?\d+(?:\.\d+)?)\s*\^\\circ\s*\)|\{\s*(-?\d+(?:\.\d+)?)\s*\^\\circ\s*\}|(\d+(?:\.\d+)?)\s*\^\\circ)"
)
_CURRENCY = re.compile(
    r"^([-+]?)\s*(?:\\\$|[$€£¥₹₩₽]|\\(?:euro|pounds|yen)(?![a-zA-Z])|(?:US|USD|Rs\.?|EUR|GBP)\s*\$?\s*(?=\d))\s*"
)
_THOUSANDS_OF_MONEY = re.compile(r"(?<=\d)\s*(?:\\(?:text|mathrm)\{\s*[kK]\s*\}|[kK])$")
_ORDINAL = re.compile(
    r"(?<=\d)(?:\s*\^\s*\{?\s*(?:\\text\{\s*)?(?:st|nd|rd|th)\s*\}?\s*\}?|\s*\\text\{\s*(?:st|nd|rd|th)\s*\}|(?:st|nd|rd|th)(?![a-zA-Z]))$"
)


@lru_cache(maxsize=1024)
def tidy(text: str) -> str:
    """Normalize a text: strip white space, $, full stops, commas and semicolons around it, and unify its spelling."""
    text = text.strip()
    if _PLAIN_NUMBER.fullmatch(text):
        return text
    text = _without_ends(characters(text))
    for _ in range(2):  # the content of a removed wrapper must be stripped again
        before = text
        text = _without_ends(_spelled(text))
        if text == before:
            break
    return text


def canonical(text: str) -> str:
    """A form of a tidy text that only differs from it in appearance: texts with the same form mean the same."""
    return _AFTER_COMMAND.sub(r"\1", _AROUND_SYMBOLS.sub(r"\1", _SEPARATING.sub(", \x00", text)))


def words(text: str) -> str:
    r"""A form of a tidy text for comparing words, regardless of \text and of upper or lower case."""
    spread = canonical(" ".join(_IN_TEXT.sub(r" \1 ", text).split())).strip(" .")
    return _WORD.sub(lambda found: found.group().lower(), spread)


def _without_ends(text: str) -> str:
    text = text.strip()
    for _ in range(4):  # "$5.$." needs two
        before = text
        text = text.rstrip(" \n\t~")
        while text.endswith("\\") and not text.endswith("\\\\"):  # of "42\ "
            text = text[:-1].rstrip()
        while text.endswith("\\\\"):
            text = text[:-2].rstrip()
        if text[-1:] in (".", ",", ";") and text[-2:-1] != "\\" and not text.endswith("..."):
            text = text[:-1].rstrip()
        if found := _SURROUNDED.fullmatch(text):
            text = next(group for group in found.groups() if group is not None).strip()
        if found := _MARKDOWN.fullmatch(text):
            text = found[2].strip()
        if text.startswith("{") and group(text, 0)[1] == len(text):
            text = text[1:-1].strip()
        if found := _UNDERLINED.match(text):
            inner, end = group(text, found.end())
            if end == len(text) and inner:
                text = inner.strip()
        text = _BEGINNING.sub("", text, count=1)
        if text == before:
            break
    return text


def _spelled(text: str) -> str:
    if _CURRENCY.match(text):
        text = _THOUSANDS_OF_MONEY.sub(r"\\text{ thousand}", _CURRENCY.sub(r"\1", text))
    if "\\begin" not in text:
        text = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text)
    text = THOUSANDS.sub("", text)
    text = re.sub(r"\\[$]|[$]|(?<=\d)\s*[€£¥¢₹₩₽]$", "", text)
    text = _TEXT.sub(r"\\text", text)
    text = _OLD_TEXT.sub(lambda found: rf"\text{{{found[1] if found[1] is not None else found[2]}}}", text)
    for pattern, instead in _SIMPLE:
        text = pattern.sub(instead, text)
    text = text.replace("\\!", "")
    text = _SPACES.sub(" ", text)
    text = _BARE_TEXT.sub(lambda found: rf"\text{{{found[1] or found[2]}}}", text)
    text = _ORDINAL.sub("", text)
    text = _unwrapped(text)
    text = _NESTED_TEXT.sub(_flat, text)
    text = _IN_TEXT.sub(_text, text)
    if found := re.fullmatch(r"\s*\\text\{([^{}]*)\}\s*", text):
        text = found[1].strip()
    text = _PLAIN_WORD.sub(_command, text)
    text = _OVER.sub(_over, text)
    text = _with_braces(text)
    text = _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)
    text = _PERIOD.sub(_repeating, text)
    text = _DEGREES.sub(_radians, text)
    return " ".join(text.split())


def _flat(found: re.Match) -> str:
    r"""Simplify \mathrm{m \cdot s^{-1}} to \mathrm{m s^-1}."""
    inner = re.sub(r"\\(?:cdot|times)(?![a-zA-Z])", " ", re.sub(r"\^\s*\{\s*(-?\d+)\s*\}", r"^\1", found[2]))
    if not re.search(r"[\\{}]", inner):
        return f"{found[1]}{{{inner}}}"
    return f"{{{found[2]}}}" if found[1] == "\\mathrm" else found.group()


def _text(found: re.Match) -> str:
    command, inner = found.group().split("{")[0].strip(), " ".join(found[1].split())
    before = found.string[: found.start()].rstrip()[-1:]
    if _FUNCTION.fullmatch(inner) and not _is_time(inner, before, found):
        return {"lg": r"\log_{10} "}.get(inner, rf"\{inner} ")
    if inner == "pi" or inner in GREEK - {"psi"} or re.fullmatch(r"\\[a-zA-Z]+", inner):
        return f"\\{inner.lstrip(chr(92))} "
    if len(inner) == 1 and inner.isalpha() and inner not in UNIT_LETTERS:
        return f" {inner} "
    if _MATHEMATICS.fullmatch(inner) and not UNIT_LETTERS & set(inner):
        return f" {inner} "
    if inner and not re.search(r"[A-Za-z\\%\u0080-\U0010ffff]", inner):  # \text{:}, \text{5}
        if set(inner) == {"-"}:
            return "-"
        return f" {inner} " if inner[0].isdigit() else inner + (" " if found[1].endswith(" ") else "")
    if command.startswith("\\operatorname"):
        return rf"\operatorname{{{inner}}}"
    return rf"\text{{{inner}}}" if inner else " "


def _is_time(word: str, before: str, found: re.Match) -> bool:
    """Whether a word is minutes or seconds: after a value, and without an argument that would make it a function."""
    return (
        word in ("min", "sec")
        and before not in ("", "{", "(", "=")
        and found.string[found.end() :].strip() in ("", "}")
    )


def _command(found: re.Match) -> str:
    if found[1] is None or _is_time(found[1], found.string[: found.start()].rstrip()[-1:], found):
        return found.group()
    return rf"\{_PLAIN_COMMANDS.get(found[1], found[1])} "


def _over(found: re.Match) -> str:
    above, command, below = (found[1], found[2], found[3]) if found[2] else (found[4], found[5], found[6])
    return rf"\{'frac' if command == 'over' else 'binom'}{{{above.strip()}}}{{{below.strip()}}}"


def group(text: str, start: int) -> tuple[str | None, int]:
    """Content of the braces that open at start, and their end; (None, start) if none open there or they never close."""
    if text[start : start + 1] != "{":
        return None, start
    depth, position = 0, start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if not depth:
                return text[start + 1 : position], position + 1
        position += 1
    return None, start


def _unwrapped(text: str) -> str:
    if len(_WRAPPER.findall(text)) > _MOST_NESTED:
        return text
    parts, position = [], 0
    while found := _WRAPPER.search(text, position):
        parts.append(text[position : found.start()])
        inner, position = group(text, found.end())
        if inner is not None:
            parts.append(f" {inner} " if re.fullmatch(r"\s*\w\s*", inner) else f"{{{_unwrapped(inner)}}}")
        elif position < len(text) and text[position] not in "}":
            parts.append(" ")
    return "".join([*parts, text[position:]])


_ARGUMENT = re.compile(r"\\[a-zA-Z]+|[0-9a-zA-Z]")
_INDEX = re.compile(r"\s*\[([^\[\]]*)\]")
_BLANK = re.compile(r"\s*")


def _with_braces(text: str) -> str:
    r"""Add the braces of \frac12, \sqrt2 and \binom52; \sqrt(2) becomes \sqrt{2}."""
    if len(_WITH_ARGUMENTS.findall(text)) > _MOST_NESTED:  # may be nested that deep
        return text
    parts, position = [], 0
    while found := _WITH_ARGUMENTS.search(text, position):
        parts.append(text[position : found.start()])
        complete, position = _command_with_arguments(text, found)
        parts.append(complete)
    return "".join([*parts, text[position:]])


def _command_with_arguments(text: str, found: re.Match) -> tuple[str, int]:
    command, position = "\\" + found[1], found.end()
    if found[1] == "sqrt":
        if index := _INDEX.match(text, position):
            command, position = f"{command}[{index[1]}]", index.end()
        elif text[position : position + 1] == "(" and (end := _closing(text, position)):
            return f"{command}{{{_with_braces(text[position + 1 : end])}}}", end + 1
    arguments, end = "", position
    for _ in range(1 if found[1] == "sqrt" else 2):
        argument, end = _argument(text, end)
        if argument is None:
            return command + " ", position
        arguments += f"{{{argument}}}"
    return command + arguments, end


def _argument(text: str, position: int) -> tuple[str | None, int]:
    position = _BLANK.match(text, position).end()  # pyright: ignore[reportOptionalMemberAccess]
    inner, end = group(text, position)
    if inner is not None:
        return _with_braces(inner), end
    if found := _WITH_ARGUMENTS.match(text, position):
        return _command_with_arguments(text, found)
    single = _ARGUMENT.match(text, position)
    return (single.group(), single.end()) if single else (None, position)


def _closing(text: str, start: int) -> int | None:
    depth = 0
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if not depth:
            return position
    return None


def _repeating(found: re.Match) -> str:
    integer, start, *rest = found.groups()
    line, line_1, dot, dot_1, between, last, last_1 = ("" if group is None else group for group in rest)
    period = line + line_1 + dot + dot_1 + between + last + last_1
    if len(integer) + len(start) + len(period) > 30:
        return found.group()
    below = (10 ** len(period) - 1) * 10 ** len(start)
    above = int((integer + start + period) or 0) - int((integer + start) or 0)
    return rf"\frac{{{above}}}{{{below}}}"


def _radians(found: re.Match) -> str:
    degrees = found[2] or found[3] or found[4]
    return rf"{found[1]}(\frac{{{degrees} \pi}}{{180}})"
