"""Prompts: converts a problem to the token ids that the model gets, by the template rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sspo_verl.tools.data.template import TEMPLATES
from sspo_verl.tools.evaluate.problems import Index, Problem

# extra_info.template of rows whose prompt is the bare text. All others use the tokenizer's chat template, including
# rows without a template (the quickstart's), as in verl.
BARE = "none"


@dataclass(frozen=True)
class Prompt:
    problem: Problem
    text: str
    ids: list[int]

    @property
    def key(self) -> tuple[str, Index]:
        return self.problem.set, self.problem.index


def render(problems: Iterable[Problem], tokenizer: Any, model: str) -> list[Prompt]:
    return [_render(problem, tokenizer, model) for problem in problems]


def _render(problem: Problem, tokenizer: Any, model: str) -> Prompt:
    where = f"{problem.set}, problem {problem.index}"
    if problem.template not in (None, *TEMPLATES):
        raise ValueError(f"{where}: extra_info.template is {problem.template!r}. Known are: {', '.join(TEMPLATES)}.")
    if problem.template == BARE:
        text = "".join(message["content"] for message in problem.messages)
    elif tokenizer.chat_template:
        text = tokenizer.apply_chat_template(problem.messages, add_generation_prompt=True, tokenize=False)
    else:
        raise ValueError(
            f"{where} needs the chat template, and model {model} has none. "
            f"`sspo data eval --template {BARE}` makes data without."
        )
    # A chat template writes the special tokens itself, and verl does not add any to a bare prompt either.
    return Prompt(problem, text, tokenizer.encode(text, add_special_tokens=False))


def check_lengths(prompts: list[Prompt], max_tokens: int, model_length: int | None, model: str) -> int:
    """The maximum sequence length. Raises ValueError if it exceeds the model's."""
    longest = max(prompts, key=lambda prompt: len(prompt.ids))
    needed = len(longest.ids) + max_tokens
    if model_length is not None and needed > model_length:
        available = model_length - len(longest.ids)
        advice = f"Set --max-tokens to {available} or less." if available > 0 else "Leave this set out."
        raise ValueError(
            f"Model {model} takes {model_length} tokens in all (max_position_embeddings). {longest.problem.set}, "
            f"problem {longest.problem.index} has {len(longest.ids)}, which leaves too little for "
            f"--max-tokens {max_tokens}. {advice}"
        )
    return needed
