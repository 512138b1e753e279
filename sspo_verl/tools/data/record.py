"""`Record`: one row of a published set, whatever its column names: problem, answer, level, type."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sspo_verl.tools.data import instruction
from sspo_verl.tools.data.answer import after_mark, bare_number, last_boxed, plain, present, text_of, unboxed
from sspo_verl.tools.data.read import RawRow
from sspo_verl.tools.data.sets import PublishedSet
from sspo_verl.tools.data.template import problem_in

PROBLEM = ("problem", "question")
ANSWER = ("answer", "final_answer")
TYPE = ("type", "subject", "subfield")
VERL = ("data_source", "prompt", "reward_model", "extra_info")
COLUMNS = (*PROBLEM, *ANSWER, "solution", "target", "level", "difficulty", *TYPE, *VERL)
# As published (`Level 3`, 3), as written by pandas (3.0, if one is missing), or by hand.
_LEVEL = re.compile(r"(?:(?:level|lvl|lev|lv|l)[\s_:.#-]*)?\(?0*([1-5])(?:\.0*)?\)?", re.IGNORECASE)

# Minerva's lists are one answer in several notations (`6630.65` and `6630`); any of them is correct.
ALTERNATIVES = ("minerva",)


@dataclass(frozen=True)
class Record:
    """A row. answer: None or empty if the row has none. alternatives: other notations of it, which are not kept.

    instruction: what other preprocessing had put around the problem, which is not part of it; "" if nothing.
    """

    problem: str
    answer: str | None
    level: int | None
    type: str | None
    raw: RawRow
    alternatives: int = 0
    instruction: str = ""


def record(raw: RawRow, published: PublishedSet) -> Record:
    """Parse a row. Raises ValueError, naming file and row, if it has no problem or an answer of an unknown kind."""
    value = {name: _decoded(each) for name, each in raw.value.items() if name in COLUMNS}
    name, problem = _first(value, PROBLEM)
    if name is None and present(value.get("prompt")):
        name, problem = "prompt", problem_in(value["prompt"], value.get("extra_info"))
    if not isinstance(problem, str) or not problem.strip():
        raise ValueError(f"{raw.where}: the row has no problem. {_why_no_problem(raw, name, problem)}")
    problem, taken_off = instruction.split(problem)
    if not problem:
        raise ValueError(f"{raw.where}: the row has no problem, only an instruction ({taken_off}).")
    answer, alternatives = _answer(value, raw, published)
    return Record(problem, answer, _level(value, published), _type(value), raw, alternatives, taken_off)


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return {name: _decoded(each) for name, each in value.items()} if isinstance(value, dict) else text_of(value)


def _first(value: dict[str, Any], names: Iterable[str]) -> tuple[str | None, Any]:
    """The first of these columns that is not missing, and its value; (None, None) if all are missing."""
    return next(((name, value[name]) for name in names if present(value.get(name))), (None, None))


def _why_no_problem(raw: RawRow, name: str | None, problem: Any) -> str:
    if name == "prompt":
        return "Its prompt has no message of the role `user` whose content is a text."
    if name:
        kind = "bytes that are not UTF-8" if isinstance(problem, bytes) else f"a {type(problem).__name__}"
        return f"Its column {name!r} has {kind}, not text."
    columns = raw.columns or tuple(raw.value)
    empty = [each for each in (*PROBLEM, "prompt") if each in columns]
    there = f"{', '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty" if empty else "it has none of them"
    listed = f"its columns are {', '.join(map(repr, columns))}" if columns else "it has no columns"
    return f"A row needs one of the columns {', '.join(PROBLEM)} or prompt; {there} ({listed})."


def _answer(value: dict[str, Any], raw: RawRow, published: PublishedSet) -> tuple[str | None, int]:
    reward_model = value.get("reward_model")
    truth = reward_model.get("ground_truth") if isinstance(reward_model, dict) else None
    if isinstance(truth, dict) and present(
        truth
    ):  # verl's layout: its answer may be a text, or contain the solution it is from
        value = {**value, **{name: truth[name] for name in ("solution", "target") if present(truth.get(name))}}
        value = {name: each for name, each in value.items() if name not in ANSWER}
    elif present(truth):
        return _plain(truth, raw), 0
    if published.name == "gsm8k":
        return _answer_of_gsm8k(value, raw), 0
    name, answer = _first(value, ANSWER)
    if isinstance(answer, list):
        entries = [entry for entry in (_plain(each, raw) for each in answer) if entry]
        if published.name in ALTERNATIVES:
            return (entries[0] if entries else None), max(len(entries) - 1, 0)
        return ", ".join(entries) or None, 0
    if name:
        return _plain(answer, raw), 0
    solution = last_boxed(_text(value["solution"], raw)) if present(value.get("solution")) else None
    return (solution if solution or not present(value.get("target")) else _plain(value["target"], raw)), 0


def _answer_of_gsm8k(value: dict[str, Any], raw: RawRow) -> str | None:
    """GSM8K's answer: `answer` is the worked solution or a number; if neither, try `final_answer` and `solution`."""
    for name in ("answer", "final_answer", "solution"):
        found = value.get(name)
        if not present(found):
            continue
        if not isinstance(found, (str, list)):
            return _plain(found, raw)
        if isinstance(found, list):
            found = [each if isinstance(each, str) else _plain(each, raw) or "" for each in found]
        text = _text(found, raw)
        marked = after_mark(text)
        answer = (marked and unboxed(marked)) or last_boxed(text) or bare_number(text)
        if answer is None and name == "final_answer":
            answer = text.strip()
        if answer:
            return answer
    return None


def _plain(value: Any, raw: RawRow) -> str | None:
    if not present(value):
        return None
    if isinstance(value, bytes):
        raise ValueError(f"{raw.where}: the answer is bytes that are not UTF-8. Write it as text.")
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise ValueError(f"{raw.where}: the answer is of type {type(value).__name__}. Write it as text or a number.")
    if isinstance(value, (float, Decimal)) and not math.isfinite(value):
        raise ValueError(
            f"{raw.where}: the answer is the number {value}. Correct it, or write infinity as the text \\infty."
        )
    return plain(value)


def _text(value: Any, raw: RawRow) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = "\n".join(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{raw.where}: the solution is of type {type(value).__name__}. Write it as text.")
    return value or ""


def _level(value: dict[str, Any], published: PublishedSet) -> int | None:
    """MATH's level, 1 to 5. None for `Level ?`, of which the train split has two, and for sets without levels."""
    inside = value.get("extra_info")
    places = [value.get("level"), inside.get("level") if isinstance(inside, dict) else None]
    if published.name == "math500":
        places.append(value.get("difficulty"))
    level = next((each for each in places if present(each)), None)
    found = _LEVEL.fullmatch(unicodedata.normalize("NFKC", str(level)).strip())
    return int(found[1]) if found else None


def _type(value: dict[str, Any]) -> str | None:
    inside = value.get("extra_info")
    name, own = _first(value, TYPE)
    if name is None and isinstance(inside, dict):
        name, own = _first(inside, ("type",))
    return None if name is None else str(own)
