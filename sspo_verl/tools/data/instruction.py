r"""Instructions that another preprocessing put around a problem. A prompt has one instruction: that of our template."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

# What verl's and DAPO's preprocessing scripts add, and those made after them; each with its small variants.
_QUOTE = r"[\"'`“”]?"
_BEFORE = (
    r"Solve the following math problem step by step\.\s*The last line of your response should be of the form "
    rf"{_QUOTE}answer:.{{0,80}}?the answer to the problem\.",
)
_EITHER = (
    r"(?:Please )?(?:Let'?s )?(?:think|reason) step by step,? and (?:output|put|give|write) (?:the|your) final answer "
    rf"(?:after {_QUOTE}####{_QUOTE}|(?:with)?in \$?\\+boxed\s*\{{\s*\}}\$?)\.?",
    r"Let'?s think step by step\.?",
)
_AFTER = (
    r"Remember to put your answer on its own line (?:after|at the end)[^\n]{0,250}",
    r"(?:Please )?(?:put|output|give|write) (?:the|your) final answer "
    rf"(?:after {_QUOTE}####{_QUOTE}|(?:with)?in \$?\\+boxed\s*\{{\s*\}}\$?)\.?",
)
_AT_START = re.compile(rf"\A\s*(?:{'|'.join(_BEFORE + _EITHER)})(?:\s*\Z|\s+)", re.IGNORECASE)
_AT_END = re.compile(rf"(?:\A|\s+)(?:{'|'.join(_EITHER + _AFTER)})\s*\Z", re.IGNORECASE)

# Of an instruction that nobody listed: most rows share it, and it speaks of the answer's form or of the reasoning.
_CUE = re.compile(
    r"boxed|####|step by step|<\w+>|\b(?:answer|reason|assistant|format|respon[sd]|solve|question|problem)",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"(?<=[.?!:])\s+|\n+")
MIN_ROWS, MIN_WORDS, MIN_SHARE = 10, 4, 0.5  # with fewer, problems may begin or end alike by chance


def split(text: str) -> tuple[str, str]:
    """(the problem, the known instructions around it, "" if there is none)."""
    taken: list[str] = []
    while (found := _AT_START.search(text) or _AT_END.search(text)) and found.group().strip():
        taken.append(found.group().strip())
        text = text[found.end() :] if found.start() == 0 else text[: found.start()]
    return text.strip(), " ".join(taken)


def shared(problems: Sequence[str]) -> str | None:
    """The sentence that most problems begin or end with, if it is an instruction: one that `split` does not know."""
    if len(problems) < MIN_ROWS:
        return None
    parts = [pieces for problem in problems if len(pieces := _SENTENCES.split(problem.strip())) > 1]
    for place in (-1, 0):
        for sentence, count in Counter(pieces[place] for pieces in parts).most_common(1):
            if count >= MIN_SHARE * len(problems) and len(sentence.split()) >= MIN_WORDS and _CUE.search(sentence):
                return sentence
    return None
