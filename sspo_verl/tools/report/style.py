"""Colours and markers. Figures use the light ones; the page replaces them by CSS variables, for dark mode."""

from __future__ import annotations

# {name: (light, dark)}
INK = {"ink": ("#1f2430", "#e7e9ee"), "muted": ("#5c6575", "#a3abba"), "grid": ("#dfe3ea", "#343b49")}
# Entropy bands. Blue, grey and orange are distinguishable for the colour-blind; each also shows its name.
TINTS = {"low": ("#dbe8fb", "#1b3252"), "mid": ("#eceef1", "#2e3440"), "high": ("#fde0c2", "#52330f")}
# Also distinguishable for the colour-blind, with markers in addition.
CURVES = (
    ("#0a62c4", "#6db3ff"),
    ("#c2460c", "#ffa057"),
    ("#12805c", "#4fd6a4"),
    ("#8b3fc7", "#cd9bff"),
    ("#b3245f", "#ff8db7"),
    ("#6f6300", "#dccb45"),
    ("#087990", "#55d3e8"),
    ("#4a5160", "#b9c1d0"),
)
# (matplotlib's name, character). Seven, so that with eight colours 56 labels differ.
MARKERS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"), ("X", "✖"))


def color(style: int) -> str:
    return CURVES[style % len(CURVES)][0]


def marker(style: int) -> str:
    return MARKERS[style % len(MARKERS)][0]


def marker_text(style: int) -> str:
    return MARKERS[style % len(MARKERS)][1]


def light(name: str) -> str:
    return INK[name][0]


def variables() -> dict[str, tuple[str, str]]:
    """{CSS variable: (light, dark)}."""
    return {f"--{name}": pair for name, pair in (INK | TINTS).items()} | {
        f"--c{i}": pair for i, pair in enumerate(CURVES)
    }
