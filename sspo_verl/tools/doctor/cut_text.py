"""SSPO's cut, on text instead of tokens: what `sspo_verl.segments` has to agree with."""

from __future__ import annotations


def segment_ends(text: str) -> list[int]:
    """Where each segment of a text ends, as a number of characters from its start.

    A line ends after its line break; a blank line joins the segment before it, or the one after it where there is
    none before.
    """
    ends: list[int] = []
    position = 0
    seen_text = False
    for line in text.split("\n"):
        position += len(line) + 1
        if line.strip():
            seen_text = True
            ends.append(min(position, len(text)))
        elif ends and seen_text:
            ends[-1] = min(position, len(text))
    return ends or [len(text)] * bool(text)
