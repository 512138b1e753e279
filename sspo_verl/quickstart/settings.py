"""What a call was asked for: algorithm, platform, directories, and verl's composed configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sspo_verl.compose import composed
from sspo_verl.quickstart.training import RECIPE, Job
from sspo_verl.report import settings as report_settings

DEFAULT_ALGORITHM = "sspo"
# What does not belong to a run: it may differ between its attempts.
_VOLATILE = ("ray_kwargs.ray_init._temp_dir",)


def algorithms() -> list[str]:
    """The names that `algorithm=` takes."""
    import sspo_verl

    folder = Path(sspo_verl.__file__).parent / "conf" / "algorithm"
    return sorted(file.stem for file in folder.glob("*.yaml"))


def choose_algorithm(asked: str | None, overrides: list[str]) -> tuple[str, list[str]]:
    """(algorithm, the other overrides). An override `algorithm=...` wins over the variable ALGORITHM."""
    others = []
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals:
            raise ValueError(
                f"{override!r} is not a Hydra override (key=value), the only kind of argument that is taken."
            )
        if name == "algorithm":
            asked = value
        else:
            others.append(override)
    algorithm = asked or DEFAULT_ALGORITHM
    if algorithm not in algorithms():
        raise ValueError(f"ALGORITHM={algorithm} is unknown. There are: {', '.join(algorithms())}.")
    return algorithm, others


def choose_platform() -> str:
    import torch

    from sspo_verl.cpu import has_accelerator_support

    if not has_accelerator_support():
        return "cpu"
    if torch.cuda.is_available():
        return "gpu"
    raise ValueError(
        f"This torch ({torch.__version__}) was built for an accelerator, but none is visible. Make one visible "
        "(CUDA_VISIBLE_DEVICES), or install the CPU build of torch."
    )


def find_recipes() -> Path:
    """recipes/ of the checkout: beside the package where it is used in place, else below the current directory."""
    for folder in (Path(__file__).parents[2] / "recipes", Path.cwd() / "recipes"):
        if (folder / f"{RECIPE}.yaml").exists():
            return folder.resolve()
    raise ValueError(f"recipes/{RECIPE}.yaml is not here: run this from the top of a checkout of the project.")


def positive_number(name: str, default: float) -> float:
    text = os.environ.get(name, "").strip()
    try:
        number = float(text) if text else default
    except ValueError:
        number = -1.0
    if not number > 0:
        raise ValueError(f"{name}={text} must be a number above 0.")
    return number


def compose(job: Job) -> dict:
    """verl's configuration as `main_ppo` will compose it, resolved. Raises ValueError with Hydra's explanation."""
    from omegaconf import OmegaConf

    container = OmegaConf.to_container(composed(job.recipes, RECIPE, job.arguments(), job.recipe_environment()))
    assert isinstance(container, dict)
    return container


def flatten(config: dict) -> dict[str, object]:
    """{"a.b": value} of nested dictionaries, without what may differ between two attempts at one run."""
    return {key: value for key, value in report_settings.flatten(config).items() if key not in _VOLATILE}


def changes(before: dict[str, object], now: dict[str, object]) -> list[str]:
    """`key: old → new` for every setting that differs."""
    return [
        f"{key}: {before.get(key)} → {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def save(flat: dict[str, object], path: Path) -> None:
    path.write_text(json.dumps(flat, indent=1, default=str) + "\n")


def load(path: Path) -> dict[str, object] | None:
    return json.loads(path.read_text()) if path.exists() else None
