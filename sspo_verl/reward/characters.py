r"""Unicode to LaTeX: converts characters that models write (√, ², ½, ∞, full-width digits) to commands.

One table, then Unicode's own compatibility forms (NFKC), then the table again: 𝜋 first becomes π.
"""

# ruff: noqa: RUF001  ambiguous characters are the point of this module
from __future__ import annotations

import re
import unicodedata


def _placed(where: str) -> dict[str, str]:
    """Superscript ("<super>") or subscript ("<sub>") forms of single characters in Unicode; º is a degree."""
    parts = {chr(n): unicodedata.decomposition(chr(n)).split() for n in range(0x80, 0xAC00)}
    pairs = {each: chr(int(found[1], 16)) for each, found in parts.items() if found[:1] == [where] and len(found) == 2}
    return {each: "-" if plain == "\u2212" else plain for each, plain in pairs.items() if each != "º"}


_SUPERSCRIPTS = _placed("<super>")
_SUBSCRIPTS = _placed("<sub>")
_FRACTIONS = (
    "½ 1 2 ⅓ 1 3 ⅔ 2 3 ¼ 1 4 ¾ 3 4 ⅕ 1 5 ⅖ 2 5 ⅗ 3 5 ⅘ 4 5 ⅙ 1 6 ⅚ 5 6 ⅐ 1 7 ⅛ 1 8 ⅜ 3 8 ⅝ 5 8 ⅞ 7 8 ⅑ 1 9 ⅒ 1 10"
)
_NOTHING = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufe0e\ufe0f\ufeff"
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ϵ": "epsilon", "ζ": "zeta", "η": "eta",
    "θ": "theta", "ϑ": "vartheta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "µ": "mu", "ν": "nu",
    "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ": "phi", "ϕ": "phi", "χ": "chi",
    "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi",
    "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_COMMANDS = {
    "×": "times", "✕": "times", "·": "cdot", "⋅": "cdot", "∙": "cdot", "•": "cdot", "÷": "div", "±": "pm", "∓": "mp",
    "≤": "le", "≦": "le", "⩽": "le", "≥": "ge", "≧": "ge", "⩾": "ge", "≠": "ne", "≈": "approx", "≡": "equiv",
    "∞": "infty", "∈": "in", "∉": "notin", "⊂": "subset", "⊆": "subseteq", "∪": "cup", "∩": "cap", "∅": "emptyset",
    "⌀": "emptyset", "∖": "setminus", "∧": "land", "∨": "lor", "∣": "mid", "∠": "angle", "△": "triangle", "°": "degree",
    "º": "degree", "˚": "degree", "…": "ldots", "⋯": "cdots", "→": "to", "⟨": "langle", "⟩": "rangle", "〈": "langle",
    "〉": "rangle", "⌊": "lfloor", "⌋": "rfloor", "⌈": "lceil", "⌉": "rceil", "∑": "sum", "∏": "prod", "∫": "int",
    "⊥": "perp", "∥": "parallel", **_GREEK,
}  # fmt: skip
_TABLE = str.maketrans(
    {
        **dict.fromkeys(_NOTHING, ""),
        **{character: rf"\{command} " for character, command in _COMMANDS.items()},
        **{letter: rf"\mathbb{{{plain}}}" for letter, plain in zip("ℝℤℕℚℂ", "RZNQC", strict=True)},
        **{a: rf"\frac{{{b}}}{{{c}}}" for a, b, c in zip(*[iter(_FRACTIONS.split())] * 3, strict=True)},
        **dict.fromkeys("‐‑‒–—―−﹣－", "-"),
        **dict.fromkeys("∗⁎﹡", "*"),
        **dict.fromkeys("⁄∕／", "/"),
        **dict.fromkeys("′’‘＇", "'"),
        **dict.fromkeys("″“”", '"'),
        **dict.fromkeys("，、﹐", ", "),  # separators: thousands are not written with them
        **dict.fromkeys("\u2009\u202f\u2007", r"\,"),
        "；": "; ",
        "。": ".",
        "∶": ":",
        "℃": r"\degree\text{C}",
        "℉": r"\degree\text{F}",
    }
)
_RAISED = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_LOWERED = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_ROOT = re.compile(r"([√∛∜])\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[A-Za-z]|\\[A-Za-z]+))?")
_DEGREES = {"√": "", "∛": "[3]", "∜": "[4]"}


def characters(text: str) -> str:
    """The text with mathematical characters replaced by LaTeX, and without invisible characters."""
    if text.isascii():
        return text
    text = _RAISED.sub(lambda found: f"^{{{''.join(_SUPERSCRIPTS[c] for c in found.group())}}}", text)
    text = _LOWERED.sub(lambda found: f"_{{{''.join(_SUBSCRIPTS[c] for c in found.group())}}}", text)
    text = unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)
    return _ROOT.sub(_root, text)


def _root(found: re.Match) -> str:
    sign, *arguments = found.groups()
    argument = next((a for a in arguments if a is not None), None)
    return rf"\sqrt{_DEGREES[sign]}" + ("" if argument is None else f"{{{argument}}}")
