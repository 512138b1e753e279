r"""The answer of a published row as one plain string, without its \boxed{}."""

from __future__ import annotations

import math
import re
from typing import Any

from sspo_verl.reward.tidy import group

GSM8K_MARK = "####"
_NUMBER = re.compile(r"[-+]?\$?[-+]?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")


def last_boxed(text: str) -> str | None:
    r"""Content of the last \boxed{...} or \fbox{...} of a solution; None if there is none, or it never closes.

    `\boxed 7`, with a space in the place of braces, holds what comes before the next dollar sign.
    """
    start, command = max((text.rfind(name), name) for name in (r"\boxed", r"\fbox"))
    if start < 0:
        return None
    rest = text[start + len(command) :]
    if rest.startswith(" ") and not rest.lstrip().startswith("{"):
        return rest.split("$")[0].strip()
    content, _ = group(rest.lstrip(), 0)
    return None if content is None else content.strip()


def after_mark(text: str) -> str | None:
    """GSM8K's: what follows the last `####` of the worked solution."""
    _, mark, answer = text.rpartition(GSM8K_MARK)
    return answer.strip() if mark else None


def bare_number(text: str) -> str | None:
    """The text, if it is a number and nothing else: GSM8K without the worked solutions."""
    return text.strip() if _NUMBER.fullmatch(text.strip()) else None


def plain(value: Any) -> str | None:
    """A published answer as text: 142.0 is `142`. None for no answer."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
