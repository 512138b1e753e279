"""Tries the reward function before Ray starts, on the ground truth of the first row of each data_source.

A function that raises, or does not return a number, would fail for every response, minutes later and without showing
its own error. SSPO_CHECK_REWARD=0 skips this, for a function that can only run inside Ray.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import os
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

SWITCH = "SSPO_CHECK_REWARD"
SECONDS = 10.0
# Ways to write the answer that reward functions look for.
FORMS = ("{}", r"\boxed{{{}}}", "#### {}", "<answer>{}</answer>", "Answer: {}")
MANAGERS = ("naive", "dapo")  # verl's own managers that call the function with one response
AGENT_LOOPS = ("single_turn_agent", "tool_agent")  # verl's own
RAISED = (Exception, SystemExit)  # what the user's code may raise
NOT_THE_USERS = ("<frozen", sysconfig.get_path("stdlib"), __file__)  # how the files of other code begin


def own_loop(config) -> bool:
    """Whether the user's own agent loop generates the responses, from whatever is in the data."""
    agent = config.actor_rollout_ref.rollout.agent
    return bool(
        agent.get("agent_loop_manager_class")
        or agent.get("agent_loop_config_path")
        or agent.get("default_agent_loop") not in AGENT_LOOPS
    )


def verl_scores(config) -> bool:
    """Whether verl's own reward manager scores each response with a function, from the data's columns."""
    manager = config.reward.reward_manager
    by_function = manager.source == "register" and manager.name in MANAGERS and not config.reward.reward_model.enable
    return by_function and not own_loop(config)


def try_reward(config, samples: Mapping[Any, tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Notes for the log. Raises ValueError, with the function's own error, if no response could be scored.

    samples: {data_source: (where it is in its file, a row of the training data)}.
    """
    if os.environ.get(SWITCH) == "0" or not verl_scores(config):
        return []
    function, name, close = _load(config)
    rows = {_called(where, source, len(samples)): row for source, (where, row) in samples.items()}
    caller = _InTime(lambda: [line for which, row in rows.items() for line in _try(function, name, which, row)])
    close()
    if caller.finished:
        return caller.result()
    return [
        f"NOTE: the reward function did not return within {SECONDS:g} s for one response to each of {len(rows)} row(s) "
        f"({', '.join(rows)}: their own ground truth). verl calls it for each of the data.train_batch_size x rollout.n "
        f"responses of a step: make it faster, or expect slow steps. {SWITCH}=0 skips this check."
    ]


def _called(where: str, source: Any, sources: int) -> str:
    return where if sources == 1 else f"{where} (data_source {source!r})"


class _InTime:
    """A call in its own thread, waited for up to a time limit."""

    def __init__(self, function: Callable[[], list[str]]):
        self._function = function
        self._outcome: list[str] | BaseException = []
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        thread.join(SECONDS)
        self.finished = not thread.is_alive()

    def _run(self) -> None:
        try:
            self._outcome = self._function()
        except BaseException as error:
            self._outcome = error

    def result(self) -> list[str]:
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


def _try(function: Callable, name: str, which: str, row: Mapping[str, Any]) -> Iterator[str]:
    gold = row["reward_model"]["ground_truth"]
    scores = [_score(function, name, which, row, form.format(gold)) for form in FORMS]
    if max(scores) <= 0:
        shown = ", ".join(form.format("X") for form in FORMS)
        yield (
            f"NOTE: {name} gives {max(scores):g} to {which}'s own ground truth X={str(gold)[:80]!r}, written as "
            f"{shown}. Unless it reads another form of answer, nothing can be learned from it."
        )


def _load(config) -> tuple[Callable, str, Callable[[], None]]:
    """The function with its settings, its name, and a function that ends the processes of our reward."""
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.utils.reward_score import default_compute_score

    from sspo_verl.reward import settings

    own = config.reward.get("custom_reward_function") or {}
    path = own.get("path")
    if path and own.get("name") is None:
        raise ValueError(f"reward.custom_reward_function.name is null: set it to the name of the function in {path}.")
    name = f"the reward function {own.get('name')} of {path}" if path else "verl's default reward function"
    try:
        function = get_custom_reward_fn(config) or default_compute_score
    except RAISED as error:
        told = _told(_without_wrapper(error))
        raise ValueError(f"reward.custom_reward_function: {name} cannot be loaded: {told}") from error
    module = settings.module_of(path)
    if module is None:
        return function, name, lambda: None
    import importlib

    return function, name, importlib.import_module(module).close


def _score(function: Callable, name: str, which: str, row: Mapping[str, Any], text: str) -> float:
    extra_info = {**(row.get("extra_info") or {}), "num_turns": None, "rollout_reward_scores": {}}
    arguments = {
        "data_source": row["data_source"],
        "solution_str": text,
        "ground_truth": row["reward_model"]["ground_truth"],
        "extra_info": extra_info,
    }
    called = f"{name}, called with solution_str={text[:80]!r} and the data of {which},"
    try:
        result = function(**arguments)
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
    except RAISED as error:
        raise ValueError(f"{called} raises {_told(error)}. {_way_out()}") from error
    try:
        return _stored(result.get("score") if isinstance(result, dict) else result)
    except Exception as error:
        raise ValueError(
            f"{called} returns {_text(repr, result):.200}, which verl cannot store as a score ({_text(str, error)}). "
            f"verl needs a finite number, or a dict with one as 'score'. {_way_out()}"
        ) from error


def _stored(score: Any) -> float:
    """A score, stored in a tensor as verl does (`AgentLoopOutput.as_dict`). Raises what torch raises, and ValueError
    for a score that is not finite."""
    import torch

    scores = torch.zeros(1)
    scores[-1] = score
    if not math.isfinite(scores.item()):
        raise ValueError("not finite")
    return scores.item()


async def _awaited(result):
    return await result


def _told(error: BaseException) -> str:
    """An error's type, message, and the last line of the user's own code in its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    last = next((frame for frame in reversed(frames) if _is_users(frame.filename)), None)
    where = f" (line {last.lineno} of {Path(last.filename)})" if last else ""
    return f"{type(error).__name__}: {_text(str, error)}{where}"


def _is_users(filename: str) -> bool:
    return "site-packages" not in filename and not filename.startswith(NOT_THE_USERS)


def _without_wrapper(error: BaseException) -> BaseException:
    """What a file raised as it was imported: verl raises another error from it, which only names the file."""
    wrapped = isinstance(error, RuntimeError) and str(error).startswith("Error loading module")
    return error.__cause__ if wrapped and error.__cause__ is not None else error


def _text(write: Callable[[Any], str], value: Any) -> str:
    """str or repr of a user's object, which may raise."""
    try:
        return write(value)
    except Exception as error:
        return f"a {type(value).__name__} whose {write.__name__} raises {type(error).__name__}"


def _way_out() -> str:
    return f"Fix it, or set {SWITCH}=0 if it can only run inside Ray."
