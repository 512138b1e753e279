r"""Extracts a response's answer: the part that is compared with the ground truth.

The rule: the content of the last \boxed{...} that is closed and not empty, in any position, whatever follows it. An
answer spread over several boxes, with only a comma, `and` or `or` between them, is the list of their contents.
No box, or only boxes that are unclosed or empty: no answer.

The prompts of these benchmarks ask for a box. Without that requirement, the last number of a response that is truncated
in the middle of its reasoning would count as its answer, and a policy could be rewarded for never finishing.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Escaped braces and backslashes are text, not structure. \\boxed is the box of a response that was escaped twice.
_TOKENS = re.compile(r"\\\\?boxed\s*\{|\\[{}\\]|[{}]")
# Between the boxes of one answer: a separator, and the delimiters of mathematics around it.
_LOOKS = re.compile(r"\$|\*\*|\\[()\[\],;: ]|\\q?quad(?![a-zA-Z])|\s")
_SEPARATOR = re.compile(r"(?P<mark>[,;])|[,;]?(?:\\(?:text|mathrm)\{)?[,;]?(?P<word>and|or)\}?")
# Empty, or a placeholder as in a description of the format: \boxed{...}, \boxed{?}.
_HOLDS_NOTHING = re.compile(
    r"(?:\s|[$~{}?.\u2026]|\\[ ,;:!]|\\q?quad(?![a-zA-Z])|\\[lc]?dots(?![a-zA-Z])|\\text\s*\{\s*\}"
    r"|\\phantom\s*\{[^{}]*\})*"
)
_FARTHEST = 60  # characters between two boxes of one answer


class _Box(NamedTuple):
    start: int
    inner_start: int
    inner_end: int
    end: int


def boxed_answer(response: str | None) -> str | None:
    r"""The answer in a response's boxes, stripped of white space; None if there is none.

    One pass, linear in the length. For nested boxes the outer one counts; if it contains only the inner one, the answer
    is the inner one's content.
    """
    if not response or "\\boxed" not in response:
        return None
    boxes = _boxes(response)
    if not boxes:
        return None
    contents = [_content(response, boxes[-1])]
    parts = contents[:]  # from last to first, like contents
    for before, box in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        if (separator := _separator(response, before.end, box.start)) is None:
            break
        contents.append(_content(response, before))
        parts += [separator, contents[-1]]
    return "".join(reversed(parts)) if len(set(contents)) > 1 else contents[0]


def _boxes(response: str) -> list[_Box]:
    """The outermost boxes that are closed and not empty, in order."""
    boxes: list[_Box] = []
    open_braces: list[tuple[int, int] | None] = []  # for a box: where it begins, and where its content begins
    for token in _TOKENS.finditer(response):
        text = token.group()
        if text == "{":
            open_braces.append(None)
        elif "boxed" in text:
            open_braces.append((token.start(), token.end()))
        elif text == "}" and open_braces and (opened := open_braces.pop()):
            box = _Box(opened[0], opened[1], token.start(), token.end())
            inner = None
            while boxes and boxes[-1].start > box.start:
                inner = boxes.pop()
            if inner and _blank(response, box.inner_start, inner.start) and _blank(response, inner.end, box.inner_end):
                boxes.append(_Box(box.start, inner.inner_start, inner.inner_end, box.end))
            elif not _blank(response, box.inner_start, box.inner_end):
                boxes.append(box)
    return boxes


def _content(response: str, box: _Box) -> str:
    content = response[box.inner_start : box.inner_end].strip()
    return content.replace("\\\\", "\\") if response.startswith("\\\\", box.start) else content


def _separator(response: str, start: int, end: int) -> str | None:
    """The text that joins two boxes of one answer; None if they are two answers."""
    if end - start > _FARTHEST:
        return None
    found = _SEPARATOR.fullmatch(_LOOKS.sub("", response[start:end]))
    if not found:
        return None
    return f" \\text{{ {found['word']} }} " if found["word"] else f"{found['mark']} "


def _blank(text: str, start: int, end: int) -> bool:
    if end - start > _FARTHEST:
        return not text[start:end].strip()
    return start <= end and _HOLDS_NOTHING.fullmatch(text, start, end) is not None
