"""One row of a published set, whatever its columns are called: problem, answer, level, type."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sspo_verl.tools.data import instruction
from sspo_verl.tools.data.answer import after_mark, bare_number, last_boxed, plain
from sspo_verl.tools.data.read import RawRow
from sspo_verl.tools.data.sets import PublishedSet
from sspo_verl.tools.data.template import problem_in

PROBLEM = ("problem", "question")
ANSWER = ("answer", "final_answer")
TYPE = ("type", "subject", "subfield")
VERL = ("data_source", "prompt", "reward_model", "extra_info")
COLUMNS = (*PROBLEM, *ANSWER, "solution", "level", "difficulty", *TYPE, *VERL)
# As published (`Level 3`, 3), and as pandas (3.0, where one is missing) or a hand writes it.
_LEVEL = re.compile(r"(?:(?:level|lvl|l)[\s_:.-]*)?([1-5])(?:\.0*)?", re.IGNORECASE)

# Minerva's lists are one answer in several notations (`6630.65` and `6630`); any one of them is right.
ALTERNATIVES = ("minerva",)


@dataclass(frozen=True)
class Record:
    """answer: None or empty where the row has none. alternatives: further notations of it, which are not kept.

    instruction: what another preprocessing had put around the problem, which is not part of it; "" if nothing.
    """

    problem: str
    answer: str | None
    level: int | None
    type: str | None
    raw: RawRow
    alternatives: int = 0
    instruction: str = ""


def record(raw: RawRow, published: PublishedSet) -> Record:
    """Raises ValueError, naming file and row, for a row without a problem or with an answer of no known kind."""
    value = raw.value
    problem = next((value[name] for name in PROBLEM if value.get(name) is not None), None)
    if problem is None and value.get("prompt") is not None:
        problem = problem_in(value["prompt"], value.get("extra_info"))
    if not isinstance(problem, str) or not problem.strip():
        raise ValueError(f"{raw.where}: no problem. A row has one of the columns {', '.join(PROBLEM)} or prompt.")
    problem, taken_off = instruction.split(problem.strip())
    if not problem:
        raise ValueError(f"{raw.where}: no problem, only an instruction ({taken_off}).")
    answer, alternatives = _answer(raw, published)
    return Record(problem, answer, _level(value, published), _type(value), raw, alternatives, taken_off)


def _answer(raw: RawRow, published: PublishedSet) -> tuple[str | None, int]:
    value = raw.value
    reward_model = value.get("reward_model")
    if isinstance(reward_model, dict):  # verl's layout: its answer may be a text, or hold the solution it is from
        truth = reward_model.get("ground_truth")
        value = {"solution": truth.get("solution"), "target": truth.get("target")} if isinstance(truth, dict) else value
        if not isinstance(truth, dict):
            return _plain(truth, raw), 0
    if published.name == "gsm8k":
        answer = value.get("answer")
        if answer is None or isinstance(answer, (str, list)):
            text = _text(answer, raw)
            return after_mark(text) or bare_number(text), 0
        return _plain(answer, raw), 0
    for name in ANSWER:
        answer = value.get(name)
        if isinstance(answer, list):
            entries = [entry for entry in (_plain(each, raw) for each in answer) if entry]
            if published.name in ALTERNATIVES:
                return (entries[0] if entries else None), max(len(entries) - 1, 0)
            return ", ".join(entries), 0
        if answer is not None:
            return _plain(answer, raw), 0
    if value.get("solution") is not None:
        return last_boxed(_text(value["solution"], raw)), 0
    return _plain(value.get("target"), raw), 0


def _plain(value: Any, raw: RawRow) -> str | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int, float))):
        raise ValueError(f"{raw.where}: an answer that is a {type(value).__name__} and no text or number.")
    return plain(value)


def _text(value: Any, raw: RawRow) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = "\n".join(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{raw.where}: a solution that is a {type(value).__name__} and no text.")
    return value or ""


def _level(value: dict[str, Any], published: PublishedSet) -> int | None:
    """MATH's, 1 to 5. None for `Level ?`, of which the train split has two, and for sets without levels."""
    level = value.get("level")
    if level is None and isinstance(value.get("extra_info"), dict):
        level = value["extra_info"].get("level")
    if level is None and published.name == "math500":
        level = plain(value.get("difficulty"))
    found = _LEVEL.fullmatch(str(level).strip())
    return int(found[1]) if found else None


def _type(value: dict[str, Any]) -> str | None:
    inside = value.get("extra_info")
    own = inside.get("type") if isinstance(inside, dict) else None
    return next((str(value[name]) for name in TYPE if value.get(name) is not None), own)
