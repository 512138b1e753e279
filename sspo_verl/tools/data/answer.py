r"""The answer of a published row as one plain string, without its \boxed{}."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from sspo_verl.reward.tidy import group

GSM8K_MARK = "####"
_NUMBER = re.compile(r"[-+]?\$?[-+]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?:/\d+)?%?")
_IN_DOLLARS = re.compile(r"\$\s*([^$]*?)\s*\$")
_BOXES = (r"\boxed", r"\fbox")
_PROSE = re.compile(r"\b(?:answer|is|are|be|get|so|thus|hence|therefore|have)\b", re.IGNORECASE)
# What pandas and Python write for missing values.
_NOTHING = {"nan", "NaN", "NAN", "None", "null", "NULL", "<NA>", "NaT"}


def present(value: Any) -> bool:
    """False for missing values: null, NaN, a blank text or pandas' text for a missing value, or a list of those."""
    if isinstance(value, (bytes, str)):
        text = text_of(value)
        return not isinstance(text, str) or (bool(text.strip()) and text.strip() not in _NOTHING)
    if isinstance(value, (list, tuple)):
        return any(present(each) for each in value)
    if isinstance(value, dict):
        return bool(value)
    return value is not None and not (isinstance(value, (float, Decimal)) and value != value)


def text_of(value: Any) -> Any:
    """Decode bytes (from parquet's binary columns) if they are UTF-8; return anything else unchanged."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def last_boxed(text: str) -> str | None:
    r"""Content of the last \boxed{...} or \fbox{...} of a solution; None if there is none, or it is unclosed.

    The content of `\boxed 7`, with a space instead of braces, ends at the next dollar sign.
    """
    start, command = max((text.rfind(name), name) for name in _BOXES)
    if start < 0:
        return None
    rest = text[start + len(command) :]
    if rest.startswith(" ") and not rest.lstrip().startswith("{"):
        return rest.split("$")[0].strip()
    content, _ = group(rest.lstrip(), 0)
    return None if content is None else content.strip()


def after_mark(text: str) -> str | None:
    """GSM8K's answer: what follows the last `####` of the worked solution."""
    _, mark, answer = text.rpartition(GSM8K_MARK)
    return answer.strip() if mark else None


def bare_number(text: str) -> str | None:
    """The text, if it is just a number: GSM8K without the worked solutions."""
    text = text.strip()
    in_dollars = _IN_DOLLARS.fullmatch(text)
    text = in_dollars[1] if in_dollars else text
    return text if _NUMBER.fullmatch(text) else None


def unboxed(text: str) -> str:
    r"""An answer without \boxed{}: only the content if it is in dollar signs or a sentence; else each is replaced."""
    if not any(name in text for name in _BOXES):
        return text.strip()
    found = last_boxed(text)
    parts, rest = [], text
    while True:
        start, command = min((rest.find(name), name) if name in rest else (len(rest), name) for name in _BOXES)
        if start == len(rest):
            break
        after = rest[start + len(command) :].lstrip()
        content, end = group(after, 0)
        if content is None:  # unclosed, or without braces
            return text.strip() if found is None else found
        parts += [rest[:start], content.strip()]
        rest = after[end:]
    around = "".join(parts[::2]) + rest
    if found is not None and (not around.strip(" $.\t\n") or _PROSE.search(around)):
        return found
    return ("".join(parts) + rest).strip()


def plain(value: Any) -> str | None:
    """A published answer as text: 142.0 gives `142`, and Decimal("3.50") gives `3.5`. None if there is no answer."""
    if not present(value):
        return None
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return unboxed(str(value))
