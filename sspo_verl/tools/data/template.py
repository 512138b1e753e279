r"""The messages around a problem. A model's chat template turns them into the prompt; see docs/data.md."""

from __future__ import annotations

from typing import Any

INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."

# Qwen2.5-Math's: `qwen-boxed` is the prompt with this name in its evaluation code, `qwen-math` the one in its model
# cards. Both set a system message, so that no chat template adds its own.
SYSTEM = {"qwen-boxed": "You are a helpful assistant.", "qwen-math": INSTRUCTION}
AFTER = {"qwen-boxed": "\n" + INSTRUCTION, "qwen-math": "", "none": ""}
TEMPLATES = tuple(AFTER)
DEFAULT = "qwen-boxed"

# For actor_rollout_ref.model.custom_chat_template: the prompt is just the text of the messages.
NO_CHAT_TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def messages(problem: str, template: str) -> list[dict[str, str]]:
    system = [{"role": "system", "content": SYSTEM[template]}] if template in SYSTEM else []
    return [*system, {"role": "user", "content": problem + AFTER[template]}]


def problem_in(prompt: Any, extra_info: Any) -> str | None:
    """The problem in a row of verl's layout, without what our template added after it. None if there is none."""
    users = [m for m in prompt if isinstance(m, dict) and m.get("role") == "user"] if isinstance(prompt, list) else []
    if not users or not isinstance(users[-1].get("content"), str):
        return None
    template = extra_info.get("template") if isinstance(extra_info, dict) else None
    return users[-1]["content"].removesuffix(AFTER.get(template or "none", ""))
