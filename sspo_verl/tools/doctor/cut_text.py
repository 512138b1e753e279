"""SSPO's segmentation of text instead of tokens: the reference for `sspo_verl.segments`."""

from __future__ import annotations


def segment_ends(text: str) -> list[int]:
    """End of each segment of a text, as a number of characters from its start.

    A line ends after its line break; a blank line joins the segment before it, or the one after it if there is none
    before.
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
