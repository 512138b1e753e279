r"""Answer formats: where in a response its answer is, the reward's setting `answer`.

boxed (the default): the last \boxed{...}. hash: what follows the last #### in its line, as in GSM8K and verl's own
prompts for it. tag: the content of the last <answer>...</answer>, possibly several lines. last_number: the last number.
Anything else is a regular expression (of the library `regex`) with one group, or a group named `answer`: the answer is
what the group contains in the last match.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import regex

from sspo_verl.reward.answer import boxed_answer

Read = Callable[[str | None], str | None]
PATTERN_SECONDS = 2.0  # limit of a regular expression on one response; beyond it, the check is a time-out

_HASH = regex.compile(r"(?<!#)####(?!#)(.*)")
_TAG = regex.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", regex.DOTALL | regex.IGNORECASE)
_NUMBER = regex.compile(
    r"(?<![\w.])(?:(?<!(?:[\d)\]}]|\b[A-Za-z])\s?)[-\u2212])?(?:\\?\$)?"  # a sign, not the minus of 3-2 and x - 2
    r"(?:\\[dtc]?frac\{\d+\}\{\d+\}|\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|\.\d+|\d+)(?:[eE][-+]?\d+|/\d+)?(?:\\?%)?"
)
# A number that is part of a larger expression is not an answer: \sqrt{2}, x^2, x+2, 2x, 5\pi, 3(x+y).
_WITHIN = regex.compile(
    r"(?:\\(?:sqrt|d?binom|[dtc]?frac)(?:\[[^]]*\])?(?:\{[^{}]*\})?|[\^_])\{?$"
    r"|(?:[\w)\]}]\s*[-\u2212+/]|\\(?:cdot|times|div|pm|mp))\s*$"
)
_GOES_ON = regex.compile(
    r"[A-Za-z]\b|\(|\^(?!\{?\\circ)|\s?\\(?:pi|sqrt|[dtc]?frac|cdot|times|binom|infty)(?![A-Za-z])"
)


@dataclass(frozen=True)
class Format:
    """An answer format. read: returns a response's answer, or None. asked: what the prompt must ask for, in words."""

    read: Read
    asked: str


def _hash(response: str | None) -> str | None:
    for rest in reversed(_HASH.findall(response or "")):
        text = rest.strip().strip("*`").strip()
        if text:
            return boxed_answer(text) or text
    return None


def _tag(response: str | None) -> str | None:
    for text in reversed(_TAG.findall(response or "")):
        if text.strip():
            return text.strip()
    return None


def _last_number(response: str | None) -> str | None:
    last = None
    for last in _NUMBER.finditer(response or ""):  # noqa: B007  only the last one is needed
        pass
    if last is None or response is None:
        return None
    if _WITHIN.search(response[max(0, last.start() - 100) : last.start()]) or _GOES_ON.match(response[last.end() :]):
        return None
    return last.group().strip()


NAMED = {
    "boxed": Format(boxed_answer, r"the final answer within \boxed{}"),
    "hash": Format(_hash, "the final answer after ####"),
    "tag": Format(_tag, "the final answer between <answer> and </answer>"),
    "last_number": Format(_last_number, "the answer as a number, at the end"),
}


def choose(answer: str) -> Format:
    """The format with that name or regular expression. Raises ValueError, listing the formats."""
    if isinstance(answer, str) and answer in NAMED:
        return NAMED[answer]
    there = f"there are {', '.join(NAMED)}, and a regular expression with one group around the answer"
    if not isinstance(answer, str):
        raise ValueError(f"answer={answer!r} is not a text: {there}")
    try:
        pattern = regex.compile(answer)
    except regex.error as error:
        raise ValueError(f"answer={answer!r} is not a regular expression ({error}): {there}") from error
    if "answer" not in pattern.groupindex and pattern.groups != 1:
        groups = "no group" if not pattern.groups else f"{pattern.groups} groups, none of them called `answer`"
        raise ValueError(f"answer={answer!r} is unknown, and as a regular expression it has {groups}: {there}")
    group = "answer" if "answer" in pattern.groupindex else 1

    def read(response: str | None) -> str | None:
        found = None
        for match in pattern.finditer(response or "", timeout=PATTERN_SECONDS, concurrent=True):
            found = (match.group(group) or "").strip() or found
        return found

    return Format(read, f"what {answer!r} matches")


def others(answer: str, response: str | None) -> list[str]:
    """The other named formats, except last_number, in which this response has an answer."""
    return [name for name in ("boxed", "hash", "tag") if name != answer and NAMED[name].read(response) is not None]
