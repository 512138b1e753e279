r"""Removes instructions that other preprocessing put around a problem: a prompt should only have our template's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import ceil
from typing import NamedTuple

# Typographic variants, each mapped to one plain character, so a match in the plain text can be cut from the original.
_PLAIN = str.maketrans("’‘ʼ`´“”„«»：，．！？\u00a0\u2009\u202f\u3000", "'''''\"\"\"\"\":,.!?    ")  # noqa: RUF001

# What the preprocessing scripts of verl, DAPO and PRIME add, and those derived from them; each with small variants.
_QUOTE = r"[\"']{0,3}"
_BOX = r"\$?\\*boxed\s*\{\s*(?:(?:your |the )?(?:final )?answer|\.\.\.|…)?\s*\}\$?"
_WHERE = rf"(?:after {_QUOTE}####{_QUOTE}|(?:with)?in(?:side)? {_BOX})"
_LETS = r"(?:Please,? )?(?:Let(?:'?s| us) )?"
_LAST_LINE = (
    r"Solve the following math problem step by step\.\s*The last line of your response should be of the form "
    rf"{_QUOTE}answer:.{{0,80}}?the answer to the problem\."
)
_STEPS = rf"{_LETS}(?:think|reason) step by step,? and (?:output|put|give|write) (?:the|your) final answer {_WHERE}\.?"
_KOJIMA = r"Let(?:'?s| us) think step by step\.?"
_AFTER = (
    r"Remember to put your answer on its own line (?:after|at the end)[^.?!\n]{0,200}\.?",
    rf"(?:Please )?(?:put|output|give|write) (?:the|your) final answer {_WHERE}\.?",
    rf"Present the answer in LaTe?X format: {_BOX}\.?",
)
# At the start, an instruction ends with a full stop or a line: what follows on the same line may be its object.
_AT_START = re.compile(rf"\A\s*(?:{_LAST_LINE}|{_STEPS}|{_KOJIMA})(?:\s*\Z|(?<=[.:!])\s+|[^\S\n]*\n\s*)", re.IGNORECASE)
_AT_END = re.compile(rf"(?:\A|(?<=\s))(?:{'|'.join((_STEPS, *_AFTER))}|(?P<short>{_KOJIMA}))\s*\Z", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?:\A|\n\s*|[.?!…。][\"')\]}$]*\s*)\Z")

# For instructions that are not listed. _ASKS: says how to answer, whatever is around it. _SPEAKS: a sentence that most
# rows share, and that is not a question, mentions the answer or the reasoning.
_ASKS = re.compile(
    r"boxed|####|step[- ]by[- ]step|</?\w{2,}>|final answer|"
    r"\b(?:give|write|put|state|report|present|provide|output|enclose|express|submit)\b[^.?!]{0,60}\banswer\b|"
    r"逐步|一步一步|最终答案|最後の答え|最終的な答え|ステップ|단계|최종|Schritt für Schritt|étape par étape|"
    r"paso a paso|passo a passo|шаг за шагом",
    re.IGNORECASE,
)
_SPEAKS = re.compile(
    r"\b(?:answer|reason|assistant|format|respon[sd]|solve\b|question|problem|think\b|Antwort|réponse|respuesta|resposta)|"
    r"答案|回答|推理|思考|解答|答え|推論|답|추론|ответ",
    re.IGNORECASE,
)
_PIECES = re.compile(r"(?<=[.?!:])\s+|(?<=[。！？；])\s*|\s*\n\s*")  # noqa: RUF001
_CHINESE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
MIN_ROWS, MIN_SHARE = 10, 0.5  # with fewer, problems may begin or end alike by chance
MIN_LETTERS = 12  # of a sentence without _ASKS: `Question:`, `Answer:` are labels; a Chinese character counts as three


def split(text: str) -> tuple[str, str]:
    """(problem, known instructions around it, or "" if there are none)."""
    taken: list[str] = []
    text = text.strip()
    while found := _known(text):
        start, end = found
        taken.append(text[start:end].strip())
        text = (text[:start] + text[end:]).strip()
    return text, " ".join(taken)


def _known(text: str) -> tuple[int, int] | None:
    """Start and end of a known instruction: at the start of the text, or at its end as a separate sentence."""
    plain = text.translate(_PLAIN)
    found = _AT_START.search(plain)
    if found is None:
        found = _AT_END.search(plain)
        if found and not _own_sentence(plain, found):
            found = None
    return found.span() if found and found.group().strip() else None


def _own_sentence(plain: str, found: re.Match[str]) -> bool:
    """Whether it begins after the end of a sentence or line or, if the problem has no full stop, with a capital."""
    before = plain[: found.start()]
    if _SENTENCE_END.search(before):
        return True
    return found.group()[0].isupper() and found["short"] is None and before.rstrip()[-1:] not in tuple(",:;-(\"'")


class _Text(NamedTuple):
    """A problem. masked: the text used to compare it, of the same length."""

    own: str
    masked: str


def shared(problems: Sequence[str]) -> str | None:
    """The text that most problems begin or end with, if it is an instruction that `split` does not know.

    Compared with digits at first, and then with all digits equal, for an instruction that includes the row's number.
    """
    if len(problems) < MIN_ROWS:
        return None
    plain = [problem.strip() for problem in problems]
    for masked in (plain, [re.sub(r"\d+", lambda run: "0" * len(run[0]), text) for text in plain]):
        texts = [_Text(own, other) for own, other in zip(plain, masked, strict=True)]
        for at_end in (True, False):
            found = _longest(texts, at_end)
            text = found and _instruction(*found, at_end=at_end, whole_sentences=masked is plain)
            if text:
                return text
    return None


def _longest(texts: Sequence[_Text], at_end: bool) -> tuple[str, int] | None:
    """The longest text that MIN_SHARE of the problems begin or end with: (one of these problems, its length).

    When sorted, texts that share the most are adjacent.
    """
    ordered = sorted((text.masked[::-1] if at_end else text.masked, text.own) for text in texts)
    span = ceil(MIN_SHARE * len(ordered)) - 1
    best, length = None, 0
    for (first, own), (last, _) in zip(ordered, ordered[span:], strict=False):
        common = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
        common = min(len(first), len(last)) if common is None else common
        if common > length:
            best, length = own, common
    return None if best is None else (best, length)


def _instruction(problem: str, length: int, *, at_end: bool, whole_sentences: bool) -> str | None:
    """The sentences among the `length` characters at the problem's border that are an instruction, or None.

    whole_sentences: sentences that only mention the answer also count. Part of a sentence, or one that is the same
    except for its numbers, may belong to the problem: it has to ask for the answer's form.
    """
    border = (len(problem) - length, len(problem)) if at_end else (0, length)
    inside = [(a, b) for a, b in _pieces(problem) if border[0] <= a and b <= border[1]]
    if len(inside) == len(list(_pieces(problem))):  # everything is shared: leave one sentence as the problem
        inside = inside[1:] if at_end else inside[:-1]
    text = problem[inside[0][0] : inside[-1][1]].strip() if inside else ""
    if _ASKS.search(text):
        return text
    fragment = problem[border[0] : border[1]].strip(" \t\n,;，；")  # noqa: RUF001
    if _ASKS.search(fragment):
        return fragment
    if whole_sentences and any(_only_speaks(problem[a:b]) for a, b in inside):
        return text
    return None


def _only_speaks(sentence: str) -> bool:
    letters = sum(3 if _CHINESE.match(each) else 1 for each in sentence if each.isalnum())
    return letters >= MIN_LETTERS and not sentence.rstrip().endswith(("?", "？")) and bool(_SPEAKS.search(sentence))  # noqa: RUF001


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each sentence or line."""
    start = 0
    for found in _PIECES.finditer(text):
        if found.start() > start:
            yield start, found.start()
        start = found.end()
    if start < len(text):
        yield start, len(text)
